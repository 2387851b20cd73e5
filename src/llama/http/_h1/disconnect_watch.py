"""Disconnect detection for slow requests: only those pay for a readiness callback."""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

from llama.http._messages.finalizers import note_loop

PERIOD = 0.03


class Watched(Protocol):
    """A connection with a request in progress."""

    began: int
    """The round of the sweep in which it was added."""

    def arm(self) -> None:
        """Start to watch for a disconnect of the client."""
        ...


class Sweep:
    """Arms each connection once, after one or two periods in a request; one timer per event loop."""

    __slots__ = ("_fresh", "_loop", "_round", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._fresh: set[Watched] = set()
        self._round = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        """Add a connection: a request has begun."""
        watched.began = self._round
        self._fresh.add(watched)
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD, self._sweep)

    def discard(self, watched: Watched) -> None:
        """Remove a connection: its request has ended."""
        self._fresh.discard(watched)

    def _sweep(self) -> None:
        late = [each for each in self._fresh if each.began < self._round]
        self._fresh.difference_update(late)
        self._round += 1
        self._timer = self._loop.call_later(PERIOD, self._sweep) if self._fresh else None
        for watched in late:
            watched.arm()


_sweeps: WeakKeyDictionary[asyncio.AbstractEventLoop, Sweep] = WeakKeyDictionary()


def current_sweep() -> Sweep:
    """Return the sweep of the running loop."""
    loop = asyncio.get_running_loop()
    sweep = _sweeps.get(loop)
    if sweep is None:
        sweep = _sweeps[loop] = Sweep(loop)
        note_loop()
    return sweep

"""Looks after exchanges that take their time: only those pay for a readiness callback."""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

from llama.http._forgotten import note_loop

PERIOD = 0.05


class Watched(Protocol):
    """What is in an exchange."""

    def arm(self) -> None:
        """Begin to look for the client's end."""
        ...


class Sweep:
    """Arms what has been in an exchange for up to a period, once; one timer for all of a loop."""

    __slots__ = ("_fresh", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._fresh: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        """An exchange has begun."""
        self._fresh.add(watched)
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD, self._sweep)

    def discard(self, watched: Watched) -> None:
        """It has ended."""
        self._fresh.discard(watched)

    def _sweep(self) -> None:
        self._timer = None
        found, self._fresh = self._fresh, set()
        for watched in found:
            watched.arm()


_sweeps: WeakKeyDictionary[asyncio.AbstractEventLoop, Sweep] = WeakKeyDictionary()


def current_sweep() -> Sweep:
    """The one of the running loop."""
    loop = asyncio.get_running_loop()
    sweep = _sweeps.get(loop)
    if sweep is None:
        sweep = _sweeps[loop] = Sweep(loop)
        note_loop()
    return sweep

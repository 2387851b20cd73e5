"""Disconnect detection for slow requests: only those pay for a readiness callback."""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

from llama.http._messages.finalizers import register_loop

CHECK_INTERVAL = 0.03


class Watched(Protocol):
    """A connection with a request in progress."""

    started_at: int
    """The round of the sweep in which it was added."""

    def start(self) -> None:
        """Start to watch for a disconnect of the client."""
        ...


class DisconnectWatchTimer:
    """Arms each connection once, after one or two periods in a request; one timer per event loop."""

    __slots__ = ("_fresh", "_loop", "_round", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._fresh: set[Watched] = set()
        self._round = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        """Add a connection: a request has begun."""
        watched.started_at = self._round
        self._fresh.add(watched)
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_INTERVAL, self._check)

    def discard(self, watched: Watched) -> None:
        """Remove a connection: its request has ended."""
        self._fresh.discard(watched)

    def _check(self) -> None:
        late = [each for each in self._fresh if each.started_at < self._round]
        self._fresh.difference_update(late)
        self._round += 1
        self._timer = self._loop.call_later(CHECK_INTERVAL, self._check) if self._fresh else None
        for watched in late:
            watched.start()


_timers: WeakKeyDictionary[asyncio.AbstractEventLoop, DisconnectWatchTimer] = WeakKeyDictionary()


def current_watch_timer() -> DisconnectWatchTimer:
    """Return the sweep of the running loop."""
    loop = asyncio.get_running_loop()
    sweep = _timers.get(loop)
    if sweep is None:
        sweep = _timers[loop] = DisconnectWatchTimer(loop)
        register_loop()
    return sweep

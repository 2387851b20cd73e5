"""Detection of idle relays, with one timer for all relays of a timeout."""

from __future__ import annotations

import asyncio
from typing import Protocol

CHECKS_PER_TIMEOUT = 4  # checks in one timeout: an idle relay is detected at most a quarter late
_NEW = (0, -1)  # the first check comes before a whole quarter has passed


class IdleRelay(Protocol):
    """A relay that IdleRelays checks."""

    def moved(self) -> int:
        """Return the number of bytes relayed so far."""
        ...

    def idle(self, seconds: float) -> None:
        """End the relay after `seconds` without traffic."""
        ...


class IdleRelays:
    """The relays of one timeout, each with its byte count and the number of checks that found it unchanged."""

    __slots__ = ("_loop", "_relays", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._relays: dict[IdleRelay, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, relay: IdleRelay) -> None:
        """Check a relay from now on."""
        self._relays[relay] = _NEW
        if self._timer is None:
            self._begin(asyncio.get_running_loop())
        elif self._loop is not asyncio.get_running_loop():
            self._timer.cancel()
            self._relays = {relay: _NEW}
            self._begin(asyncio.get_running_loop())

    def discard(self, relay: IdleRelay) -> None:
        """Remove a relay that has ended. The timer continues, and ends when it finds no relay."""
        self._relays.pop(relay, None)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer = loop.call_later(self._seconds / CHECKS_PER_TIMEOUT, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        idle: list[IdleRelay] = []
        for relay, (moved, looks) in self._relays.items():
            now = relay.moved()
            looks = looks + 1 if now == moved else 0
            self._relays[relay] = (now, looks)
            if looks >= CHECKS_PER_TIMEOUT:
                idle.append(relay)
        for relay in idle:
            del self._relays[relay]
            relay.idle(self._seconds)
        if self._relays:
            self._begin(loop)

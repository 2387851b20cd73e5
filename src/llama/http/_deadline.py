"""A timer that is cheap to move: for what must make progress, again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_NEVER = float("inf")


class Deadline:
    """Calls back once when a started deadline passes. Moving it on costs no timer: that one looks again when due."""

    __slots__ = ("_at", "_callback", "_loop", "_timer")

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._at = _NEVER

    def start(self, seconds: float | None) -> None:
        """Begin, or begin again; None does nothing."""
        if seconds is None:
            return
        self._at = at = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._due)

    def stop(self) -> None:
        """The deadline was met."""
        self._at = _NEVER

    def close(self) -> None:
        """Stop for good, and free the timer."""
        self._at = _NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        if self._at == _NEVER:
            return
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._due)
            return
        self._at = _NEVER
        self._callback()

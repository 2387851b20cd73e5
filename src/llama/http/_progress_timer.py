"""A deadline that is cheap to restart, for operations that must make progress repeatedly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_NEVER = float("inf")


class ProgressTimer:
    """Calls back once when the deadline passes. Postponing it creates no timer: the old one re-arms when it fires."""

    __slots__ = ("_at", "_callback", "_loop", "_timer")

    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._at = _NEVER

    def start(self, seconds: float | None) -> None:
        """Start or restart the deadline; None does nothing."""
        if seconds is None:
            return
        self._at = at = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._on_timer)

    def stop(self) -> None:
        """Stop: the operation finished in time. The timer stays, for the next start."""
        self._at = _NEVER

    def close(self) -> None:
        """Stop and cancel the timer."""
        self._at = _NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._at == _NEVER:
            return
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._on_timer)
            return
        self._at = _NEVER
        self._callback()

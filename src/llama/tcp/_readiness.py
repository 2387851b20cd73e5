"""Waiting until a descriptor is readable or writable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Readiness:
    """One direction of one descriptor on one loop: a coroutine that waits for it, or a callback.

    It only wakes; whoever was woken does the call. That is why a cancelled wait loses nothing.
    """

    __slots__ = ("_add", "_callback", "_fd", "_registered", "_remove", "_skip", "_timer", "_waiter")

    def __init__(
        self, fd: int, add: Callable[[int, Callable[[], object]], object], remove: Callable[[int], object]
    ) -> None:
        self._fd = fd
        self._add = add
        self._remove = remove
        self._registered = False
        self._skip = False
        self._waiter: asyncio.Future[None] | None = None
        self._callback: Callable[[], object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Return when the descriptor may be ready; raises what `fail` was given."""
        if not self._registered:
            self._add(self._fd, self._ready)
            self._registered = True
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _ready(self) -> None:
        # The coroutine that was woken makes its call in the loop's next round, so the selector reports the
        # descriptor once more in between: that report is skipped. With nobody waiting, reports end.
        if self._skip:
            self._skip = False
        elif self._waiter is None or self._waiter.done():
            self._deregister()
        else:
            self._skip = True
            self._waiter.set_result(None)

    async def pause(self, delay: float) -> None:
        """Return after `delay` seconds; raises what `fail` was given."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(delay, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def on(self, callback: Callable[[], object] | None) -> None:
        """Call back at each report, or no longer."""
        self._callback = callback
        self._cancel_timer()
        if callback is None:
            self._deregister()
        else:
            self._add(self._fd, callback)
            self._registered = True

    def hold(self, delay: float) -> None:
        """Keep the callback's reports back for `delay` seconds."""
        self._deregister()
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(delay, self._resume)

    def _resume(self) -> None:
        self._timer = None
        callback = self._callback
        if callback is not None:
            self.on(callback)
            callback()

    def fail(self, error: Exception) -> None:
        """Leave the loop, wake who waits with an error, and call the callback a last time to find it."""
        if self._callback is not None:
            asyncio.get_running_loop().call_soon(self._callback)
        self.on(None)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _deregister(self) -> None:
        if self._registered:
            self._registered = self._skip = False
            self._remove(self._fd)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

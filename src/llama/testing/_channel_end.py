"""The waiters on one side of a channel in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ChannelEnd:
    """A waiting coroutine or a callback; the callback is called again only after a short read or write.

    It only wakes; the woken code makes the call. `ready` returns whether the side is ready, `delay` the seconds to
    hold a wake-up back.
    """

    __slots__ = ("_armed", "_callback", "_delay", "_handle", "_ready", "_waiter")

    def __init__(self, ready: Callable[[], bool], delay: Callable[[], float]) -> None:
        self._armed = False
        self._ready = ready
        self._delay = delay
        self._waiter: asyncio.Future[None] | None = None
        self._callback: Callable[[], object] | None = None
        self._handle: asyncio.Handle | None = None

    async def wait(self) -> None:
        """Wait until the side may be ready; raises the error passed to `fail`."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(self._delay(), self.check) if self._ready() else None
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def on(self, callback: Callable[[], object] | None) -> None:
        """Set or remove the callback."""
        self._callback = callback
        self._armed = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.check()

    def fell_short(self) -> None:
        """Note a short read or write: re-arm the callback."""
        self._armed = True
        self.check()

    def check(self) -> None:
        """Wake the waiters if the side is ready."""
        if not self._ready():
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._callback is not None and self._armed and self._handle is None:
            loop, delay = asyncio.get_running_loop(), self._delay()
            self._handle = loop.call_later(delay, self._report) if delay > 0 else loop.call_soon(self._report)

    def _report(self) -> None:
        self._handle = None
        if self._callback is not None and self._ready():
            self._armed = False
            self._callback()

    def fail(self, error: Exception) -> None:
        """Wake the coroutine with an error, and call the callback a last time so that it finds the error."""
        callback, self._callback = self._callback, None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if callback is not None:
            asyncio.get_running_loop().call_soon(callback)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

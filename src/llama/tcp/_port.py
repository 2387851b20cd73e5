"""One descriptor's readiness: what is known of it, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llama.tcp._poller import LoopPoller, Sender, poller


class Port:
    """The readiness of a non-blocking descriptor, which stays its owner's; `leave` goes before closing that.

    `readable` and `writable` say what may be tried: whoever finds that a call would block sets them to False,
    and they come back when the descriptor is reported. It only wakes; whoever was woken does the call. That
    is why a cancelled wait loses nothing.
    """

    __slots__ = (
        "_on_break",
        "_on_read",
        "_on_write",
        "_poller",
        "_read_timer",
        "_read_waiter",
        "_write_timer",
        "_write_waiter",
        "both",
        "broken",
        "fd",
        "hangup",
        "loop",
        "readable",
        "registered",
        "writable",
    )

    def __init__(
        self, fd: int, *, readable: bool = True, writable: bool = True, by: LoopPoller | None = None
    ) -> None:
        self.fd = fd
        self.readable = readable
        self.writable = writable
        self.hangup = False  # the peer ended or the connection broke, which one more read will tell
        self.registered = self.both = self.broken = False
        self._poller = by or poller()
        self.loop = self._poller.loop
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._on_break: Callable[[], object] | None = None
        self._on_read: Callable[[], object] | None = None
        self._on_write: Callable[[], object] | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def unreadable(self) -> None:
        """A read would block: wait for the next report."""
        self.readable = self.hangup = False
        if not self.registered and self._on_read is not None:
            self._poller.watch_read(self)

    def unwritable(self) -> None:
        """A write would block: wait for the next report."""
        self.writable = False
        if self._on_write is not None:
            self._poller.watch_write(self)

    def send_soon(self, sender: Sender) -> None:
        """Have it send when this round of the loop is over."""
        self._poller.send_soon(sender)

    # called by the poller

    def now_readable(self) -> None:
        """There is something to read, the end and an error among it."""
        self.readable = True
        callback = self._on_read
        if callback is not None:
            if self._read_timer is None:
                callback()
        elif (waiter := self._read_waiter) is not None and not waiter.done():
            waiter.set_result(None)

    def now_writable(self) -> None:
        """There is room to write, or an error to find."""
        self.writable = True
        if self._on_write is not None:
            if self._write_timer is None:
                self._on_write()
        elif self._write_waiter is not None:
            _wake(self._write_waiter)

    def now_broken(self) -> None:
        """The connection broke."""
        self.broken = True
        waiter = self._read_waiter
        if self._on_break is not None and self._on_read is None and (waiter is None or waiter.done()):
            self._on_break()

    # for coroutines

    async def wait_readable(self) -> None:
        """Return when a read may be tried; raises what `fail` was given."""
        while not self.readable:
            self._poller.watch_read(self)
            self._read_waiter = self.loop.create_future()
            try:
                await self._read_waiter
            finally:
                self._read_waiter = None

    def when_readable(self) -> asyncio.Future[None]:
        """What ends when a read may be tried, for who found that it may not; raises what `fail` was given."""
        if not self.registered:
            self._poller.watch_read(self)
        self._read_waiter = waiter = self.loop.create_future()
        return waiter

    async def wait_writable(self) -> None:
        """Return when a write may be tried; raises what `fail` was given."""
        while not self.writable:
            self._poller.watch_write(self)
            self._write_waiter = self.loop.create_future()
            try:
                await self._write_waiter
            finally:
                self._write_waiter = None

    async def pause_read(self, delay: float) -> None:
        """Return after `delay` seconds; raises what `fail` was given."""
        self._read_waiter = waiter = self.loop.create_future()
        try:
            await _pause(waiter, delay)
        finally:
            self._read_waiter = None

    async def pause_write(self, delay: float) -> None:
        """Return after `delay` seconds; raises what `fail` was given."""
        self._write_waiter = waiter = self.loop.create_future()
        try:
            await _pause(waiter, delay)
        finally:
            self._write_waiter = None

    # for callbacks

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        """Call back when a read may be tried, at once in the next round if it may be now."""
        self._on_read = callback
        if self._read_timer is not None:
            self._read_timer = _cancel(self._read_timer)
        if callback is not None:
            if not self.registered:
                self._poller.watch_read(self)  # which reports what is there already
            elif self.readable:
                self.loop.call_soon(self._again_readable)
        elif self.broken and self._on_break is not None:
            self.loop.call_soon(self.now_broken)

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        """Call back when a write may be tried, at once in the next round if it may be now."""
        self._on_write = callback
        if self._write_timer is not None:
            self._write_timer = _cancel(self._write_timer)
        if callback is not None:
            if self.writable:
                self.loop.call_soon(self._again_writable)
            else:
                self._poller.watch_write(self)

    def on_broken(self, callback: Callable[[], object] | None) -> None:
        """Call back when the connection breaks while nobody reads, where the poller tells that."""
        self._on_break = callback
        if callback is not None and not self.registered:
            self._poller.watch_break(self)

    def hold_readable(self, delay: float) -> None:
        """Keep the callback back for `delay` seconds."""
        self._read_timer = _cancel(self._read_timer)
        self._read_timer = self.loop.call_later(delay, self._again_readable)

    def hold_writable(self, delay: float) -> None:
        """Keep the callback back for `delay` seconds."""
        self._write_timer = _cancel(self._write_timer)
        self._write_timer = self.loop.call_later(delay, self._again_writable)

    def _again_readable(self) -> None:
        self._read_timer = None
        if self._on_read is not None:
            self._on_read()

    def _again_writable(self) -> None:
        self._write_timer = None
        if self._on_write is not None:
            self._on_write()

    def fail(self, error: Callable[[], Exception]) -> None:
        """Wake who waits with an error, and call callbacks a last time to find it."""
        self.readable = self.writable = True
        for waiter in (self._read_waiter, self._write_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_exception(error())
        for callback in (self._on_read, self._on_write):
            if callback is not None:
                self.loop.call_soon(callback)
        self.on_readable(None)
        self.on_writable(None)
        self._on_break = None

    def leave(self, *, closing: bool = True) -> None:
        """Leave the poller, before the descriptor is closed; `closing=False` when it stays open."""
        self._poller.forget(self, closing=closing)


async def _pause(waiter: asyncio.Future[None], delay: float) -> None:
    timer = asyncio.get_running_loop().call_later(delay, _wake, waiter)
    try:
        # Readiness that is reported meanwhile wakes early, and the caller looks at the clock again.
        await waiter
    finally:
        timer.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None

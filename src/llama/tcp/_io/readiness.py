"""Ports: the readiness of one descriptor, and the coroutine or callback that waits for it.

Situations to handle: a report arrives before anything waits, a waiter is cancelled, a callback closes the port, a
meter delays a read that is ready, and the socket is closed while a coroutine waits. Failures to rule out:
lost bytes, a lost wake-up, a waiter that never returns, or a callback after it was removed.

- A port only wakes; the code that was woken makes the system call. Between the wake-up and the call nothing has
  been taken from the socket, so a wait that is cancelled at any moment loses nothing. asyncio's `sock_recv` and
  its transports read on behalf of the waiter instead, and must keep or drop bytes that arrive after a
  cancellation.
- `readable` and `writable` mean "a call may succeed". They start True, because most calls succeed at once and
  asking the kernel first would cost a system call; EAGAIN clears them (`clear_readable`, `clear_writable`) and a report
  sets them again. Edge-triggered reports make this necessary: clearing a flag without EAGAIN (or a short read)
  would wait for an edge that has already passed.
- A callback that is set while the flag is True runs in the next loop iteration, never inside the setter, so
  that setting a callback is not reentrant.
- A read waiter and a read callback exclude each other; streams enforce this with Busy.
- A meter delays a callback by a timer (`delay_readable`, `delay_writable`); reports do not call it meanwhile.
- `fail` wakes every waiter with an error and calls every callback a last time; `unregister` unregisters the
  descriptor. Both come before the close, since a closed number may belong to another socket already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llama.tcp._io.reactor import LoopReactor, Sender, current_reactor


class Port:
    """The readiness of a non-blocking descriptor, which the caller owns; call `unregister` before closing it.

    `readable` and `writable` say whether a call may succeed: the caller clears them when a call would block, and
    the poller's next report sets them. A port only wakes the waiter, which then makes the call itself, so that a
    cancelled wait loses nothing.
    """

    __slots__ = (
        "_on_break",
        "_on_read",
        "_on_write",
        "_reactor",
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
        self, fd: int, *, readable: bool = True, writable: bool = True, by: LoopReactor | None = None
    ) -> None:
        self.fd = fd
        self.readable = readable
        self.writable = writable
        self.hangup = (
            False  # the peer closed or the connection broke: one more read returns the end or the error
        )
        self.registered = self.both = self.broken = False
        self._reactor = by or current_reactor()
        self.loop = self._reactor.loop
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._on_break: Callable[[], object] | None = None
        self._on_read: Callable[[], object] | None = None
        self._on_write: Callable[[], object] | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def clear_readable(self) -> None:
        """A read would block: wait for the next report."""
        self.readable = self.hangup = False
        if not self.registered and self._on_read is not None:
            self._reactor.watch_read(self)

    def clear_writable(self) -> None:
        """A write would block: wait for the next report."""
        self.writable = False
        if self._on_write is not None:
            self._reactor.watch_write(self)

    def send_soon(self, sender: Sender) -> None:
        """Call `sender.flush_buffered()` at the end of this loop iteration."""
        self._reactor.send_soon(sender)

    # called by the poller

    def handle_readable(self) -> None:
        """A read will not block: there are bytes, the end of the stream, or an error."""
        self.readable = True
        callback = self._on_read
        if callback is not None:
            if self._read_timer is None:
                callback()
        elif (waiter := self._read_waiter) is not None and not waiter.done():
            waiter.set_result(None)

    def handle_writable(self) -> None:
        """A write will not block: there is room, or an error."""
        self.writable = True
        if self._on_write is not None:
            if self._write_timer is None:
                self._on_write()
        elif self._write_waiter is not None:
            _wake(self._write_waiter)

    def handle_hangup(self) -> None:
        """The connection broke."""
        self.broken = True
        waiter = self._read_waiter
        if self._on_break is not None and self._on_read is None and (waiter is None or waiter.done()):
            self._on_break()

    # for coroutines

    async def wait_readable(self) -> None:
        """Return when a read may succeed; raises the error passed to `fail`."""
        while not self.readable:
            self._reactor.watch_read(self)
            self._read_waiter = self.loop.create_future()
            try:
                await self._read_waiter
            finally:
                self._read_waiter = None

    def when_readable(self) -> asyncio.Future[None]:
        """Return a future for the next readiness, after a read would block; it raises the error passed to `fail`."""
        if not self.registered:
            self._reactor.watch_read(self)
        self._read_waiter = waiter = self.loop.create_future()
        return waiter

    async def wait_writable(self) -> None:
        """Return when a write may succeed; raises the error passed to `fail`."""
        while not self.writable:
            self._reactor.watch_write(self)
            self._write_waiter = self.loop.create_future()
            try:
                await self._write_waiter
            finally:
                self._write_waiter = None

    async def pause_read(self, delay: float) -> None:
        """Return after `delay` seconds or on a report; raises the error passed to `fail`."""
        self._read_waiter = waiter = self.loop.create_future()
        try:
            await _pause(waiter, delay)
        finally:
            self._read_waiter = None

    async def pause_write(self, delay: float) -> None:
        """Return after `delay` seconds or on a report; raises the error passed to `fail`."""
        self._write_waiter = waiter = self.loop.create_future()
        try:
            await _pause(waiter, delay)
        finally:
            self._write_waiter = None

    # for callbacks

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        """Call back when a read may succeed, in the next iteration if it may now."""
        self._on_read = callback
        if self._read_timer is not None:
            self._read_timer = _cancel(self._read_timer)
        if callback is not None:
            if not self.registered:
                self._reactor.watch_read(self)  # registering reports readiness that exists already
            elif self.readable:
                self.loop.call_soon(self._resume_readable)
        elif self.broken and self._on_break is not None:
            self.loop.call_soon(self.handle_hangup)

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        """Call back when a write may succeed, in the next iteration if it may now."""
        self._on_write = callback
        if self._write_timer is not None:
            self._write_timer = _cancel(self._write_timer)
        if callback is not None:
            if self.writable:
                self.loop.call_soon(self._resume_writable)
            else:
                self._reactor.watch_write(self)

    def on_broken(self, callback: Callable[[], object] | None) -> None:
        """Call back when the connection breaks while no read is pending, if the poller can detect that."""
        self._on_break = callback
        if callback is not None and not self.registered:
            self._reactor.watch_break(self)

    def delay_readable(self, delay: float) -> None:
        """Delay the callback by `delay` seconds."""
        self._read_timer = _cancel(self._read_timer)
        self._read_timer = self.loop.call_later(delay, self._resume_readable)

    def delay_writable(self, delay: float) -> None:
        """Delay the callback by `delay` seconds."""
        self._write_timer = _cancel(self._write_timer)
        self._write_timer = self.loop.call_later(delay, self._resume_writable)

    def _resume_readable(self) -> None:
        self._read_timer = None
        if self._on_read is not None:
            self._on_read()

    def _resume_writable(self) -> None:
        self._write_timer = None
        if self._on_write is not None:
            self._on_write()

    def fail(self, error: Callable[[], Exception]) -> None:
        """Wake waiters with an error, and call the callbacks a last time, whose next call raises it."""
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

    def unregister(self, *, closing: bool = True) -> None:
        """Unregister the descriptor, before it is closed; pass `closing=False` if it stays open."""
        self._reactor.unregister(self, closing=closing)


async def _pause(waiter: asyncio.Future[None], delay: float) -> None:
    timer = asyncio.get_running_loop().call_later(delay, _wake, waiter)
    try:
        # A readiness report wakes the waiter early; the caller checks the delay again.
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

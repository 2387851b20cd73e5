"""Timeout of connections without traffic."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.meter import Meter
from llama._core.service import Middleware
from llama._core.stack import factory
from llama._core.stream import Handler, Stream
from llama.layers._shared_timeout import Bound
from llama.tcp._middleware.base import expire, middleware, off


class Watch(Meter):
    """Ends a call after a time without traffic: one timer, which checks for traffic only when it fires."""

    __slots__ = ("_call", "_loop", "_moved_at", "_seconds", "_timer")

    def __init__(self, seconds: float, call: Bound) -> None:
        self._seconds = seconds
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._timer = self._loop.call_at(self._moved_at + seconds, self._look)

    def received(self, count: int) -> float:
        self._moved_at = self._loop.time()
        return 0.0

    def sent(self, count: int) -> float:
        self._moved_at = self._loop.time()
        return 0.0

    def _look(self) -> None:
        end = self._moved_at + self._seconds
        if end > self._loop.time():
            self._timer = self._loop.call_at(end, self._look)
        else:
            self._call.expire()

    def stop(self) -> None:
        """Cancel the timer."""
        self._timer.cancel()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class IdleTimeout:
    """Ends a connection after `seconds` without traffic."""

    inner: Handler
    seconds: float

    __takes__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"tcp.idle_timeout({self.seconds:g})"

    async def __call__(self, stream: Stream, /) -> None:
        call = Bound()
        watch = Watch(self.seconds, call)
        stream.attach(watch)
        try:
            await self.inner(stream)
        except asyncio.CancelledError:
            if not call.is_over():
                raise
            await expire(stream, f"no traffic for {self.seconds:g} s")
        finally:
            stream.detach(watch)
            watch.stop()
            call.leave()


@factory("tcp.idle_timeout")
def idle_timeout(seconds: float | None) -> Middleware[Stream, None]:
    """End a connection after `seconds` without traffic in either direction; None disables the timeout.

    It cancels the handler, closes the connection, and raises TimeoutError. It costs one timer for each
    connection, and bytes can still be spliced.

        stack(tcp.idle_timeout(300), tcp.forward("127.0.0.1:8080"))
    """
    if seconds is None:
        return off("tcp.idle_timeout(None)")
    if seconds <= 0:
        raise ConfigError(f"tcp.idle_timeout({seconds:g}): expected more than 0 seconds, or None")
    bound = seconds
    return middleware(f"tcp.idle_timeout({bound:g})", lambda inner: IdleTimeout(inner, bound))

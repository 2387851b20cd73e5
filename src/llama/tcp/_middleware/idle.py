"""Timeout of connections without traffic."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.meter import Meter
from llama._core.service import Middleware
from llama._core.stack import layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.layers._shared_timeout import DeadlineScope
from llama.tcp._middleware.base import connection_middleware, expire, noop_layer


class IdleTimer(Meter):
    """Ends a call after a time without traffic: one timer, which checks for traffic only when it fires."""

    __slots__ = ("_call", "_loop", "_moved_at", "_seconds", "_timer")

    def __init__(self, seconds: float, call: DeadlineScope) -> None:
        self._seconds = seconds
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._timer = self._loop.call_at(self._moved_at + seconds, self._check)

    def on_received(self, count: int) -> float:
        self._moved_at = self._loop.time()
        return 0.0

    def on_sent(self, count: int) -> float:
        self._moved_at = self._loop.time()
        return 0.0

    def _check(self) -> None:
        end = self._moved_at + self._seconds
        if end > self._loop.time():
            self._timer = self._loop.call_at(end, self._check)
        else:
            self._call.expire()

    def stop(self) -> None:
        """Cancel the timer."""
        self._timer.cancel()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class IdleTimeout:
    """Ends a connection after `seconds` without traffic."""

    inner: ConnectionHandler
    seconds: float

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"tcp.idle_timeout({self.seconds:g})"

    async def __call__(self, stream: Stream, /) -> None:
        call = DeadlineScope()
        watch = IdleTimer(self.seconds, call)
        stream.attach(watch)
        try:
            await self.inner(stream)
        except asyncio.CancelledError:
            if not call.consume_cancellation():
                raise
            await expire(stream, f"no traffic for {self.seconds:g} s")
        finally:
            stream.detach(watch)
            watch.stop()
            call.exit()


@layer_factory("tcp.idle_timeout")
def idle_timeout(seconds: float | None) -> Middleware[Stream, None]:
    """End a connection after `seconds` without traffic in either direction; None disables the timeout.

    It cancels the handler, closes the connection, and raises TimeoutError. It costs one timer for each
    connection, and bytes can still be spliced.

        stack(tcp.idle_timeout(300), tcp.forward("127.0.0.1:8080"))
    """
    if seconds is None:
        return noop_layer("tcp.idle_timeout(None)")
    if seconds <= 0:
        raise ConfigError(f"tcp.idle_timeout({seconds:g}): expected more than 0 seconds, or None")
    bound = seconds
    return connection_middleware(f"tcp.idle_timeout({bound:g})", lambda inner: IdleTimeout(inner, bound))

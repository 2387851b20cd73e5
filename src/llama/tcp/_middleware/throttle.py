"""Bandwidth limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.meter import Meter
from llama._core.service import Middleware
from llama._core.stack import factory
from llama._core.stream import CHUNK, Handler, Stream
from llama.tcp._middleware.base import middleware, off

SMALLEST = 1024
GRAIN = 0.125  # seconds; the bytes of one read or write, and of a burst after a pause, at the rate


class Bucket:
    """The bandwidth limit of one direction, kept as the time at which the bytes so far are within the rate."""

    __slots__ = ("_paid_at", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._paid_at = 0.0

    def take(self, count: int) -> float:
        """Record bytes that moved; return the seconds until more may."""
        now = asyncio.get_running_loop().time()
        self._paid_at = max(self._paid_at, now - GRAIN) + count / self._rate
        return max(0.0, self._paid_at - now)


class Brake(Meter):
    """A meter that limits each direction to its rate."""

    __slots__ = ("_read", "_write", "chunk")

    def __init__(self, read: float | None, write: float | None) -> None:
        slowest = min(rate for rate in (read, write) if rate is not None)
        self.chunk = min(CHUNK, max(SMALLEST, int(slowest * GRAIN)))
        self._read = None if read is None else Bucket(read)
        self._write = None if write is None else Bucket(write)

    def received(self, count: int) -> float:
        return 0.0 if self._read is None else self._read.take(count)

    def sent(self, count: int) -> float:
        return 0.0 if self._write is None else self._write.take(count)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Throttle:
    """Limits the bandwidth of connections."""

    inner: Handler
    read: float | None
    write: float | None
    shared: Brake | None

    __takes__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return _spelling(self.read, self.write, shared=self.shared is not None)

    async def __call__(self, stream: Stream, /) -> None:
        brake = self.shared or Brake(self.read, self.write)
        stream.attach(brake)
        try:
            await self.inner(stream)
        finally:
            stream.detach(brake)


@factory("tcp.throttle")
def throttle(
    *, read: float | None = None, write: float | None = None, shared: bool = False
) -> Middleware[Stream, None]:
    """Limit bandwidth, in bytes per second: `read` from the peer, `write` to it; None disables a limit.

    The limit applies to each connection or, with `shared`, to all connections together. Nothing is buffered:
    backpressure slows the sender. At least 1024 bytes move at a time.

        stack(tcp.throttle(write=1_000_000), tcp.forward("127.0.0.1:8080"))
    """
    for rate in (read, write):
        if rate is not None and rate <= 0:
            raise ConfigError(f"tcp.throttle({rate:g}): expected more than 0 bytes a second, or None")
    name = _spelling(read, write, shared=shared)
    if read is None and write is None:
        return off(name)

    def build(inner: Handler) -> Handler:
        return Throttle(inner, read, write, Brake(read, write) if shared else None)

    return middleware(name, build)


def _spelling(read: float | None, write: float | None, *, shared: bool) -> str:
    rates = [f"{name}={rate:g}" for name, rate in (("read", read), ("write", write)) if rate is not None]
    return f"tcp.throttle({', '.join([*rates, *(['shared=True'] if shared else [])])})"

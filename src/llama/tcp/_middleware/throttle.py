"""Bandwidth limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.meter import Meter
from llama._core.service import Middleware
from llama._core.stack import layer_factory
from llama._core.stream import DEFAULT_READ_SIZE, ConnectionHandler, Stream
from llama.tcp._middleware.base import connection_middleware, noop_layer

MIN_CHUNK = 1024
MIN_INTERVAL = 0.125  # seconds; the bytes of one read or write, and of a burst after a pause, at the rate


class TokenBucket:
    """The bandwidth limit of one direction, kept as the time at which the bytes so far are within the rate."""

    __slots__ = ("_paid_at", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._paid_at = 0.0

    def charge(self, count: int) -> float:
        """Record bytes that moved; return the seconds until more may."""
        now = asyncio.get_running_loop().time()
        self._paid_at = max(self._paid_at, now - MIN_INTERVAL) + count / self._rate
        return max(0.0, self._paid_at - now)


class ThrottleMeter(Meter):
    """A meter that limits each direction to its rate."""

    __slots__ = ("_read", "_write", "chunk")

    def __init__(self, read: float | None, write: float | None) -> None:
        slowest = min(rate for rate in (read, write) if rate is not None)
        self.chunk = min(DEFAULT_READ_SIZE, max(MIN_CHUNK, int(slowest * MIN_INTERVAL)))
        self._read = None if read is None else TokenBucket(read)
        self._write = None if write is None else TokenBucket(write)

    def on_received(self, count: int) -> float:
        return 0.0 if self._read is None else self._read.charge(count)

    def on_sent(self, count: int) -> float:
        return 0.0 if self._write is None else self._write.charge(count)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Throttle:
    """Limits the bandwidth of connections."""

    inner: ConnectionHandler
    download: float | None
    upload: float | None
    shared: ThrottleMeter | None

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return _spec(self.download, self.upload, shared=self.shared is not None)

    async def __call__(self, stream: Stream, /) -> None:
        brake = self.shared or ThrottleMeter(self.download, self.upload)
        stream.attach(brake)
        try:
            await self.inner(stream)
        finally:
            stream.detach(brake)


@layer_factory("tcp.throttle")
def throttle(
    *, download: float | None = None, upload: float | None = None, shared: bool = False
) -> Middleware[Stream, None]:
    """Limit bandwidth, in bytes per second: `download` from the peer, `upload` to it; None disables a limit.

    The limit applies to each connection or, with `shared`, to all connections together. Nothing is buffered:
    backpressure slows the sender. At least 1024 bytes move at a time.

        stack(tcp.throttle(upload=1_000_000), tcp.forward("127.0.0.1:8080"))
    """
    for rate in (download, upload):
        if rate is not None and rate <= 0:
            raise ConfigError(f"tcp.throttle({rate:g}): expected more than 0 bytes a second, or None")
    name = _spec(download, upload, shared=shared)
    if download is None and upload is None:
        return noop_layer(name)

    def build(inner: ConnectionHandler) -> ConnectionHandler:
        return Throttle(inner, download, upload, ThrottleMeter(download, upload) if shared else None)

    return connection_middleware(name, build)


def _spec(read: float | None, write: float | None, *, shared: bool) -> str:
    rates = [f"{name}={rate:g}" for name, rate in (("download", read), ("upload", write)) if rate is not None]
    return f"tcp.throttle({', '.join([*rates, *(['shared=True'] if shared else [])])})"

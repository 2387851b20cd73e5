"""Counters of connections and their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.meter import Meter
from llama._core.service import Middleware
from llama._core.stack import factory
from llama._core.stream import Handler, Stream
from llama.tcp._middleware.base import middleware


class Traffic(Meter):
    """The counters of `tcp.count`."""

    __slots__ = ("bytes_received", "bytes_sent", "connections", "live")

    def __init__(self) -> None:
        self.connections = 0
        """The number of connections so far."""
        self.live = 0
        """The number of open connections."""
        self.bytes_received = 0
        """Bytes received from peers."""
        self.bytes_sent = 0
        """Bytes sent to peers."""

    def received(self, count: int) -> float:
        self.bytes_received += count
        return 0.0

    def sent(self, count: int) -> float:
        self.bytes_sent += count
        return 0.0

    def __repr__(self) -> str:
        return (
            f"Traffic(connections={self.connections}, live={self.live}, "
            f"bytes_received={self.bytes_received}, bytes_sent={self.bytes_sent})"
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Count:
    """Counts into a Traffic."""

    inner: Handler
    traffic: Traffic

    __takes__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return "tcp.count()"

    async def __call__(self, stream: Stream, /) -> None:
        traffic = self.traffic
        traffic.connections += 1
        traffic.live += 1
        stream.attach(traffic)
        try:
            await self.inner(stream)
        finally:
            traffic.live -= 1
            stream.detach(traffic)


@factory("tcp.count")
def count(into: Traffic) -> Middleware[Stream, None]:
    """Count connections and their bytes, in both directions, in a Traffic; several stacks can share one.

        traffic = tcp.Traffic()
        stack(tcp.count(traffic), tcp.forward("127.0.0.1:8080"))

    The position in the stack matters: outside `tls.server` it counts encrypted bytes. Each worker counts separately.
    """
    return middleware("tcp.count()", lambda inner: Count(inner, into))

"""Counters of connections and their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.meter import Meter
from llama._core.service import Middleware
from llama._core.stack import layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.tcp._middleware.base import connection_middleware


class TrafficCounter(Meter):
    """The counters of `tcp.count`."""

    __slots__ = ("active", "bytes_received", "bytes_sent", "connections")

    def __init__(self) -> None:
        self.connections = 0
        """The number of connections so far."""
        self.active = 0
        """The number of open connections."""
        self.bytes_received = 0
        """Bytes received from peers."""
        self.bytes_sent = 0
        """Bytes sent to peers."""

    def on_received(self, count: int) -> float:
        self.bytes_received += count
        return 0.0

    def on_sent(self, count: int) -> float:
        self.bytes_sent += count
        return 0.0

    def __repr__(self) -> str:
        return (
            f"TrafficCounter(connections={self.connections}, active={self.active}, "
            f"bytes_received={self.bytes_received}, bytes_sent={self.bytes_sent})"
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Count:
    """Counts into a Traffic."""

    inner: ConnectionHandler
    traffic: TrafficCounter

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return "tcp.count()"

    async def __call__(self, stream: Stream, /) -> None:
        traffic = self.traffic
        traffic.connections += 1
        traffic.active += 1
        stream.attach(traffic)
        try:
            await self.inner(stream)
        finally:
            traffic.active -= 1
            stream.detach(traffic)


@layer_factory("tcp.count")
def count(into: TrafficCounter) -> Middleware[Stream, None]:
    """Count connections and their bytes, in both directions, in a TrafficCounter; several stacks can share one.

        traffic = tcp.TrafficCounter()
        stack(tcp.count(traffic), tcp.forward("127.0.0.1:8080"))

    The position in the stack matters: outside `tls.server` it counts encrypted bytes. Each worker counts separately.
    """
    return connection_middleware("tcp.count()", lambda inner: Count(inner, into))

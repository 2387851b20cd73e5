"""Bounds the connections that one service serves at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError
from llama._service import Middleware
from llama._stack import factory
from llama._stream import Handler, Stream
from llama.layers._slots import Slots
from llama.tcp._middleware import middleware, off


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TcpLimit:
    """Serves so many connections at once; the listener accepts no more."""

    inner: Handler
    slots: Slots

    __takes__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"tcp.limit({self.slots.count})"

    async def ready(self) -> None:
        """Return when another connection may be accepted."""
        if not self.slots.free:
            await self.slots.opening()

    async def __call__(self, stream: Stream, /) -> None:
        if not self.slots.take_nowait():
            await self.slots.take()
        try:
            await self.inner(stream)
        finally:
            self.slots.release()


@factory("tcp.limit")
def limit(connections: int | None) -> Middleware[Stream, None]:
    """Serve so many connections at once; None is no limit.

    At the limit the listener stops accepting, and the kernel's queue holds who comes next. Where it cannot
    see this layer, behind a plain function, connections are accepted and wait in turn. Each worker counts
    for itself.

        stack(tcp.limit(10_000), tcp.forward("127.0.0.1:8080"))
    """
    if connections is None:
        return off("tcp.limit(None)")
    if connections < 1:
        raise ConfigError(f"tcp.limit({connections}): expected at least 1 connection, or None for no limit")
    count = connections
    return middleware(f"tcp.limit({count})", lambda inner: TcpLimit(inner, Slots(count)))

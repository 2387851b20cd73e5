"""Maximum number of concurrent connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import factory
from llama._core.stream import Handler, Stream
from llama.layers._fair_semaphore import Slots
from llama.tcp._middleware.base import middleware, off


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TcpLimit:
    """Serves a limited number of concurrent connections; at the limit the listener stops accepting."""

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
    """Serve at most `connections` concurrent connections; None disables the limit.

    At the limit the listener stops accepting, and further connections wait in the kernel's queue. If a plain
    function hides this layer from the listener, connections are accepted and then wait in order. Each worker
    counts separately.

        stack(tcp.limit(10_000), tcp.forward("127.0.0.1:8080"))
    """
    if connections is None:
        return off("tcp.limit(None)")
    if connections < 1:
        raise ConfigError(f"tcp.limit({connections}): expected at least 1 connection, or None for no limit")
    count = connections
    return middleware(f"tcp.limit({count})", lambda inner: TcpLimit(inner, Slots(count)))

"""Maximum number of concurrent connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.layers._fair_semaphore import FairSemaphore
from llama.tcp._middleware.base import connection_middleware, noop_layer


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ConnectionLimit:
    """Serves a limited number of concurrent connections; at the limit the listener stops accepting."""

    inner: ConnectionHandler
    slots: FairSemaphore

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"tcp.connection_limit({self.slots.count})"

    async def ready(self) -> None:
        """Return when another connection may be accepted."""
        if not self.slots.free:
            await self.slots.next_free()

    async def __call__(self, stream: Stream, /) -> None:
        if not self.slots.acquire_nowait():
            await self.slots.acquire()
        try:
            await self.inner(stream)
        finally:
            self.slots.release()


@layer_factory("tcp.connection_limit")
def connection_limit(connections: int | None) -> Middleware[Stream, None]:
    """Serve at most `connections` concurrent connections; None disables the limit.

    At the limit the listener stops accepting, and further connections wait in the kernel's queue. If a plain
    function hides this layer from the listener, connections are accepted and then wait in order. Each worker
    counts separately.

        stack(tcp.connection_limit(10_000), tcp.forward("127.0.0.1:8080"))
    """
    if connections is None:
        return noop_layer("tcp.connection_limit(None)")
    if connections < 1:
        raise ConfigError(
            f"tcp.connection_limit({connections}): expected at least 1 connection, or None for no limit"
        )
    count = connections
    return connection_middleware(
        f"tcp.connection_limit({count})", lambda inner: ConnectionLimit(inner, FairSemaphore(count))
    )

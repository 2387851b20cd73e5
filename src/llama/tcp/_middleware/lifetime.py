"""Maximum lifetime of connections."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.layers._shared_timeout import SharedTimeout
from llama.tcp._middleware.base import connection_middleware, expire, noop_layer


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Lifetime:
    """Ends a connection after `seconds`, even during traffic."""

    inner: ConnectionHandler
    seconds: float
    deadlines: SharedTimeout

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"tcp.lifetime({self.seconds:g})"

    async def __call__(self, stream: Stream, /) -> None:
        call = self.deadlines.enter()
        try:
            await self.inner(stream)
        except asyncio.CancelledError:
            if not call.consume_cancellation():
                raise
            await expire(stream, f"the connection's lifetime of {self.seconds:g} s has ended")
        finally:
            self.deadlines.exit(call)


@layer_factory("tcp.lifetime")
def lifetime(seconds: float | None) -> Middleware[Stream, None]:
    """End every connection after `seconds`, even during traffic; None disables the limit.

    It cancels the handler, closes the connection, and raises TimeoutError.

        stack(tcp.lifetime(3600), tcp.forward("127.0.0.1:8080"))
    """
    if seconds is None:
        return noop_layer("tcp.lifetime(None)")
    if seconds <= 0:
        raise ConfigError(f"tcp.lifetime({seconds:g}): expected more than 0 seconds, or None")
    bound = seconds
    return connection_middleware(
        f"tcp.lifetime({bound:g})", lambda inner: Lifetime(inner, bound, SharedTimeout(bound))
    )

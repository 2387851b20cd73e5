"""A service that closes each connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.stack import layer_factory
from llama._core.stream import ConnectionHandler, Stream


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Close:
    """Closes every connection."""

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return "close()"

    async def __call__(self, stream: Stream, /) -> None:
        await stream.aclose()


@layer_factory("close", "handler")
def close() -> ConnectionHandler:
    """Close each connection without sending anything.

    tls.route({"a.example": tcp.forward("127.0.0.1:8443")}, default=close())
    """
    return Close()

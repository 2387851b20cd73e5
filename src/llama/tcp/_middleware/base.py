"""Helpers for TCP middleware: layers that wrap a connection handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from llama._core.service import Middleware
from llama._core.stack import named_layer
from llama._core.stream import ConnectionHandler, Stream


def connection_middleware(
    name: str, build: Callable[[ConnectionHandler], ConnectionHandler]
) -> Middleware[Stream, None]:
    """Return a named layer that takes streams and passes on streams."""
    return named_layer(name, build, input_type=Stream, inner_type=Stream)


def noop_layer(name: str) -> Middleware[Stream, None]:
    """Return a disabled layer: it returns its inner service, and costs nothing."""
    return connection_middleware(name, lambda inner: inner)


async def expire(stream: Stream, reason: str) -> NoReturn:
    """End a connection after a timeout, with its protocol's orderly close if the peer accepts it, and raise."""
    await stream.aclose()
    raise TimeoutError(reason)

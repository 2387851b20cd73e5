"""Helpers for TCP middleware: layers that wrap a connection handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from llama._core.service import Middleware
from llama._core.stack import named_layer
from llama._core.stream import Handler, Stream


def middleware(name: str, build: Callable[[Handler], Handler]) -> Middleware[Stream, None]:
    """Return a named layer that takes streams and passes on streams."""
    return named_layer(name, build, takes=Stream, gives=Stream)


def off(name: str) -> Middleware[Stream, None]:
    """Return a disabled layer: it returns its inner service, and costs nothing."""
    return middleware(name, lambda inner: inner)


async def expire(stream: Stream, reason: str) -> NoReturn:
    """End a connection after a timeout, with its protocol's orderly close if the peer accepts it, and raise."""
    await stream.aclose()
    raise TimeoutError(reason)

"""What TCP middleware is made by: layers from handler to handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from llama._service import Middleware
from llama._stack import named_layer
from llama._stream import Handler, Stream


def middleware(name: str, build: Callable[[Handler], Handler]) -> Middleware[Stream, None]:
    """A layer that takes streams, gives streams and shows its name."""
    return named_layer(name, build, takes=Stream, gives=Stream)


def off(name: str) -> Middleware[Stream, None]:
    """What a factory returns when it has nothing to do: switched off, a layer costs nothing."""
    return middleware(name, lambda inner: inner)


async def expire(stream: Stream, reason: str) -> NoReturn:
    """End a connection whose time is over: by its protocol's own end where that gets through, and raise."""
    await stream.aclose()
    raise TimeoutError(reason)

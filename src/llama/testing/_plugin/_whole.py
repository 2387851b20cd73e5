"""Layers that see to it that a request is recorded whole where a layer answers it without reading it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

from llama._errors import LlamaError
from llama._stack import layer
from llama.http import Body, Exchange, Request, Response

MOST = 16 << 20
PATIENCE = 1.0


@dataclass(slots=True)
class _Way:
    """How far a request went."""

    upstream: bool = False


_way: ContextVar[_Way | None] = ContextVar("llama.testing.way", default=None)


@layer
async def read_whole(request: Request, inner: Exchange) -> Response:
    """Read the rest of a request that went no further than here: the test may ask what it was."""
    way = _Way()
    token = _way.set(way)
    try:
        response = await inner(request)
    finally:
        _way.reset(token)
    if not way.upstream and response.upgrade is None and request.body.data is None:
        await _read(request.body)
    return response


async def _read(body: Body) -> None:
    size = 0
    try:
        async with asyncio.timeout(PATIENCE):  # who waits for the answer first gets it first
            while size < MOST and (data := await body.chunk()):
                size += len(data)
    except (LlamaError, OSError):
        pass


@layer
async def goes_on(request: Request, inner: Exchange) -> Response:
    """A request goes to the upstream, by whose leave it is read."""
    way = _way.get()
    if way is not None:
        way.upstream = True
    return await inner(request)

"""Layers that record a request completely even if another layer answers it without reading its body."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

from llama._core.errors import LlamaError
from llama._core.stack import layer
from llama.http import Body, Request, RequestHandler, Response

MAX_DRAIN = 16 << 20
PATIENCE = 1.0


@dataclass(slots=True)
class _Way:
    """Whether a request reached the upstream."""

    upstream: bool = False


_way: ContextVar[_Way | None] = ContextVar("llama.testing.way", default=None)


@layer
async def drain_before(request: Request, inner: RequestHandler) -> Response:
    """Read the rest of a request that did not reach the upstream, so that the test finds it recorded."""
    way = _Way()
    token = _way.set(way)
    try:
        response = await inner(request)
    finally:
        _way.reset(token)
    if not way.upstream and response.upgrade is None and request.body.buffered is None:
        await _read(request.body)
    return response


async def _read(body: Body) -> None:
    size = 0
    try:
        async with asyncio.timeout(
            PATIENCE
        ):  # a client that waits for the response before it sends the body gets it first
            while size < MAX_DRAIN and (data := await body.read_chunk()):
                size += len(data)
    except (LlamaError, OSError):
        pass


@layer
async def passes_on(request: Request, inner: RequestHandler) -> Response:
    """Note that a request reached the upstream, which then reads it."""
    way = _way.get()
    if way is not None:
        way.upstream = True
    return await inner(request)

"""A limit on the size of request bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, TooLargeError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.body import TransformedBody
from llama.http._messages.message import Request, RequestHandler, Response


class _Counter:
    """Counts the bytes of a body and fails above the limit."""

    __slots__ = ("_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._left = self._limit = limit

    def update(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(self._limit)
        return data

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        return b""


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the request body exceeds the limit of {limit} bytes")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class BodyLimit:
    """Rejects request bodies above a limit, before or while they are read."""

    inner: RequestHandler
    limit: int

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.body_limit({self.limit})"

    async def __call__(self, request: Request, /) -> Response:
        body = request.body
        if body.length is None:
            request.replace_body(TransformedBody(body, _Counter(self.limit)))
        elif body.length > self.limit:
            raise _too_large(self.limit)
        return await self.inner(request)


@layer_factory("http.body_limit")
def body_limit(limit: int) -> Middleware[Request, Response]:
    """Reject requests with a body of more than `limit` bytes with 413.

    A body with a known length is rejected before it is read, any other one when it exceeds the limit.

        stack(http.server(), http.body_limit(10_000_000), application)
    """
    if limit < 0:
        raise ConfigError(f"http.body_limit({limit}): expected 0 or more bytes")

    def build(inner: RequestHandler) -> RequestHandler:
        return BodyLimit(inner, limit)

    return named_layer(f"http.body_limit({limit})", build, input_type=Request, inner_type=Request)

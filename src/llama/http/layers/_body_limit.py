"""Bounds the bodies of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError, TooLarge
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._body import TransformedBody
from llama.http._message import Exchange, Request, Response


class _Counter:
    """Lets so many bytes pass."""

    __slots__ = ("_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._left = self._limit = limit

    def feed(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(self._limit)
        return data

    def more(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return b""


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body of the request is over the limit of {limit} bytes")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class BodyLimit:
    """Refuses what is too large as soon as it is known."""

    inner: Exchange
    limit: int

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.body_limit({self.limit})"

    async def __call__(self, request: Request, /) -> Response:
        body = request.body
        if body.length is None:
            request.replace_body(TransformedBody(body, _Counter(self.limit)))
        elif body.length > self.limit:
            raise _too_large(self.limit)
        return await self.inner(request)


@factory("http.body_limit")
def body_limit(limit: int) -> Middleware[Request, Response]:
    """Refuse requests whose body is over so many bytes, by 413: at once where it says its length, else when it shows.

    stack(http.server(), http.body_limit(10_000_000), application)
    """
    if limit < 0:
        raise ConfigError(f"http.body_limit({limit}): expected 0 or more bytes")

    def build(inner: Exchange) -> Exchange:
        return BodyLimit(inner, limit)

    return named_layer(f"http.body_limit({limit})", build, takes=Request, gives=Request)

"""Takes content codings off the bodies of requests, within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError, TooLarge
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._body import TransformedBody
from llama.http._message import Exchange, Request, Response

_MAX_CODINGS = 3
_DIGESTS = ("content-md5", "content-digest", "digest")


class _Bound:
    """Lets so many bytes pass."""

    __slots__ = ("_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._left = self._limit = limit

    def feed(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge(f"the decompressed body of the request is over the limit of {self._limit} bytes")
        return data

    def more(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Decompress:
    """Takes content codings off the bodies of requests."""

    inner: Exchange
    limit: int

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.decompress({self.limit})"

    async def __call__(self, request: Request, /) -> Response:
        codings = request.headers.tokens("content-encoding")
        if len(codings) > _MAX_CODINGS:
            raise TooLarge(f"{len(codings)} content codings are over the limit of {_MAX_CODINGS}", status=415)
        if codings and request.body.length != 0:
            decoded = request.body.decoded()
            if decoded is not request.body:
                bounded = TransformedBody(decoded, _Bound(self.limit))
                request.body = bounded
                request.headers.discard("content-encoding", *_DIGESTS)
        return await self.inner(request)


@factory("http.decompress")
def decompress(limit: int = 10_000_000) -> Middleware[Request, Response]:
    """Take content codings off the bodies of requests, as they stream by; Content-Encoding and digests go.

    They are gzip and deflate, br with the extra brotli, and zstd, from Python 3.14 on or with the extra zstd.
    A body that becomes more than `limit` bytes is refused by 413 when it shows, never held in memory before; a coding
    that is not known by 415, and a body that is not what it says by 400.

        stack(http.server(), http.decompress(50_000_000), application)
    """
    if limit < 0:
        raise ConfigError(f"http.decompress({limit}): expected 0 or more bytes")

    def build(inner: Exchange) -> Exchange:
        return Decompress(inner, limit)

    return named_layer(f"http.decompress({limit})", build, takes=Request, gives=Request)

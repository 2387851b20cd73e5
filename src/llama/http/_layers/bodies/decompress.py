"""Decompresses request bodies, up to a size limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, TooLargeError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.body import TransformedBody
from llama.http._messages.message import Request, RequestHandler, Response

_MAX_CODINGS = 3
_DIGESTS = ("content-md5", "content-digest", "digest")


class _OutputLimit:
    """Counts the decompressed bytes and fails above the limit."""

    __slots__ = ("_left", "_limit")

    def __init__(self, limit: int) -> None:
        self._left = self._limit = limit

    def update(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise TooLargeError(f"the decompressed request body exceeds the limit of {self._limit} bytes")
        return data

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Decompress:
    """Decompresses request bodies."""

    inner: RequestHandler
    limit: int

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.decompress({self.limit})"

    async def __call__(self, request: Request, /) -> Response:
        codings = request.headers.tokens("content-encoding")
        if len(codings) > _MAX_CODINGS:
            raise TooLargeError(
                f"expected at most {_MAX_CODINGS} content codings, got {len(codings)}", status=415
            )
        if codings and request.body.length != 0:
            decoded = request.body.decoded()
            if decoded is not request.body:
                bounded = TransformedBody(decoded, _OutputLimit(self.limit))
                request.body = bounded
                request.headers.discard("content-encoding", *_DIGESTS)
        return await self.inner(request)


@layer_factory("http.decompress")
def decompress(limit: int = 10_000_000) -> Middleware[Request, Response]:
    """Decompress request bodies while they stream, and remove Content-Encoding and digest fields.

    The codings are gzip and deflate, br with the extra brotli, and zstd (built in since Python 3.14, else with the
    extra zstd). A body that decompresses to more than `limit` bytes is rejected with 413 when it exceeds the limit; it
    is never held in memory. An unknown coding is rejected with 415, and malformed data with 400.

        stack(http.server(), http.decompress(50_000_000), application)
    """
    if limit < 0:
        raise ConfigError(f"http.decompress({limit}): expected 0 or more bytes")

    def build(inner: RequestHandler) -> RequestHandler:
        return Decompress(inner, limit)

    return named_layer(f"http.decompress({limit})", build, input_type=Request, inner_type=Request)

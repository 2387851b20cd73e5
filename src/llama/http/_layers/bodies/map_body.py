"""Transforms bodies while they stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.service import Middleware
from llama._core.stack import factory, named_layer
from llama.http._codings.transform import known_codings
from llama.http._layers.headers.base import Side, check_side
from llama.http._messages.headers import Headers
from llama.http._messages.message import Exchange, Message, Request, Response

_VALIDATORS = ("etag", "content-md5", "content-digest", "repr-digest", "digest", "accept-ranges")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class MapBody:
    """Transforms bodies while they stream."""

    inner: Exchange
    function: Callable[[bytes], bytes]
    on: Side

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.map_body()" if self.on == "response" else f"http.map_body(on={self.on!r})"

    async def __call__(self, request: Request, /) -> Response:
        if self.on == "request":
            if request.body.length != 0 and not request.protocol:
                self._change(request)
            return await self.inner(request)
        # A part of a body would be transformed as if it were the whole.
        request.headers.discard("range", "if-range")
        _ask_for_known(request.headers)
        response = await self.inner(request)
        if self._has_body(request, response):
            try:
                self._change(response)
            except BaseException:
                await response.aclose()
                raise
        return response

    @staticmethod
    def _has_body(request: Request, response: Response) -> bool:
        if response.status in (204, 205, 206, 304) or response.upgrade is not None:
            return False
        if request.method == "HEAD":  # these describe the body before the change
            response.headers.discard("content-length", "content-encoding", *_VALIDATORS)
            return False
        return response.body.length != 0

    def _change(self, message: Message) -> None:
        message.body = message.body.map(self.function)
        message.headers.discard(*_VALIDATORS)


def _ask_for_known(headers: Headers) -> None:
    """Keep only codings in Accept-Encoding that this layer can decode."""
    asked = headers.get_all("accept-encoding")
    known = {*known_codings(), "x-gzip", "identity"}
    kept = [
        each.strip() for each in ",".join(asked).split(",") if each.partition(";")[0].strip().lower() in known
    ]
    if asked:
        headers["Accept-Encoding"] = ", ".join(kept) or "identity"


@factory("http.map_body")
def map_body(function: Callable[[bytes], bytes], *, on: Side = "response") -> Middleware[Request, Response]:
    """Apply a function to every chunk of response bodies, or with `on="request"` of request bodies.

    Chunk boundaries are arbitrary; to replace text of more than one byte, use `Body.replace`. Bodies are decoded first,
    and Accept-Encoding is reduced to the codings that can be decoded; a response with any other coding raises
    ProtocolError. Content-Length, ETag and digests are removed, as they describe the original bytes. Range is removed
    from requests, so that the function sees whole bodies.

        stack(http.server(), http.map_body(bytes.upper), application)
    """
    check_side(on, "http.map_body()")

    def build(inner: Exchange) -> Exchange:
        return MapBody(inner, function, on)

    name = "http.map_body()" if on == "response" else f"http.map_body(on={on!r})"
    return named_layer(name, build, takes=Request, gives=Request)

"""Transforms bodies while they stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._codings.accept import accepts_codings
from llama.http._codings.transform import known_codings
from llama.http._layers.headers.base import Side, check_side
from llama.http._messages.body import content_codings
from llama.http._messages.headers import Headers
from llama.http._messages.message import Message, Request, RequestHandler, Response, note_request

_VALIDATORS = ("etag", "content-md5", "content-digest", "repr-digest", "digest", "accept-ranges")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class MapBody:
    """Transforms bodies while they stream."""

    inner: RequestHandler
    function: Callable[[bytes], bytes]
    on: Side

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.map_body()" if self.on == "response" else f"http.map_body(on={self.on!r})"

    async def __call__(self, request: Request, /) -> Response:
        if self.on == "request":
            if request.body.length != 0 and not request.upgrade_protocol:
                self._change(request)
            return await self.inner(request)
        # A part of a body would be transformed as if it were the whole.
        request.headers.discard("range", "if-range")
        accepted = request.headers.get_all("accept-encoding")
        _limit_accept_encoding(request.headers)
        response = note_request(request, await self.inner(request), accepted)
        if self._has_body(request, response, accepted):
            self._change(response)
        return response

    @staticmethod
    def _has_body(request: Request, response: Response, accepted: Sequence[str]) -> bool:
        if response.status in (204, 205, 206, 304) or response.upgrade is not None:
            return False
        if request.method == "HEAD":  # the length would be that of the body before the change
            response.headers.discard("content-length", *_VALIDATORS)
            if not accepts_codings(accepted, content_codings(response.headers)):
                response.headers.discard("content-encoding")
            return False
        return response.body.length != 0

    def _change(self, message: Message) -> None:
        body = message.body
        message.body = body.map(self.function)
        if message.body is not body:
            message.headers.discard(*_VALIDATORS)


def _limit_accept_encoding(headers: Headers) -> None:
    """Keep only codings in Accept-Encoding that this layer can decode."""
    asked = headers.get_all("accept-encoding")
    known = {*known_codings(), "x-gzip", "identity"}
    kept = [
        each.strip() for each in ",".join(asked).split(",") if each.partition(";")[0].strip().lower() in known
    ]
    if asked:
        headers["Accept-Encoding"] = ", ".join(kept) or "identity"


@layer_factory("http.map_body")
def map_body(function: Callable[[bytes], bytes], *, on: Side = "response") -> Middleware[Request, Response]:
    """Apply a function to every chunk of response bodies, or with `on="request"` of request bodies.

    Chunk boundaries are arbitrary; to replace text of more than one byte, use `Body.replace`. An encoded body is
    decoded, changed and encoded again with the same codings, or sent without them if the client does not accept them.
    Accept-Encoding is reduced to the codings that can be decoded. A body whose coding is unknown or wrong passes
    unchanged, with a warning. Content-Length, ETag and digests are removed, as they describe the original bytes. Range
    is removed from requests, so that the function sees whole bodies.

        stack(http.server(), http.map_body(bytes.upper), application)
    """
    check_side(on, "http.map_body()")

    def build(inner: RequestHandler) -> RequestHandler:
        return MapBody(inner, function, on)

    name = "http.map_body()" if on == "response" else f"http.map_body(on={on!r})"
    return named_layer(name, build, input_type=Request, inner_type=Request)

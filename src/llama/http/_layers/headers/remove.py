"""Removes header fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._layers.headers.base import Side, check_field, check_side
from llama.http._messages.message import Request, RequestHandler, Response


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class RemoveHeader:
    """Removes every field with one of the given names."""

    inner: RequestHandler
    names: tuple[str, ...]
    on: Side

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.remove_header({', '.join(map(repr, self.names))})"

    async def __call__(self, request: Request, /) -> Response:
        if self.on == "request":
            request.headers.discard(*self.names)
            return await self.inner(request)
        response = await self.inner(request)
        response.headers.discard(*self.names)
        return response


@layer_factory("http.remove_header")
def remove_header(*names: str, on: Side = "response") -> Middleware[Request, Response]:
    """Remove every field with one of these names from responses, or with `on="request"` from requests.

    stack(http.server(), http.remove_header("Server", "X-Powered-By"), application)
    """
    check_side(on, "http.remove_header()")
    for name in names:
        check_field(name)

    def build(inner: RequestHandler) -> RequestHandler:
        return RemoveHeader(inner, names, on)

    return named_layer(
        f"http.remove_header({', '.join(map(repr, names))})", build, input_type=Request, inner_type=Request
    )

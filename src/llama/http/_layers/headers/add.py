"""Adds a field and keeps the existing ones of its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._layers.headers.base import Side, Value, check_field, check_side, resolve_value
from llama.http._messages.message import Message, Request, RequestHandler, Response


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class AddHeader:
    """Adds a field and keeps the existing ones of its name."""

    inner: RequestHandler
    name: str
    value: Value
    on: Side

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.add_header({self.name!r})"

    async def __call__(self, request: Request, /) -> Response:
        value = resolve_value(self.value, request)
        if self.on == "request":
            self._change(request, value)
            return await self.inner(request)
        response = await self.inner(request)
        self._change(response, value)
        return response

    def _change(self, message: Message, value: str | None) -> None:
        if value is not None:
            message.headers.add(self.name, value)


@layer_factory("http.add_header")
def add_header(name: str, value: Value, *, on: Side = "response") -> Middleware[Request, Response]:
    """Add a field to every response, or with `on="request"` to every request; fields of the same name are kept.

    `value` is the text, or a function of the request that returns the text, or None for no change.

        stack(http.server(), http.add_header("Link", "</style.css>; rel=preload"), application)
    """
    check_side(on, "http.add_header()")
    check_field(name, value)

    def build(inner: RequestHandler) -> RequestHandler:
        return AddHeader(inner, name, value, on)

    return named_layer(f"http.add_header({name!r})", build, input_type=Request, inner_type=Request)

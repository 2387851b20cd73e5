"""Sets a field and removes the existing ones of its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._layers.headers.base import Side, Value, check_field, check_side, resolve_value
from llama.http._messages.headers import checked_name, checked_value
from llama.http._messages.message import Message, Request, RequestHandler, Response


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class SetHeader:
    """Sets a field and removes the existing ones of its name."""

    inner: RequestHandler
    name: str
    value: Value
    on: Side
    key: str
    line: str
    """The field line; empty if the value is a function."""

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.set_header({self.name!r})"

    async def __call__(self, request: Request, /) -> Response:
        if self.line:
            line = self.line
        else:
            value = resolve_value(self.value, request)
            line = "" if value is None else _line(self.name, value)
        if self.on == "request":
            self._change(request, line)
            return await self.inner(request)
        response = await self.inner(request)
        self._change(response, line)
        return response

    def _change(self, message: Message, line: str) -> None:
        if line:
            message.headers._put(self.key, line)


def _line(name: str, value: str) -> str:
    return f"{checked_name(name)}: {checked_value(value)}"


@layer_factory("http.set_header")
def set_header(name: str, value: Value, *, on: Side = "response") -> Middleware[Request, Response]:
    """Set a field of every response, or with `on="request"` of every request, replacing all of the same name.

    `value` is the text, or a function of the request that returns the text, or None for no change.

        stack(http.server(), http.set_header("Strict-Transport-Security", "max-age=63072000"), application)
    """
    check_side(on, "http.set_header()")
    check_field(name, value)

    line = _line(name, value) if isinstance(value, str) else ""

    def build(inner: RequestHandler) -> RequestHandler:
        return SetHeader(inner, name, value, on, name.lower(), line)

    return named_layer(f"http.set_header({name!r})", build, input_type=Request, inner_type=Request)

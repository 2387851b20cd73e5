"""Rejects requests without a required field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import RefusedError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._layers.headers.base import check_field
from llama.http._messages.message import Request, RequestHandler, Response


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class RequireHeader:
    """Passes on requests that have the required field."""

    inner: RequestHandler
    name: str
    value: str | Callable[[str], bool] | None
    status: int

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.require_header({self.name!r})"

    async def __call__(self, request: Request, /) -> Response:
        if not any(map(self._fits, request.headers.get_all(self.name))):
            raise RefusedError(f"the request has no acceptable {self.name} field", status=self.status)
        return await self.inner(request)

    def _fits(self, value: str) -> bool:
        wanted = self.value
        return wanted is None or (value == wanted if isinstance(wanted, str) else wanted(value))


@layer_factory("http.require_header")
def require_header(
    name: str, value: str | Callable[[str], bool] | None = None, *, status: int = 400
) -> Middleware[Request, Response]:
    """Reject requests without the field `name`, with `status`.

    `value` is the required value, or a function of a value that returns whether it is acceptable; None accepts any
    value. One acceptable field suffices.

        stack(http.server(), http.require_header("X-Requested-With", "XMLHttpRequest"), application)
    """
    check_field(name)

    def build(inner: RequestHandler) -> RequestHandler:
        return RequireHeader(inner, name, value, status)

    return named_layer(f"http.require_header({name!r})", build, input_type=Request, inner_type=Request)

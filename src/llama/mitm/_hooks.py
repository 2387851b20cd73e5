"""Layers of whoever looks into connections, put around what reaches the upstream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from llama._core.hook_errors import ESCAPING_ERRORS, contain_error
from llama._core.service import Middleware
from llama._core.stack import check_accepts, display_name, stack
from llama.http import Request, RequestHandler, Response


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Checked:
    """A hook whose answers are looked at, so that an error names the hook that it comes from."""

    inner: RequestHandler
    hook: str

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"hook {self.hook}"

    async def __call__(self, request: Request, /) -> Response:
        try:
            response = await self.inner(request)
        except ESCAPING_ERRORS as error:
            if (failure := contain_error(error, self.hook)) is None:
                raise
            raise failure  # noqa: B904  # its cause is set
        if not isinstance(response, Response):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
            raise TypeError(f"the hook {self.hook} returned {response!r}, not a Response")
        return response


def hooked(
    layers: Sequence[Middleware[Request, Response]], leaf: RequestHandler, where: str
) -> RequestHandler:
    """An exchange with hooks around it, the first outermost."""
    build = cast("Callable[..., RequestHandler]", stack)
    exchange = leaf
    for each in reversed(layers):
        exchange = Checked(build(each, exchange), display_name(each))
        check_accepts(exchange.inner, Request, where)
    return exchange

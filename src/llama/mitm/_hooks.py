"""Layers of whoever looks into connections, put around what reaches the upstream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from llama._core.hook_errors import Stray, contained
from llama._core.service import Middleware
from llama._core.stack import check_takes, name_of, stack
from llama.http import Exchange, Request, Response


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Checked:
    """A hook whose answers are looked at, so that an error names the hook that it comes from."""

    inner: Exchange
    hook: str

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"hook {self.hook}"

    async def __call__(self, request: Request, /) -> Response:
        try:
            response = await self.inner(request)
        except Stray as error:
            if (failure := contained(error, self.hook)) is None:
                raise
            raise failure  # noqa: B904  # its cause is set
        if not isinstance(response, Response):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
            raise TypeError(f"the hook {self.hook} returned {response!r}, not a Response")
        return response


def hooked(layers: Sequence[Middleware[Request, Response]], leaf: Exchange, where: str) -> Exchange:
    """An exchange with hooks around it, the first outermost."""
    build = cast("Callable[..., Exchange]", stack)
    exchange = leaf
    for each in reversed(layers):
        exchange = Checked(build(each, exchange), name_of(each))
        check_takes(exchange.inner, Request, where)
    return exchange

"""A time limit for exchanges, fixed or by a function of the request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.body import Body
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, RequestHandler, Response


class BoundedBody(Body):
    """A body with a deadline for its end, in event loop time."""

    __slots__ = ("_bound", "_source", "_text")

    def __init__(self, source: Body, bound: float, text: str) -> None:
        super().__init__(source.length)
        self._source = source
        self._bound = bound
        self._text = text

    @property
    def trailers(self) -> Headers | None:
        return self._source.trailers

    async def read_chunk(self) -> bytes:
        if part := self._source.read_chunk_nowait():
            return part
        bound = asyncio.timeout_at(self._bound)
        try:
            async with bound:
                part = await self._source.read_chunk()
        except TimeoutError:
            if not bound.expired():
                raise
            raise TimeoutError(self._text) from None
        self.ended = not part
        return part

    async def wait_for_data(self) -> None:
        await self._source.wait_for_data()

    async def aclose(self) -> None:
        self.ended = True
        await self._source.aclose()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Timeout:
    """Cancels exchanges that exceed a time limit."""

    inner: RequestHandler
    seconds: float | Callable[[Request], float | None]
    per_exchange: bool

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return _spec(self.seconds, self.per_exchange)

    async def __call__(self, request: Request, /) -> Response:
        seconds = self.seconds(request) if callable(self.seconds) else self.seconds
        if seconds is None:
            return await self.inner(request)
        text = f"{request.method} request exceeded the timeout of {seconds:g} s"
        bound = asyncio.timeout(seconds)
        try:
            async with bound:
                response = await self.inner(request)
        except TimeoutError:
            if not bound.expired():
                raise
            raise TimeoutError(text) from None
        deadline, body = bound.when(), response.body
        if self.per_exchange and deadline is not None and body.buffered is None and response.upgrade is None:
            response.replace_body(BoundedBody(body, deadline, text))
        return response


def _spec(seconds: float | Callable[[Request], float | None], whole: bool) -> str:
    shown = "function" if callable(seconds) else f"{seconds:g}"
    return f"http.timeout({shown}{', whole=True' if whole else ''})"


@layer_factory("http.timeout")
def timeout(
    seconds: float | Callable[[Request], float | None], *, per_exchange: bool = False
) -> Middleware[Request, Response]:
    """Cancel exchanges that take longer than `seconds`; the client gets 504.

    Like `timeout`, but `seconds` can also be a function of the request, which returns the seconds, or None for no
    limit. By default the timeout ends with the response head; with `per_exchange` it includes the response body. If
    the body is late, the client's connection is aborted, because the head has been sent. Upgrades such as WebSocket
    are not limited.

        stack(http.server(), http.timeout(lambda request: 60 if request.method == "POST" else 5), application)
    """
    if not callable(seconds) and seconds <= 0:
        raise ConfigError(f"http.timeout({seconds:g}): expected more than 0 seconds")

    def build(inner: RequestHandler) -> RequestHandler:
        return Timeout(inner, seconds, per_exchange)

    return named_layer(_spec(seconds, per_exchange), build, input_type=Request, inner_type=Request)

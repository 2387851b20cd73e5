"""Logs the name, duration and outcome of each exchange."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.message import Request, RequestHandler, Response

log = logging.getLogger("llama.trace")
Name = str | Callable[[Request], str]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Trace:
    """Logs how long each exchange took and how it ended."""

    inner: RequestHandler
    name: Name

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return _spec(self.name)

    def __call__(self, request: Request, /) -> Awaitable[Response]:
        return self._traced(request) if log.isEnabledFor(logging.INFO) else self.inner(request)

    async def _traced(self, request: Request) -> Response:
        clock = asyncio.get_running_loop().time
        began = clock()
        name = self.name(request) if callable(self.name) else self.name
        fields: dict[str, object] = {
            "trace.name": name,
            "http.request.method": request.method,
            "server.address": request.authority,
        }
        if request.client is not None:
            fields["client.address"] = request.client.host
        try:
            response = await self.inner(request)
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            self._log(
                fields, clock() - began, "cancelled" if cancelled else "error", None if cancelled else error
            )
            raise
        fields["http.response.status_code"] = response.status
        response.on_close(lambda: self._log(fields, clock() - began, str(response.status), None))
        return response

    @staticmethod
    def _log(fields: dict[str, object], seconds: float, how: str, error: BaseException | None) -> None:
        extra = {**fields, "duration": seconds, "outcome": how if how in ("cancelled", "error") else "ok"}
        if error is None:
            log.info("%s: %s after %.6f s", fields["trace.name"], how, seconds, extra=extra)
            return
        extra["error.type"] = type(error).__qualname__
        text = str(error) or type(error).__qualname__
        log.info("%s: %s after %.6f s: %s", fields["trace.name"], how, seconds, text, extra=extra)


def _spec(name: Name) -> str:
    return f"http.trace({'function' if callable(name) else repr(name)})"


@layer_factory("http.trace")
def trace(name: Name) -> Middleware[Request, Response]:
    """Log one line for each exchange to `llama.trace`: its name, its status, and the time until its body ended.

    Like `trace`, but `name` can also be a function of the request, and the log record has the additional attributes
    `http.request.method`, `http.response.status_code`, `server.address` and `client.address`. If names are used as
    metric labels, do not include paths or other values that clients choose.

        stack(http.server(), http.trace(lambda request: f"site {request.method}"), application)
    """

    def build(inner: RequestHandler) -> RequestHandler:
        return Trace(inner, name)

    return named_layer(_spec(name), build, input_type=Request, inner_type=Request)

"""Logs one line for each call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic

from llama._core.service import RequestT, ResponseT, Service
from llama._core.stack import layer_factory
from llama._core.target import Bridge, Target
from llama.layers._peer_key import peer_host
from llama.layers._same_type_layer import same_type_layer
from llama.layers._when_closed import when_closed

log = logging.getLogger("llama.trace")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Trace(Generic[RequestT, ResponseT]):
    """Logs the duration and the outcome of each call."""

    inner: Service[RequestT, ResponseT]
    name: str

    def __repr__(self) -> str:
        return f"trace({self.name!r})"

    def __call__(self, input: RequestT, /) -> Awaitable[ResponseT]:
        return self._traced(input) if log.isEnabledFor(logging.INFO) else self.inner(input)

    async def _traced(self, input: RequestT) -> ResponseT:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            output = await self.inner(input)
        except asyncio.CancelledError:
            self._log(input, clock() - began, "cancelled", None)
            raise
        except BaseException as error:
            self._log(input, clock() - began, "error", error)
            raise
        when_closed(output, lambda: self._log(input, clock() - began, "ok", None))
        return output

    def _log(self, input: RequestT, seconds: float, outcome: str, error: BaseException | None) -> None:
        extra: dict[str, object] = {"trace.name": self.name, "duration": seconds, "outcome": outcome}
        extra |= _endpoints(input)
        if error is None:
            log.info("%s: %s after %.6f s", self.name, outcome, seconds, extra=extra)
        else:
            extra["error.type"] = type(error).__qualname__
            text = str(error) or type(error).__qualname__
            log.info("%s: %s after %.6f s: %s", self.name, outcome, seconds, text, extra=extra)


def _endpoints(input: object) -> dict[str, object]:
    """Return the client and the server address, under OpenTelemetry's attribute names."""
    places: dict[str, object] = {}
    if (client := peer_host(input)) is not None:
        places["client.address"] = client
    target = input.target if isinstance(input, Bridge) else input
    if isinstance(target, Target):
        places |= {"server.address": target.host, "server.port": target.port}
    return places


@layer_factory("trace")
def trace(name: str) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]:
    """Log one line for each call to `llama.trace`: its name, its duration and its outcome.

    The record has `trace.name`, `duration` in seconds, `outcome` (ok, error or cancelled), and if known
    `error.type`, `client.address`, `server.address`, `server.port`. A call of a request handler ends with the body
    of its response. If the logger is not enabled for INFO, a call has no further cost.

        stack(trace("echo"), echo)
    """

    def build(inner: Service[RequestT, ResponseT]) -> Service[RequestT, ResponseT]:
        return Trace(inner, name)

    return same_type_layer(f"trace({name!r})", build)

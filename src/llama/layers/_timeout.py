"""Limits the duration of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from llama._core.errors import ConfigError
from llama._core.service import RequestT, ResponseT, Service
from llama._core.stack import layer_factory
from llama.layers._same_type_layer import noop_layer, same_type_layer
from llama.layers._shared_timeout import SharedTimeout


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Timeout(Generic[RequestT, ResponseT]):
    """Cancels a call that takes too long."""

    inner: Service[RequestT, ResponseT]
    seconds: float
    deadlines: SharedTimeout

    def __repr__(self) -> str:
        return f"timeout({self.seconds:g})"

    async def __call__(self, input: RequestT, /) -> ResponseT:
        call = self.deadlines.enter()
        try:
            return await self.inner(input)
        except asyncio.CancelledError:
            if not call.consume_cancellation():
                raise
            raise TimeoutError(f"it took longer than {self.seconds:g} s") from None
        finally:
            self.deadlines.exit(call)


@layer_factory("timeout")
def timeout(seconds: float | None) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]:
    """Cancel a call after `seconds` and raise TimeoutError; None means no limit.

    A call ends when the service returns: for a connection handler at the end of the connection, for a request
    handler with the head of the response, for a connector with the connected stream.

        stack(timeout(5), echo)
    """
    if seconds is None:
        return noop_layer("timeout")
    if seconds <= 0:
        raise ConfigError(f"timeout({seconds:g}): expected more than 0 seconds, or None for no limit")
    bound = seconds

    def build(inner: Service[RequestT, ResponseT]) -> Service[RequestT, ResponseT]:
        return Timeout(inner, bound, SharedTimeout(bound))

    return same_type_layer(f"timeout({bound:g})", build)

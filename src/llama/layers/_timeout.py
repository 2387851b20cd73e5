"""Limits the duration of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from llama._core.errors import ConfigError
from llama._core.service import I, O, Service
from llama._core.stack import factory
from llama.layers._same_type_layer import middleware, off
from llama.layers._shared_timeout import Deadlines


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Timeout(Generic[I, O]):
    """Cancels a call that takes too long."""

    inner: Service[I, O]
    seconds: float
    deadlines: Deadlines

    def __repr__(self) -> str:
        return f"timeout({self.seconds:g})"

    async def __call__(self, input: I, /) -> O:
        call = self.deadlines.begin()
        try:
            return await self.inner(input)
        except asyncio.CancelledError:
            if not call.is_over():
                raise
            raise TimeoutError(f"it took longer than {self.seconds:g} s") from None
        finally:
            self.deadlines.end(call)


@factory("timeout")
def timeout(seconds: float | None) -> Callable[[Service[I, O]], Service[I, O]]:
    """Cancel a call after `seconds` and raise TimeoutError; None means no limit.

    A call ends when the service returns: for a connection handler at the end of the connection, for a request
    handler with the head of the response, for a connector with the connected stream.

        stack(timeout(5), echo)
    """
    if seconds is None:
        return off("timeout")
    if seconds <= 0:
        raise ConfigError(f"timeout({seconds:g}): expected more than 0 seconds, or None for no limit")
    bound = seconds

    def build(inner: Service[I, O]) -> Service[I, O]:
        return Timeout(inner, bound, Deadlines(bound))

    return middleware(f"timeout({bound:g})", build)

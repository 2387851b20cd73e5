"""Limits concurrent calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from llama._core.errors import ConfigError, Overloaded
from llama._core.service import I, O, Service
from llama._core.stack import factory
from llama.layers._fair_semaphore import Slots
from llama.layers._same_type_layer import middleware, off
from llama.layers._when_closed import at_end


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Limit(Generic[I, O]):
    """Limits the concurrent and the queued calls of a service."""

    inner: Service[I, O]
    slots: Slots
    queue: int | None
    retry_after: float | None

    def __repr__(self) -> str:
        return _spelling(self.slots.count, self.queue)

    async def __call__(self, input: I, /) -> O:
        slots = self.slots
        if not slots.take_nowait():
            if self.queue is not None and slots.waiting >= self.queue:
                raise self._overloaded()
            await slots.take()
        try:
            output = await self.inner(input)
        except BaseException:
            slots.release()
            raise
        at_end(output, slots.release)
        return output

    def _overloaded(self) -> Overloaded:
        waiting = f" and {self.queue} wait" if self.queue else ""
        return Overloaded(f"{self.slots.count} calls run{waiting} already", retry_after=self.retry_after)


@factory("limit")
def limit(
    concurrency: int | None, *, queue: int | None = 0, retry_after: float | None = 1.0
) -> Callable[[Service[I, O]], Service[I, O]]:
    """Limit a service to `concurrency` concurrent calls; excess calls wait in a queue or raise Overloaded (503).

    `concurrency` None means no limit. `queue` is the maximum number of waiting calls, first in, first out: 0 for
    none, None for any number. `retry_after`, in seconds, is set on the error. A call of a request handler ends with
    the body of its response, that of a connector when it is connected. Each worker counts separately.

        stack(http.server(), limit(100, queue=1000), application)
    """
    if concurrency is None:
        return off("limit")
    if concurrency < 1:
        raise ConfigError(f"limit({concurrency}): expected at least 1 call, or None for no limit")
    if queue is not None and queue < 0:
        raise ConfigError(f"limit(queue={queue}): expected 0 or more, or None for any number")
    count = concurrency

    def build(inner: Service[I, O]) -> Service[I, O]:
        return Limit(inner, Slots(count), queue, retry_after)

    return middleware(_spelling(count, queue), build)


def _spelling(count: int, queue: int | None) -> str:
    return f"limit({count})" if queue == 0 else f"limit({count}, queue={queue})"

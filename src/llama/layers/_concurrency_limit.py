"""Limits concurrent calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from llama._core.errors import ConfigError, OverloadedError
from llama._core.service import RequestT, ResponseT, Service
from llama._core.stack import layer_factory
from llama.layers._fair_semaphore import FairSemaphore
from llama.layers._same_type_layer import noop_layer, same_type_layer
from llama.layers._when_closed import when_closed


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ConcurrencyLimit(Generic[RequestT, ResponseT]):
    """Limits the concurrent and the queued calls of a service."""

    inner: Service[RequestT, ResponseT]
    slots: FairSemaphore
    queue: int | None
    retry_after: float | None

    def __repr__(self) -> str:
        return _spec(self.slots.count, self.queue)

    async def __call__(self, input: RequestT, /) -> ResponseT:
        slots = self.slots
        if not slots.acquire_nowait():
            if self.queue is not None and slots.waiting >= self.queue:
                raise self._overloaded()
            await slots.acquire()
        try:
            output = await self.inner(input)
        except BaseException:
            slots.release()
            raise
        when_closed(output, slots.release)
        return output

    def _overloaded(self) -> OverloadedError:
        waiting = f" and {self.queue} wait" if self.queue else ""
        return OverloadedError(f"{self.slots.count} calls run{waiting} already", retry_after=self.retry_after)


@layer_factory("concurrency_limit")
def concurrency_limit(
    concurrency: int | None, *, queue: int | None = 0, retry_after: float | None = 1.0
) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]:
    """Limit a service to `concurrency` concurrent calls; excess calls wait in a queue or raise OverloadedError (503).

    `concurrency` None means no limit. `queue` is the maximum number of waiting calls, first in, first out: 0 for
    none, None for any number. `retry_after`, in seconds, is set on the error. A call of a request handler ends with
    the body of its response, that of a connector when it is connected. Each worker counts separately.

        stack(http.server(), concurrency_limit(100, queue=1000), application)
    """
    if concurrency is None:
        return noop_layer("concurrency_limit")
    if concurrency < 1:
        raise ConfigError(f"concurrency_limit({concurrency}): expected at least 1 call, or None for no limit")
    if queue is not None and queue < 0:
        raise ConfigError(f"concurrency_limit(queue={queue}): expected 0 or more, or None for any number")
    count = concurrency

    def build(inner: Service[RequestT, ResponseT]) -> Service[RequestT, ResponseT]:
        return ConcurrencyLimit(inner, FairSemaphore(count), queue, retry_after)

    return same_type_layer(_spec(count, queue), build)


def _spec(count: int, queue: int | None) -> str:
    return f"concurrency_limit({count})" if queue == 0 else f"concurrency_limit({count}, queue={queue})"

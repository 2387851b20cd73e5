"""A limit on concurrent requests for each key of the request."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, OverloadedError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._layers.limits.rate_limit import client_key
from llama.http._messages.message import Request, RequestHandler, Response
from llama.layers._fair_semaphore import FairSemaphore


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ConcurrencyLimit:
    """Limits concurrent and queued requests for each key."""

    inner: RequestHandler
    count: int
    key: Callable[[Request], Hashable]
    queue: int | None
    retry_after: float | None
    running: dict[Hashable, FairSemaphore]

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.concurrency_limit({self.count})"

    async def __call__(self, request: Request, /) -> Response:
        key = self.key(request)
        slots = self.running.get(key)
        if slots is None:
            slots = self.running[key] = FairSemaphore(self.count)
        if not slots.acquire_nowait():
            await self._wait(key, slots)
        try:
            response = await self.inner(request)
        except BaseException:
            self._release(key, slots)
            raise
        response.on_close(lambda: self._release(key, slots))
        return response

    async def _wait(self, key: Hashable, slots: FairSemaphore) -> None:
        if self.queue is not None and slots.waiting >= self.queue:
            raise self._overloaded(key)
        try:
            await slots.acquire()
        except BaseException:
            self._forget(key, slots)
            raise

    def _release(self, key: Hashable, slots: FairSemaphore) -> None:
        slots.release()
        self._forget(key, slots)

    def _forget(self, key: Hashable, slots: FairSemaphore) -> None:
        if slots.free == slots.count and self.running.get(key) is slots:
            del self.running[key]  # keep only the keys of active requests

    def _overloaded(self, key: Hashable) -> OverloadedError:
        waiting = f", with {self.queue} queued" if self.queue else ""
        who = f" for {key}" if key is not None else ""
        text = f"reached the limit of {self.count} concurrent requests{who}{waiting}"
        return OverloadedError(text, status=429, retry_after=self.retry_after)


@layer_factory("http.concurrency_limit")
def concurrency_limit(
    concurrency: int,
    *,
    key: Callable[[Request], Hashable] = client_key,
    queue: int | None = 0,
    retry_after: float | None = 1.0,
) -> Middleware[Request, Response]:
    """Limit the concurrent requests of each key; further ones get 429 with Retry-After, or wait.

    Like `concurrency_limit`, but counts for each `key`, a function of the request, rather than for all requests
    together. The default key is the client's address, which behind a proxy is the one that `http.forwarded` sets.
    Requests whose key is None share one limit. `queue` is the maximum number of waiting requests for each key,
    served in order of arrival: 0 for none, None for no limit. `retry_after` is in seconds; None omits the field. A
    request counts until its response body has ended.

        stack(http.server(), http.concurrency_limit(10, key=lambda r: r.headers.get("x-tenant")), application)
    """
    if concurrency < 1:
        raise ConfigError(f"http.concurrency_limit({concurrency}): expected at least 1 request")
    if queue is not None and queue < 0:
        raise ConfigError(f"http.concurrency_limit(queue={queue}): expected 0 or more, or None for no limit")

    def build(inner: RequestHandler) -> RequestHandler:
        return ConcurrencyLimit(inner, concurrency, key, queue, retry_after, {})

    return named_layer(
        f"http.concurrency_limit({concurrency})", build, input_type=Request, inner_type=Request
    )

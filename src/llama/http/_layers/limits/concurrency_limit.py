"""A limit on concurrent requests for each key of the request."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, Overloaded
from llama._core.service import Middleware
from llama._core.stack import factory, named_layer
from llama.http._layers.limits.rate_limit import client_key
from llama.http._messages.message import Exchange, Request, Response
from llama.layers._fair_semaphore import Slots


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Limit:
    """Limits concurrent and queued requests for each key."""

    inner: Exchange
    count: int
    key: Callable[[Request], Hashable]
    queue: int | None
    retry_after: float | None
    running: dict[Hashable, Slots]

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.limit({self.count})"

    async def __call__(self, request: Request, /) -> Response:
        key = self.key(request)
        slots = self.running.get(key)
        if slots is None:
            slots = self.running[key] = Slots(self.count)
        if not slots.take_nowait():
            await self._wait(key, slots)
        try:
            response = await self.inner(request)
        except BaseException:
            self._release(key, slots)
            raise
        response.on_close(lambda: self._release(key, slots))
        return response

    async def _wait(self, key: Hashable, slots: Slots) -> None:
        if self.queue is not None and slots.waiting >= self.queue:
            raise self._overloaded(key)
        try:
            await slots.take()
        except BaseException:
            self._forget(key, slots)
            raise

    def _release(self, key: Hashable, slots: Slots) -> None:
        slots.release()
        self._forget(key, slots)

    def _forget(self, key: Hashable, slots: Slots) -> None:
        if slots.free == slots.count and self.running.get(key) is slots:
            del self.running[key]  # keep only the keys of active requests

    def _overloaded(self, key: Hashable) -> Overloaded:
        waiting = f", with {self.queue} queued" if self.queue else ""
        who = f" for {key}" if key is not None else ""
        text = f"reached the limit of {self.count} concurrent requests{who}{waiting}"
        return Overloaded(text, status=429, retry_after=self.retry_after)


@factory("http.limit")
def limit(
    concurrency: int,
    *,
    key: Callable[[Request], Hashable] = client_key,
    queue: int | None = 0,
    retry_after: float | None = 1.0,
) -> Middleware[Request, Response]:
    """Limit the concurrent requests of each key; further ones get 429 with Retry-After, or wait.

    Like `limit`, but counts for each `key`, a function of the request, rather than for all requests together. The
    default key is the client's address, which behind a proxy is the one that `http.forwarded` sets. Requests whose key
    is None share one limit. `queue` is the maximum number of waiting requests for each key, served in order of arrival:
    0 for none, None for no limit. `retry_after` is in seconds; None omits the field. A request counts until its
    response body has ended.

        stack(http.server(), http.limit(10, key=lambda request: request.headers.get("x-tenant")), application)
    """
    if concurrency < 1:
        raise ConfigError(f"http.limit({concurrency}): expected at least 1 request")
    if queue is not None and queue < 0:
        raise ConfigError(f"http.limit(queue={queue}): expected 0 or more, or None for no limit")

    def build(inner: Exchange) -> Exchange:
        return Limit(inner, concurrency, key, queue, retry_after, {})

    return named_layer(f"http.limit({concurrency})", build, takes=Request, gives=Request)

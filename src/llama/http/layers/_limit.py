"""Bounds how many requests run at once, for each key made of the request."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError, Overloaded
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._message import Exchange, Request, Response
from llama.http.layers._rate_limit import client_key
from llama.layers._slots import Slots


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Limit:
    """Lets so many requests of each key run at once, and so many wait for their turn."""

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
            del self.running[key]  # so that only the keys of running requests are kept

    def _overloaded(self, key: Hashable) -> Overloaded:
        waiting = f" and {self.queue} wait" if self.queue else ""
        who = f" for {key}" if key is not None else ""
        text = f"{self.count} requests run{waiting} already{who}"
        return Overloaded(text, status=429, retry_after=self.retry_after)


@factory("http.limit")
def limit(
    concurrency: int,
    *,
    key: Callable[[Request], Hashable] = client_key,
    queue: int | None = 0,
    retry_after: float | None = 1.0,
) -> Middleware[Request, Response]:
    """Let so many requests of each key run at once; more get 429 with Retry-After, or wait.

    As `limit`, which counts all requests together, but for each `key`, a function of the request: by default the
    client's address, which behind a proxy is the one that `http.forwarded` believes. Requests whose key is None share
    one. `queue` is how many of a key may wait, first come, first served: 0 for none, None for any number. A request
    runs until the body of its response has ended.

        stack(http.server(), http.limit(10, key=lambda request: request.headers.get("x-tenant")), application)
    """
    if concurrency < 1:
        raise ConfigError(f"http.limit({concurrency}): expected at least 1 request")
    if queue is not None and queue < 0:
        raise ConfigError(f"http.limit(queue={queue}): expected 0 or more, or None for any number")

    def build(inner: Exchange) -> Exchange:
        return Limit(inner, concurrency, key, queue, retry_after, {})

    return named_layer(f"http.limit({concurrency})", build, takes=Request, gives=Request)

"""Retries failed requests if that is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from llama._core.errors import ConfigError, TLSError, Unreachable
from llama._core.service import Middleware
from llama._core.stack import factory, named_layer
from llama.http._h1.client import NoAnswer
from llama.http._messages.body import body_of
from llama.http._messages.message import Exchange, Request, Response
from llama.http._messages.retryable import is_replayable
from llama.layers._retry import Backoff
from llama.layers._retry_budget import Budget

RESERVE = 10.0


class _Copy:
    """A copy of a request, to undo changes by inner layers before a retry."""

    __slots__ = ("data", "headers", "method", "path")

    def __init__(self, request: Request, data: bytes) -> None:
        self.method, self.path, self.data = request.method, request.path, data
        self.headers = request.headers.copy()

    def restore(self, request: Request) -> None:
        request.method, request.path = self.method, self.path
        request.body = body_of(bytes(self.data))
        request.headers = self.headers.copy()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Retry:
    """Retries failed requests if that is safe."""

    inner: Exchange
    attempts: int
    statuses: frozenset[int]
    backoff: Backoff
    budget: Budget | None

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.retry({self.attempts})"

    async def __call__(self, request: Request, /) -> Response:
        if self.budget is not None:
            self.budget.called()
        data = request.body.data
        if data is None or request.protocol:
            return await self.inner(request)
        copy, is_safe = _Copy(request, data), is_replayable(request)
        for retry in range(self.attempts - 1):
            try:
                response = await self.inner(request)
            except (Unreachable, TLSError, NoAnswer) as error:
                # A TLSError can also come from an established session, after the request was sent.
                if not (is_safe or isinstance(error, Unreachable)):
                    raise
                if (wait := self._wait(retry, error)) is None:
                    raise
            else:
                if not is_safe or _counted(response.status) not in self.statuses:
                    return response
                if (wait := self._wait(retry, None)) is None:
                    return response
                await response.aclose()
            await asyncio.sleep(wait)
            copy.restore(request)
        return await self.inner(request)

    def _wait(self, retry: int, error: Exception | None) -> float | None:
        wait = self.backoff.before(retry, error or Unreachable("the response has a status to retry"))
        return wait if wait is not None and (self.budget is None or self.budget.take()) else None


def _counted(status: int) -> int:
    """Return the status, or 500 for an invalid one above 599 (RFC 9110 section 15)."""
    return status if status < 600 else 500


@factory("http.retry")
def retry(
    attempts: int = 3,
    *,
    statuses: Collection[int] = (),
    backoff: float = 0.05,
    longest: float = 2.0,
    budget: float | None = 0.2,
) -> Middleware[Request, Response]:
    """Retry failed requests if that is safe, up to `attempts` attempts in total.

    A request with its body in memory is retried if no connection could be made. If the connection closed before a
    response, or the response has one of `statuses` (a status above 599 counts as 500), only requests with an idempotent
    method are retried. The delay doubles from `backoff` up to `longest` seconds, with random jitter. `budget` limits
    retries to a share of the requests (None: no limit).

        stack(http.server(), http.retry(3, statuses={502, 503}), application)
    """
    if attempts < 1:
        raise ConfigError(f"http.retry({attempts}): expected at least 1 attempt")
    if backoff < 0 or longest < backoff:
        raise ConfigError(
            f"http.retry(backoff={backoff:g}, longest={longest:g}): expected 0 <= backoff <= longest"
        )
    if budget is not None and budget < 0:
        raise ConfigError(f"http.retry(budget={budget:g}): expected 0 or more")
    waits, known = Backoff(backoff, longest, 1.0, Random()), frozenset(statuses)

    def build(inner: Exchange) -> Exchange:
        return Retry(inner, attempts, known, waits, None if budget is None else Budget(budget, RESERVE))

    return named_layer(f"http.retry({attempts})", build, takes=Request, gives=Request)

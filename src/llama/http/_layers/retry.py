"""Retries failed requests if that is safe."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from llama._core.errors import ConfigError, TLSError, UnreachableError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._h1.client import NoResponseError
from llama.http._messages.body import to_body
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._messages.retryable import is_retryable
from llama.layers._retry import Backoff
from llama.layers._retry_budget import RetryBudget

MIN_RETRIES_PER_PERIOD = 10.0


class _RequestCopy:
    """A copy of a request, to undo changes by inner layers before a retry."""

    __slots__ = ("data", "headers", "method", "path")

    def __init__(self, request: Request, data: bytes) -> None:
        self.method, self.path, self.data = request.method, request.path, data
        self.headers = request.headers.copy()

    def restore(self, request: Request) -> None:
        request.method, request.path = self.method, self.path
        request.body = to_body(bytes(self.data))
        request.headers = self.headers.copy()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Retry:
    """Retries failed requests if that is safe."""

    inner: RequestHandler
    attempts: int
    statuses: frozenset[int]
    backoff: Backoff
    budget: RetryBudget | None

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.retry({self.attempts})"

    async def __call__(self, request: Request, /) -> Response:
        if self.budget is not None:
            self.budget.deposit()
        data = request.body.buffered
        if data is None or request.upgrade_protocol:
            return await self.inner(request)
        copy, is_safe = _RequestCopy(request, data), is_retryable(request)
        for retry in range(self.attempts - 1):
            try:
                response = await self.inner(request)
            except (UnreachableError, TLSError, NoResponseError) as error:
                # A TLSError can also come from an established session, after the request was sent.
                if not (is_safe or isinstance(error, UnreachableError)):
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
        wait = self.backoff.delay(retry, error or UnreachableError("the response has a status to retry"))
        return wait if wait is not None and (self.budget is None or self.budget.try_withdraw()) else None


def _counted(status: int) -> int:
    """Return the status, or 500 for an invalid one above 599 (RFC 9110 section 15)."""
    return status if status < 600 else 500


@layer_factory("http.retry")
def retry(
    attempts: int = 3,
    *,
    statuses: Collection[int] = (),
    backoff: float = 0.05,
    max_delay: float = 2.0,
    budget: float | None = 0.2,
) -> Middleware[Request, Response]:
    """Retry failed requests if that is safe, up to `attempts` attempts in total.

    A request with its body in memory is retried if no connection could be made. If the connection closed before a
    response, or the response has one of `statuses` (a status above 599 counts as 500), only requests with an idempotent
    method are retried. The delay doubles from `backoff` up to `max_delay` seconds, with random jitter. `budget` limits
    retries to a share of the requests (None: no limit).

        stack(http.server(), http.retry(3, statuses={502, 503}), application)
    """
    if attempts < 1:
        raise ConfigError(f"http.retry({attempts}): expected at least 1 attempt")
    if backoff < 0 or max_delay < backoff:
        raise ConfigError(
            f"http.retry(backoff={backoff:g}, max_delay={max_delay:g}): expected 0 <= backoff <= max_delay"
        )
    if budget is not None and budget < 0:
        raise ConfigError(f"http.retry(budget={budget:g}): expected 0 or more")
    waits, known = Backoff(backoff, max_delay, 1.0, Random()), frozenset(statuses)

    def build(inner: RequestHandler) -> RequestHandler:
        return Retry(
            inner,
            attempts,
            known,
            waits,
            None if budget is None else RetryBudget(budget, MIN_RETRIES_PER_PERIOD),
        )

    return named_layer(f"http.retry({attempts})", build, input_type=Request, inner_type=Request)

"""Retries failed calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeAlias

from llama._core.errors import ConfigError, LlamaError, UnreachableError
from llama._core.service import RequestT, ResponseT, Service
from llama._core.stack import display_name, layer_factory
from llama.layers._retry_budget import RetryBudget
from llama.layers._same_type_layer import same_type_layer

log = logging.getLogger("llama.retry")

RetryOn: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delays between attempts: they double from `first` to `max_delay` seconds, less a random part."""

    first: float
    max_delay: float
    jitter: float
    random: Random

    def delay(self, retry: int, error: Exception) -> float | None:
        """Return the delay before retry number `retry`, from 0; None if the error's own delay exceeds `max_delay`."""
        # After 63 doublings every wait has reached `max_delay`; the limit keeps the power from overflowing.
        wait = min(self.max_delay, self.first * 2.0 ** min(retry, 63))
        wait *= 1 - self.jitter * self.random.random()
        asked = error.retry_after if isinstance(error, LlamaError) else None
        if asked is None:
            return wait
        return None if asked > self.max_delay else max(wait, asked)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Retry(Generic[RequestT, ResponseT]):
    """Calls the inner service again after transient failures."""

    inner: Service[RequestT, ResponseT]
    attempts: int
    should_retry: Callable[[Exception], bool]
    backoff: Backoff
    budget: RetryBudget | None

    def __repr__(self) -> str:
        return f"retry({self.attempts})"

    async def __call__(self, input: RequestT, /) -> ResponseT:
        if self.budget is not None:
            self.budget.deposit()
        for retry in range(self.attempts - 1):
            try:
                return await self.inner(input)
            except Exception as error:
                if (wait := self._wait(retry, error)) is None:
                    raise
                log.debug("%s: retry %d in %.3g s: %s", display_name(self.inner), retry + 1, wait, error)
            if wait > 0:
                await asyncio.sleep(wait)
        return await self.inner(input)

    def _wait(self, retry: int, error: Exception) -> float | None:
        if not self.should_retry(error):
            return None
        wait = self.backoff.delay(retry, error)
        return wait if wait is not None and (self.budget is None or self.budget.try_withdraw()) else None


@layer_factory("retry")
def retry(
    attempts: int = 3,
    *,
    on: RetryOn = UnreachableError,
    backoff: float = 0.05,
    max_delay: float = 2.0,
    jitter: float = 1.0,
    budget: float | None = 0.2,
    reserve: float = 10,
    random: Random | None = None,
) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]:
    """Retry failed calls, with at most `attempts` calls in total; 1 never retries.

    `on` selects the failures to retry: exception types, or a function of the exception. The default is UnreachableError
    only, after which nothing was sent. Only a call that raised is retried, never one that returned, and with the
    same input object: use it for connectors, and for requests whose body can be sent again.

    Delays double from `backoff` to `max_delay` seconds; `jitter` is the random share of each (0 to 1). The
    `retry_after` of an error extends its delay; if it exceeds `max_delay`, the error is raised. `budget` limits retries
    to a share of the calls, in addition to an initial `reserve`; None means no limit. A seeded `random` makes the
    jitter reproducible.

        stack(retry(3), timeout(2), tcp.connect())
    """
    if attempts < 1:
        raise ConfigError(f"retry({attempts}): expected at least 1 attempt")
    if not 0 <= jitter <= 1:
        raise ConfigError(f"retry(jitter={jitter:g}): expected a share from 0 to 1")
    if backoff < 0 or max_delay < backoff:
        raise ConfigError(
            f"retry(backoff={backoff:g}, max_delay={max_delay:g}): expected 0 <= backoff <= max_delay"
        )
    if budget is not None and (budget < 0 or reserve < 0):
        raise ConfigError(f"retry(budget={budget:g}, reserve={reserve:g}): expected 0 or more")
    waits = Backoff(backoff, max_delay, jitter, random or Random())
    is_retried = _predicate(on)

    def build(inner: Service[RequestT, ResponseT]) -> Service[RequestT, ResponseT]:
        if attempts == 1:
            return inner
        return Retry(
            inner, attempts, is_retried, waits, None if budget is None else RetryBudget(budget, reserve)
        )

    return same_type_layer(f"retry({attempts})", build)


def _predicate(on: RetryOn) -> Callable[[Exception], bool]:
    if isinstance(on, type):
        return lambda error: isinstance(error, on)
    if isinstance(on, tuple):
        return lambda error: isinstance(error, on)
    return on

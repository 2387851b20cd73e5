"""Limits the rate of calls for each key."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, overload

from llama._core.errors import ConfigError, OverloadedError
from llama._core.service import RequestT, ResponseT, Service
from llama._core.stack import layer_factory
from llama.layers._peer_key import network_of, peer_host
from llama.layers._same_type_layer import noop_layer, same_type_layer

IPV6_PREFIX = 64  # the usual network of one customer, counted as one peer


class RateLimiter:
    """Token buckets, each stored as the time at which it will be full again."""

    __slots__ = ("_full_at", "_interval", "_keys", "_span")

    def __init__(self, rate: float, burst: float, keys: int) -> None:
        self._interval = 1 / rate
        self._span = (burst - 1) / rate
        self._keys = keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, key: Hashable, now: float) -> float:
        """Take a token and return 0, or return the seconds until one is available."""
        table = self._full_at
        full_at = table.get(key, now)
        wait = full_at - now - self._span
        if wait <= 0:
            table[key] = max(full_at, now) + self._interval
        table.move_to_end(key)
        if len(table) > self._keys:
            table.popitem(last=False)
        return max(0.0, wait)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class RateLimit(Generic[RequestT, ResponseT]):
    """Rejects calls above the rate of their key."""

    inner: Service[RequestT, ResponseT]
    rate: float
    burst: float
    key: Callable[[RequestT], Hashable]
    buckets: RateLimiter

    def __repr__(self) -> str:
        return _spec(self.rate, self.burst)

    async def __call__(self, input: RequestT, /) -> ResponseT:
        key = self.key(input)
        wait = self.buckets.take(key, asyncio.get_running_loop().time())
        if wait > 0:
            whose = "" if key is None else f"{key}: "
            raise OverloadedError(
                f"{whose}more than {self.rate:g} calls a second", status=429, retry_after=wait
            )
        return await self.inner(input)


@overload
def rate_limit(
    rate: float | None, burst: float | None = None, *, keys: int = 65536
) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]: ...
@overload
def rate_limit(
    rate: float | None, burst: float | None = None, *, key: Callable[[RequestT], Hashable], keys: int = 65536
) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]: ...
@layer_factory("rate_limit")
def rate_limit(
    rate: float | None,
    burst: float | None = None,
    *,
    key: Callable[[RequestT], Hashable] | None = None,
    keys: int = 65536,
) -> Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]:
    """Limit each key to `rate` calls a second, with bursts of `burst`; excess calls raise OverloadedError (429).

    `rate` None means no limit. `burst` defaults to the rate, and is at least 1. `key` returns the key of a call: by
    default the peer's address, for IPv6 its /64 network; calls without a peer share one key. At most `keys` keys
    are stored, and the least recently used is dropped first. The error's `retry_after` is the number of seconds
    until the next call is allowed. Each worker counts separately.

        stack(rate_limit(10, burst=50), http.server(), application)
    """
    if rate is None:
        return noop_layer("rate_limit")
    if rate <= 0:
        raise ConfigError(f"rate_limit({rate:g}): expected more than 0 calls a second, or None for no limit")
    size = max(1.0, rate) if burst is None else burst
    if size < 1:
        raise ConfigError(f"rate_limit(burst={size:g}): expected at least 1 call")
    if keys < 1:
        raise ConfigError(f"rate_limit(keys={keys}): expected at least 1")
    per_second, whose = rate, key or _peer

    def build(inner: Service[RequestT, ResponseT]) -> Service[RequestT, ResponseT]:
        return RateLimit(inner, per_second, size, whose, RateLimiter(per_second, size, keys))

    return same_type_layer(_spec(per_second, size), build)


def _peer(input: object) -> Hashable:
    host = peer_host(input)
    return None if host is None else network_of(host, IPV6_PREFIX)


def _spec(rate: float, burst: float) -> str:
    return f"rate_limit({rate:g}, burst={burst:g})"

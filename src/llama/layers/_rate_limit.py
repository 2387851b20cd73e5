"""Bounds how many calls begin in a time, for each key."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, overload

from llama._errors import ConfigError, Overloaded
from llama._service import I, O, Service
from llama._stack import factory
from llama.layers._middleware import middleware, off
from llama.layers._peer_key import network_of, peer_host

IPV6_PREFIX = 64  # what one customer usually has: all of it counts as one peer


class Buckets:
    """Token buckets, each kept as the time at which it will be full again."""

    __slots__ = ("_full_at", "_interval", "_keys", "_span")

    def __init__(self, rate: float, burst: float, keys: int) -> None:
        self._interval = 1 / rate
        self._span = (burst - 1) / rate
        self._keys = keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, key: Hashable, now: float) -> float:
        """Take a token: 0, or the seconds until there is one."""
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
class RateLimit(Generic[I, O]):
    """Refuses calls that come faster than their key's rate."""

    inner: Service[I, O]
    rate: float
    burst: float
    key: Callable[[I], Hashable]
    buckets: Buckets

    def __repr__(self) -> str:
        return _spelling(self.rate, self.burst)

    async def __call__(self, input: I, /) -> O:
        key = self.key(input)
        wait = self.buckets.take(key, asyncio.get_running_loop().time())
        if wait > 0:
            who = "this" if key is None else key
            raise Overloaded(f"{who} is over {self.rate:g} calls a second", status=429, retry_after=wait)
        return await self.inner(input)


@overload
def rate_limit(
    rate: float | None, burst: float | None = None, *, keys: int = 65536
) -> Callable[[Service[I, O]], Service[I, O]]: ...
@overload
def rate_limit(
    rate: float | None, burst: float | None = None, *, key: Callable[[I], Hashable], keys: int = 65536
) -> Callable[[Service[I, O]], Service[I, O]]: ...
@factory("rate_limit")
def rate_limit(
    rate: float | None,
    burst: float | None = None,
    *,
    key: Callable[[I], Hashable] | None = None,
    keys: int = 65536,
) -> Callable[[Service[I, O]], Service[I, O]]:
    """Let `rate` calls a second begin for each key, and `burst` of them at once; more raise Overloaded (429).

    `rate` None is no limit; `burst` is the rate itself unless given, and at least 1. `key` tells whose call
    it is: by default the peer's address, an IPv6 one by its first 64 bits; calls without a peer share one.
    At most `keys` keys are remembered, and the one seen least recently is forgotten first. The error's
    `retry_after` is when the next call would pass. Each worker counts for itself.

        stack(rate_limit(10, burst=50), http.server(), application)
    """
    if rate is None:
        return off("rate_limit")
    if rate <= 0:
        raise ConfigError(f"rate_limit({rate:g}): expected more than 0 calls a second, or None for no limit")
    size = max(1.0, rate) if burst is None else burst
    if size < 1:
        raise ConfigError(f"rate_limit(burst={size:g}): expected at least 1 call")
    if keys < 1:
        raise ConfigError(f"rate_limit(keys={keys}): expected at least 1")
    per_second, whose = rate, key or _peer

    def build(inner: Service[I, O]) -> Service[I, O]:
        return RateLimit(inner, per_second, size, whose, Buckets(per_second, size, keys))

    return middleware(_spelling(per_second, size), build)


def _peer(input: object) -> Hashable:
    host = peer_host(input)
    return None if host is None else network_of(host, IPV6_PREFIX)


def _spelling(rate: float, burst: float) -> str:
    return f"rate_limit({rate:g}, burst={burst:g})"

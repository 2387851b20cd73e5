"""A limit on the request rate for each key of the request."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.message import Request, Response
from llama.layers._peer_key import network_of
from llama.layers._rate_limit import IPV6_PREFIX
from llama.layers._rate_limit import rate_limit as any_rate_limit


def client_key(request: Request) -> Hashable:
    """Return the client's address (of IPv6 the first 64 bits), or None if it is unknown."""
    client = request.client
    return None if client is None else network_of(client.host, IPV6_PREFIX)


@layer_factory("http.rate_limit")
def rate_limit(
    rate: float,
    burst: float | None = None,
    *,
    key: Callable[[Request], Hashable] = client_key,
    keys: int = 65536,
) -> Middleware[Request, Response]:
    """Limit each key to `rate` requests per second, in bursts of up to `burst`; further ones get 429 with Retry-After.

    Like `rate_limit`, but `key` is a function of the request. The default key is the client's address (for IPv6 its /64
    network), which behind a proxy is the one that `http.forwarded` sets. Requests whose key is None share one limit.
    `burst` defaults to the rate, and is at least 1. At most `keys` keys are stored; the least recently used is dropped
    first.

        stack(http.server(), http.rate_limit(10, burst=50, key=lambda request: request.authority), application)
    """
    made = any_rate_limit(rate, burst, key=key, keys=keys)
    return named_layer(f"http.{made!r}", made, input_type=Request, inner_type=Request)

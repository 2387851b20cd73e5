"""Bounds how many requests come in a time, for each key made of the request."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._message import Request, Response
from llama.layers._peer_key import network_of
from llama.layers._rate_limit import IPV6_PREFIX
from llama.layers._rate_limit import rate_limit as any_rate_limit


def client_key(request: Request) -> Hashable:
    """The client's address, an IPv6 one by its first 64 bits; None where it is not known."""
    client = request.client
    return None if client is None else network_of(client.host, IPV6_PREFIX)


@factory("http.rate_limit")
def rate_limit(
    rate: float,
    burst: float | None = None,
    *,
    key: Callable[[Request], Hashable] = client_key,
    keys: int = 65536,
) -> Middleware[Request, Response]:
    """Let `rate` requests a second begin for each key, and `burst` of them at once; more get 429 with Retry-After.

    As `rate_limit`, but `key` is a function of the request: by default the client's address, which behind a proxy is
    the one that `http.forwarded` believes. Requests whose key is None share one.

        stack(http.server(), http.rate_limit(10, burst=50, key=lambda request: request.authority), application)
    """
    made = any_rate_limit(rate, burst, key=key, keys=keys)
    return named_layer(f"http.{made!r}", made, takes=Request, gives=Request)

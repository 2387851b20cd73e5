"""What a proxy tells an upstream of a request's client: X-Forwarded-* and Forwarded (RFC 7239)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from llama._server import Peer
from llama.http._headers import Headers
from llama.http._message import Request

FORWARDED = frozenset(
    {
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-forwarded-server",
        "x-real-ip",
    }
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LONG = 255


class ForwardedFor(NamedTuple):
    """Whom a trusted proxy has told of, in a request's extensions: the client first, then proxies on the way."""

    hosts: tuple[str, ...]


def add_forwarded(headers: Headers, request: Request) -> None:
    """Add the fields that tell of a request's client, scheme and host; the earlier ones must be gone."""
    hosts = _way(request)
    authority = request.authority
    make = _fields if len(authority) <= _LONG else _made
    pairs, keys = make(hosts, request.scheme, authority)
    headers._pairs += pairs
    headers._keys += keys


def _way(request: Request) -> tuple[str, ...]:
    client = request.client
    known = request._extensions.get(ForwardedFor) if request._extensions is not None else None
    if known is None:
        return (client.host,) if client is not None else ()
    peer = request._connection.get(Peer) if request._connection is not None else None
    return (*known.hosts, peer.host) if peer is not None else known.hosts


def _made(hosts: tuple[str, ...], scheme: str, authority: str) -> tuple[list[tuple[str, str]], list[str]]:
    pairs: list[tuple[str, str]] = []
    if hosts:
        pairs.append(("X-Forwarded-For", ", ".join(hosts)))
    if scheme:
        pairs.append(("X-Forwarded-Proto", scheme))
    if authority:
        pairs.append(("X-Forwarded-Host", authority))
    pairs.append(("Forwarded", _forwarded(hosts, scheme, authority)))
    return pairs, [name.lower() for name, _ in pairs]


_fields = lru_cache(1024)(_made)


def _forwarded(hosts: tuple[str, ...], scheme: str, authority: str) -> str:
    first, *others = [f"for={_node(host)}" for host in hosts] or ["for=unknown"]
    if authority:
        first += f";host={_value(authority)}"
    if scheme:
        first += f";proto={scheme}"
    return ", ".join((first, *others))


def _node(host: str) -> str:
    if ":" in host:
        return f'"[{host}]"'
    return host if host != "unix" and _TOKEN.fullmatch(host) else "unknown"


def _value(text: str) -> str:
    return text if _TOKEN.fullmatch(text) else f'"{text}"'

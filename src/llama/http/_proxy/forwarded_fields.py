"""The fields that describe the original client to an upstream: X-Forwarded-* and Forwarded (RFC 7239)."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from llama._core.server import PeerAddress
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request
from llama.tls import TLSInfo

_NAMES = (
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
)
# Many backends read underscores as hyphens, so each name has several spellings.
FORWARDED = frozenset(
    "".join(parts) for name in _NAMES for parts in product(*["-_" if char == "-" else char for char in name])
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MAX_LENGTH = 255


class ForwardedFor(NamedTuple):
    """The chain of addresses from trusted proxies, in a request's extensions: the client first, then proxies."""

    hosts: tuple[str, ...]


def add_forwarded(headers: Headers, request: Request) -> None:
    """Add the fields for a request's client, scheme and host; the received ones must already be removed."""
    hosts = _client_chain(request)
    authority = request.authority
    scheme = _connection_scheme(request) if request.is_absolute_form else request.scheme
    make = _fields if len(authority) <= _MAX_LENGTH else _build_fields
    lines, keys = make(hosts, scheme, authority)
    headers._lines += lines
    headers._keys += keys


def _connection_scheme(request: Request) -> str:
    """Return the scheme of the connection for a request in absolute form, whose own scheme can be forged."""
    if request._extensions is not None and request._extensions.get(ForwardedFor) is not None:
        return request.scheme
    if request.version == "3":
        return "https"
    known = request._connection_extensions
    return "http" if known is None or known.get(TLSInfo) is None else "https"


def _client_chain(request: Request) -> tuple[str, ...]:
    client = request.client
    known = request._extensions.get(ForwardedFor) if request._extensions is not None else None
    if known is None:
        return (client.host,) if client is not None else ()
    peer = (
        request._connection_extensions.get(PeerAddress)
        if request._connection_extensions is not None
        else None
    )
    return (*known.hosts, peer.host) if peer is not None else known.hosts


def _build_fields(hosts: tuple[str, ...], scheme: str, authority: str) -> tuple[list[str], list[str]]:
    """Return the field lines, and their names in lower case."""
    fields = {
        "X-Forwarded-For": ", ".join(hosts),
        "X-Forwarded-Proto": scheme,
        "X-Forwarded-Host": authority,
        "Forwarded": _forwarded(hosts, scheme, authority),
    }
    told = {name: value for name, value in fields.items() if value}
    return [f"{name}: {value}" for name, value in told.items()], [name.lower() for name in told]


_fields = lru_cache(1024)(_build_fields)


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

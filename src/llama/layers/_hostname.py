"""Normalizes the host of an authority, for comparison with host rules."""

from __future__ import annotations

import socket
from functools import lru_cache
from urllib.parse import unquote

from llama.layers._peer_key import packed_address

_LONGEST = 255  # of the cached authorities, in characters


def hostname(authority: str) -> str:
    """Return the normalized host of `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `USER@HOST:PORT`."""
    return _known(authority) if len(authority) <= _LONGEST else _hostname(authority)


def _hostname(authority: str) -> str:
    host = authority.rpartition("@")[2]
    if host[:1] == "[":
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return normalized_host(host)


_known = lru_cache(1024)(_hostname)


def normalized_host(host: str) -> str:
    """Normalize a host: lower case, escapes decoded, A-labels, no trailing dots; addresses in their shortest form."""
    if "%" in host and ":" not in host and "%" not in (decoded := unquote(host)):
        host = decoded  # only if no escapes remain, so that normalization is idempotent
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            pass  # not a valid host name, so no rule can match it
    host = host.lower().rstrip(".")
    address = packed_address(host) if host[-1:].isdigit() or ":" in host else None
    if address is None:
        return host
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def port_of(authority: str) -> int | None:
    """Return the port of an authority, or None if it has none."""
    port = authority.rpartition(":")[2] if ":" in authority and authority[-1:] != "]" else ""
    return int(port) if port.isascii() and port.isdigit() and len(port) < 20 else None

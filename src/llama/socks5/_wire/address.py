"""Addresses in SOCKS messages (RFC 1928, section 5)."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
from functools import lru_cache
from typing import NamedTuple

from llama._core.errors import ProtocolError

IPV4, DOMAIN, IPV6 = 1, 3, 4
MAX_LENGTH = 255

# No colon or slash, so that a name cannot become a path, a port or a scoped address.
_NAME = re.compile(r"[\w.\-]+")


class Address(NamedTuple):
    """A host name or an address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


UNSPECIFIED = Address("0.0.0.0", 0)


def parse_address(data: bytes, start: int) -> tuple[Address, int] | None:
    """Parse type, host and port at `start`; return the address and its end, or None if incomplete.

    Raises ProtocolError for an invalid host name, and for an unknown type, with EAFNOSUPPORT as its cause.
    """
    if len(data) <= start:
        return None
    kind, at = data[start], start + 1
    if kind == DOMAIN:
        if len(data) <= at:
            return None
        size, at = data[at], at + 1
    elif kind in (IPV4, IPV6):
        size = 4 if kind == IPV4 else 16
    else:
        cause = OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        raise ProtocolError(f"address type {kind}: expected 1, 3 or 4") from cause
    end = at + size + 2
    if len(data) < end:
        return None
    raw = data[at : at + size]
    host = parse_name(raw) if kind == DOMAIN else parse_packed(raw)
    return Address(host, int.from_bytes(data[end - 2 : end], "big")), end


def parse_packed(raw: bytes) -> str:
    """Return the text of an address of 4 or 16 bytes."""
    return ".".join(map(str, raw)) if len(raw) == 4 else str(ipaddress.IPv6Address(raw))


def parse_name(raw: bytes) -> str:
    """Decode a host name, or an address sent as one; raises ProtocolError if invalid."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise ProtocolError(f"invalid host name {raw[:60]!r}") from None
    if _NAME.fullmatch(name) is None and not _is_ipv6(name):
        raise ProtocolError(f"invalid host name {name[:60]!r}")
    return name


def _is_ipv6(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text).packed)
    except ValueError:
        return False


def encode_address(host: str, port: int) -> bytes:
    """Encode type, host and port; ValueError for an invalid or too long host name."""
    packed = pack(host)
    if packed is None:
        name = encode_name(host)
        return b"%c%c%b%b" % (DOMAIN, len(name), name, encode_port(port))
    return b"%c%b%b" % (IPV4 if len(packed) == 4 else IPV6, packed, encode_port(port))


@lru_cache(1024)
def pack(host: str) -> bytes | None:
    """Return the 4 or 16 bytes of an address, or None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).packed
    except ValueError:
        return None


def encode_name(host: str) -> bytes:
    """Encode a host name: ASCII unchanged, anything else with IDNA."""
    try:
        name = host.encode("ascii") if host.isascii() else host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"invalid host name {host[:60]!r}: {error}") from None
    if not 0 < len(name) <= MAX_LENGTH or _NAME.fullmatch(name.decode()) is None:
        raise ValueError(
            f"invalid host name {host[:60]!r}: expected 1 to {MAX_LENGTH} letters, digits, dots, hyphens or underscores"
        )
    return name


def encode_port(port: int) -> bytes:
    """Encode a port in two bytes."""
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is not between 0 and 65535")
    return port.to_bytes(2, "big")

"""Detection of a protocol from a connection's first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

Matcher: TypeAlias = Callable[[bytes], bool | None]
"""Returns whether the first bytes begin a protocol; None if more bytes are needed."""

TLS = b"\x16\x03"  # a handshake record (RFC 8446 section 5.1): every version starts its ClientHello with it
SOCKS4 = b"\x04"
SOCKS5 = b"\x05"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # the preface (RFC 9113 section 3.4)

_METHOD = rb"[A-Za-z_-]{1,32}"
_SCHEME = rb"[A-Za-z][A-Za-z0-9+.-]{0,15}"
_HTTP1 = re.compile(rb"%s (?:/|\*|%s://)|CONNECT [^\s]" % (_METHOD, _SCHEME))
_HTTP1_PART = re.compile(rb"%s(?: (?:%s(?::/?)?)?)?" % (_METHOD, _SCHEME))


def is_http1(data: bytes) -> bool | None:
    """Whether these bytes begin a request line: a method and one of the four target forms (RFC 9112 section 3.2)."""
    if _HTTP1.match(data) is not None:
        return True
    return None if not data or _HTTP1_PART.fullmatch(data) else False


def begins_with(prefix: bytes) -> Matcher:
    """Return a matcher for a fixed prefix."""

    def matches(data: bytes) -> bool | None:
        if data.startswith(prefix):
            return True
        return None if prefix.startswith(data) else False

    return matches

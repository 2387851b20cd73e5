"""HPACK's static table, entry sizes and integers (RFC 7541 sections 4.1, 5.1 and appendix A)."""

from __future__ import annotations

from typing import TypeAlias

Field: TypeAlias = tuple[str, str]

TABLE_SIZE = 4096
"""The initial size of the dynamic table, in bytes."""
OVERHEAD = 32
"""Bytes that an entry counts in addition to its name and value."""
UNLIMITED = 1 << 62

_NAMES_AND_VALUES = """:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate"""


def _static() -> tuple[Field, ...]:
    lines = [line.partition(" ") for line in _NAMES_AND_VALUES.split("\n")]
    return (("", ""), *((name, value) for name, _, value in lines))


STATIC = _static()
"""The static table by index; index 0 is unused."""
STATIC_SIZES = tuple(len(name) + len(value) + OVERHEAD for name, value in STATIC)
STATIC_FIELDS = {field: index for index, field in reversed(list(enumerate(STATIC))) if index}
STATIC_NAMES = {field[0]: index for index, field in reversed(list(enumerate(STATIC))) if index}


class NeverIndexed(str):
    """The value of a field that the peer marked as never indexed; it is forwarded so (RFC 7541 section 6.2.3)."""

    __slots__ = ()


def encode_integer(value: int, first: int, most: int) -> bytes:
    """Encode an integer with a prefix whose largest value is `most`; `first` sets the bits above the prefix."""
    if value < most:
        return bytes((first | value,))
    value -= most
    out = bytearray((first | most,))
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

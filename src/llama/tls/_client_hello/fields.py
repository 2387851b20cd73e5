"""Parsers for the fields of a ClientHello; they raise ProtocolError for a length that does not match."""

from collections.abc import Collection
from struct import Struct, error, pack, unpack
from typing import NamedTuple

from llama._core.errors import ProtocolError
from llama.tls._certificates.names import is_host_name

_HEADER, _VERSION, _RANDOM = 4, 2, 32
SESSION_ID = _HEADER + _VERSION + _RANDOM
_PRE_SHARED_KEY = 41
_HOST_NAME = 0
_LONGEST_NAME = 255

_u16 = Struct(">H").unpack_from
_u16_pair = Struct(">HH").unpack_from


class Layout(NamedTuple):
    """The offsets of the parts of a ClientHello."""

    session_end: int
    ciphers_end: int
    extensions: dict[int, int]
    """The offset of each extension's content by type, in the order sent; its length is in the two bytes before."""


def split(message: bytes) -> Layout:
    """Find the parts of a ClientHello (RFC 8446, 4.1.2 and 4.2): lengths are exact, no extension is repeated."""
    try:
        session_end = SESSION_ID + 1 + message[SESSION_ID]
        ciphers = session_end + 2
        ciphers_end: int = ciphers + _u16(message, session_end)[0]
        methods_end: int = ciphers_end + 1 + message[ciphers_end]
        extensions = {} if methods_end == len(message) else _extensions(message, methods_end)
    except (IndexError, error):
        raise ProtocolError(f"ClientHello of {len(message)} bytes ends inside a field") from None
    if message[0] != 1 or int.from_bytes(message[1:4], "big") != len(message) - 4:
        raise ProtocolError(f"not a ClientHello: {len(message)} bytes that begin with 0x{message[:4].hex()}")
    if message[SESSION_ID] > 32:
        raise ProtocolError(
            f"ClientHello has a session id of {message[SESSION_ID]} bytes: at most 32 are allowed"
        )
    if ciphers_end == ciphers or (ciphers_end - ciphers) & 1:
        raise ProtocolError(f"ClientHello has {ciphers_end - ciphers} bytes of cipher suites")
    if methods_end == ciphers_end + 1:
        raise ProtocolError("ClientHello has no compression method")
    return Layout(session_end, ciphers_end, extensions)


def _extensions(message: bytes, at: int) -> dict[int, int]:
    found: dict[int, int] = {}
    end = len(message)
    size = _u16(message, at)[0]
    at += 2
    if at + size != end:
        raise ProtocolError(f"ClientHello announces {size} bytes of extensions and has {end - at}")
    kind, count = -1, 0
    while at < end:
        kind, size = _u16_pair(message, at)
        found[kind] = at = at + 4
        at += size
        count += 1
    if at != end:
        raise ProtocolError(f"ClientHello ends inside extension {kind}")
    if count != len(found):
        raise ProtocolError("ClientHello has an extension twice")
    if _PRE_SHARED_KEY in found and kind != _PRE_SHARED_KEY:
        raise ProtocolError("ClientHello has pre_shared_key before other extensions: it must be the last")
    return found


def content(message: bytes, at: int) -> bytes:
    """Return the content of the extension whose content begins at this offset."""
    return message[at : at + _u16(message, at - 2)[0]]


def two_byte_values(numbers: Collection[int]) -> bytes:
    """Encode numbers as two bytes each."""
    return pack(f">{len(numbers)}H", *numbers)


def server_name(data: bytes) -> str | None:
    """Return the host name in a server_name extension, in lower case without a trailing dot (RFC 6066, 3).

    None if it is not a host name, such as an address or `localhost:8443`: clients do send those, and they get the
    default. Raises ProtocolError for two names, and for one that is empty, has a NUL or exceeds 255 bytes.
    """
    # Fast path for the only form that clients send: a list of one host name.
    if len(data) > 5 and data[2] == _HOST_NAME and _u16(data, 3)[0] == len(data) - 5 == _u16(data)[0] - 3:
        return _host_name(data[5:])
    names = [name for kind, name in _server_names(data) if kind == _HOST_NAME]
    if len(names) > 1:
        raise ProtocolError(f"ClientHello has {len(names)} host names in server_name")
    return _host_name(names[0]) if names else None


def _server_names(data: bytes) -> list[tuple[int, bytes]]:
    names: list[tuple[int, bytes]] = []
    body, at = _vector(data, 2, "server_name"), 0
    while at < len(body):
        kind, name = body[at], _item(body, at + 1, 2, "server_name")
        names.append((kind, name))
        at += 3 + len(name)
    return names


def _host_name(data: bytes) -> str | None:
    if not 0 < len(data) <= _LONGEST_NAME or b"\0" in data:
        raise ProtocolError(f"ClientHello has a malformed server name of {len(data)} bytes: {data[:80]!r}")
    name = data.decode("latin-1").lower().removesuffix(".")
    return name if is_host_name(name) else None


def protocols(data: bytes) -> tuple[bytes, ...]:
    """Return the protocol names in an ALPN extension, as offered (RFC 7301, 3.1)."""
    body, at = _vector(data, 2, "ALPN"), 0
    names: list[bytes] = []
    while at < len(body):
        name = _item(body, at, 1, "ALPN")
        if not name:
            raise ProtocolError("ClientHello has an empty protocol name in ALPN")
        names.append(name)
        at += 1 + len(name)
    return tuple(names)


def numbers(data: bytes, width: int, what: str) -> tuple[int, ...]:
    """Return the two-byte numbers in a vector with a length prefix of `width` bytes."""
    return two_byte_numbers(number_bytes(data, width, what))


def number_bytes(data: bytes, width: int, what: str) -> bytes:
    """Return the bytes of such a vector, after checking its length."""
    body = _vector(data, width, what)
    if len(body) & 1:
        raise ProtocolError(f"ClientHello has {len(body)} bytes in {what}: expected an even number")
    return body


def two_byte_numbers(data: bytes) -> tuple[int, ...]:
    """Decode an even number of bytes as two-byte numbers."""
    return unpack(f">{len(data) // 2}H", data)


def octets(data: bytes, what: str) -> tuple[int, ...]:
    """Return the one-byte numbers in a vector with a length prefix of one byte."""
    return tuple(_vector(data, 1, what))


def key_share_groups(data: bytes) -> tuple[int, ...]:
    """Return the groups in a key_share extension, which may be empty (RFC 8446, 4.2.8)."""
    body = _item(data, 0, 2, "key_share")
    if len(body) + 2 != len(data):
        raise ProtocolError("ClientHello has bytes after key_share's list")
    groups: list[int] = []
    at = 0
    while at < len(body):
        key = _item(body, at + 2, 2, "key_share")
        if not key:
            raise ProtocolError("ClientHello has an empty key in key_share")
        groups.append(_u16(body, at)[0])
        at += 4 + len(key)
    return tuple(groups)


def _vector(data: bytes, width: int, what: str) -> bytes:
    """Return what follows a length prefix of `width` bytes: all of the data, at least one byte."""
    size = int.from_bytes(data[:width], "big")
    if len(data) != width + size or not size:
        raise ProtocolError(f"ClientHello has a malformed {what}: {len(data)} bytes for a list of {size}")
    return data[width:]


def _item(data: bytes, at: int, width: int, what: str) -> bytes:
    """Return the bytes that a length prefix of `width` bytes at offset `at` announces."""
    start = at + width
    end = start + int.from_bytes(data[at:start], "big")
    if start > len(data) or end > len(data):
        raise ProtocolError(f"ClientHello ends inside {what}")
    return data[start:end]

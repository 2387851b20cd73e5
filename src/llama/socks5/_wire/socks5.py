"""SOCKS5 messages: parses and encodes them (RFC 1928 and RFC 1929).

Each `parse_` function takes the bytes received so far and returns the message with its length in bytes, or None if
incomplete; it raises ProtocolError for invalid bytes. A message has at most 513 bytes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from llama._core.errors import ProtocolError
from llama.socks5._wire.address import Address, encode_address, parse_address

VERSION = 5
AUTH_VERSION = 1
NO_AUTH, PASSWORD, NO_METHOD = 0, 2, 0xFF
MAX_LENGTH = 513
AUTH_SUCCESS, AUTH_FAILURE = b"\x01\x00", b"\x01\x01"


class Command(IntEnum):
    """The command of a request."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class ReplyCode(IntEnum):
    """The result of a request (RFC 1928, section 6)."""

    SUCCEEDED = 0
    FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8

    @property
    def describe(self) -> str:
        """The meaning of the code, in the words of the RFC."""
        return _DESCRIPTIONS[self]


_DESCRIPTIONS = {
    ReplyCode.SUCCEEDED: "succeeded",
    ReplyCode.FAILURE: "general SOCKS server failure",
    ReplyCode.NOT_ALLOWED: "connection not allowed by ruleset",
    ReplyCode.NETWORK_UNREACHABLE: "network unreachable",
    ReplyCode.HOST_UNREACHABLE: "host unreachable",
    ReplyCode.REFUSED: "connection refused",
    ReplyCode.TTL_EXPIRED: "TTL expired",
    ReplyCode.COMMAND_NOT_SUPPORTED: "command not supported",
    ReplyCode.ADDRESS_NOT_SUPPORTED: "address type not supported",
}


class Credentials(NamedTuple):
    """A user name and a password; bytes that are not UTF-8 are kept as surrogates."""

    user: str
    password: str


class Request(NamedTuple):
    """A command number and its address."""

    command: int
    address: Address


class Reply(NamedTuple):
    """A reply code and the address that the server bound."""

    code: int
    address: Address


class Datagram(NamedTuple):
    """One datagram: its destination or source address, and its payload."""

    fragment: int
    address: Address
    data: bytes


def _version(data: bytes, expected: int, what: str) -> None:
    if data and data[0] != expected:
        raise ProtocolError(f"{what} of version {data[0]}: expected {expected}")


def parse_greeting(data: bytes) -> tuple[bytes, int] | None:
    """Parse the methods that a client offers."""
    _version(data, VERSION, "a SOCKS greeting")
    if len(data) < 2:
        return None
    end = 2 + data[1]
    return None if len(data) < end else (data[2:end], end)


def encode_greeting(methods: bytes) -> bytes:
    """Encode a client's first message."""
    return b"\x05%c%b" % (len(methods), methods)


def parse_choice(data: bytes) -> tuple[int, int] | None:
    """Parse the method that a server chose."""
    _version(data, VERSION, "a SOCKS server's choice")
    return None if len(data) < 2 else (data[1], 2)


def encode_choice(method: int) -> bytes:
    """Encode a server's first message."""
    return b"\x05%c" % method


def parse_credentials(data: bytes) -> tuple[Credentials, int] | None:
    """Parse a client's name and password (RFC 1929, section 2)."""
    _version(data, AUTH_VERSION, "SOCKS authentication")
    if len(data) < 2 or len(data) < (middle := 2 + data[1]) + 1:
        return None
    end = middle + 1 + data[middle]
    if len(data) < end:
        return None
    user, password = data[2:middle], data[middle + 1 : end]
    return Credentials(user.decode(errors="surrogateescape"), password.decode(errors="surrogateescape")), end


def encode_credentials(user: str, password: str) -> bytes:
    """Encode a client's name and password; ValueError unless each has 1 to 255 bytes."""
    parts: list[bytes] = []
    for name, text in (("user", user), ("password", password)):
        raw = text.encode(errors="surrogateescape")
        if not 0 < len(raw) <= 255:
            raise ValueError(f"the {name} has {len(raw)} bytes: SOCKS5 takes 1 to 255")
        parts.append(b"%c%b" % (len(raw), raw))
    return b"\x01" + b"".join(parts)


def parse_auth_status(data: bytes) -> tuple[int, int] | None:
    """Parse a server's reply to a name and password: 0 is success."""
    # Some servers reply with version 5 here, so the version is not checked.
    if data and data[0] not in (AUTH_VERSION, VERSION):
        _version(data, AUTH_VERSION, "a SOCKS authentication status")
    return None if len(data) < 2 else (data[1], 2)


def _parse_message(data: bytes, what: str) -> tuple[int, Address, int] | None:
    _version(data, VERSION, what)
    found = parse_address(data, 3)
    return None if found is None else (data[1], *found)


def parse_request(data: bytes) -> tuple[Request, int] | None:
    """Parse a client's request."""
    found = _parse_message(data, "a SOCKS request")
    return None if found is None else (Request(*found[:2]), found[2])


def encode_request(command: Command, host: str, port: int) -> bytes:
    """Encode a client's request; ValueError for a host that SOCKS5 cannot represent."""
    return b"\x05%c\x00%b" % (command, encode_address(host, port))


def parse_reply(data: bytes) -> tuple[Reply, int] | None:
    """Parse a server's reply to a request."""
    found = _parse_message(data, "a SOCKS reply")
    return None if found is None else (Reply(*found[:2]), found[2])


def encode_reply(code: ReplyCode, host: str = "0.0.0.0", port: int = 0) -> bytes:
    """Encode a server's reply to a request."""
    return b"\x05%c\x00%b" % (code, encode_address(host, port))


def parse_datagram(data: bytes) -> Datagram:
    """Parse a datagram with its header (RFC 1928, section 7); ProtocolError if that is truncated or malformed."""
    found = parse_address(data, 3)
    if found is None or data[:2] != b"\0\0":
        raise ProtocolError(f"a datagram with a malformed SOCKS header: {data[:16].hex()}")
    address, end = found
    return Datagram(data[2], address, data[end:])


def encode_datagram(host: str, port: int, data: bytes) -> bytes:
    """Encode a datagram with its header."""
    return b"\0\0\0%b%b" % (encode_address(host, port), data)

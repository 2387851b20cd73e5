"""SOCKS4 and SOCKS4a messages, as specified by their two memos."""

from __future__ import annotations

from typing import NamedTuple

from llama._core.errors import ProtocolError
from llama.socks5._wire.address import Address, pack, parse_name, parse_packed

VERSION = 4
CONNECT, BIND = 1, 2
GRANTED, REJECTED = 90, 91
MAX_FIELD = 255


class Socks4Request(NamedTuple):
    """A command number, its address, and the user name, which is not authenticated."""

    command: int
    address: Address
    user: bytes


def parse_request(data: bytes) -> tuple[Socks4Request, int] | None:
    """Parse a request; return it and its length in bytes, or None if incomplete.

    An address 0.0.0.x, with x from 1 to 255, means that a host name follows (4a).
    """
    if data and data[0] != VERSION:
        raise ProtocolError(f"a SOCKS request of version {data[0]}: expected 4")
    user = _field(data, 8, "user name")
    if user is None:
        return None
    end = 9 + len(user)
    raw = data[4:8]
    if raw[:3] == b"\0\0\0" and raw[3]:
        name = _field(data, end, "host name")
        if name is None:
            return None
        end += len(name) + 1
        host = parse_name(name)
    else:
        host = parse_packed(raw)
    return Socks4Request(data[1], Address(host, int.from_bytes(data[2:4], "big")), user), end


def _field(data: bytes, start: int, what: str) -> bytes | None:
    end = data.find(b"\0", start)
    if (len(data) if end < 0 else end) - start > MAX_FIELD:
        raise ProtocolError(f"a SOCKS4 {what} of more than {MAX_FIELD} bytes")
    return None if end < 0 else data[start:end]


def encode_reply(code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    """Encode a server's reply; an address other than IPv4 is sent as 0.0.0.0."""
    packed = pack(host) or b""
    return b"\0%c%b%b" % (code, port.to_bytes(2, "big"), packed if len(packed) == 4 else bytes(4))

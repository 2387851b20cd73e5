"""Parser and encoder of the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt).

The header precedes a connection's own bytes and names the original client. Only a trusted peer may send one, and
it must: an optional header would let any client choose its address.
"""

import ipaddress
from dataclasses import dataclass
from struct import Struct, error
from typing import Final, Literal, TypeAlias

from llama._core.errors import ProtocolError, TooLargeError
from llama.tcp._proxy_protocol.tlv import ProxySSL, Tlv, TlvType, decode_text, decode_tlvs, encode_tlvs, seal

Family: TypeAlias = Literal["tcp4", "tcp6", "udp4", "udp6", "unix", "unix-datagram", "unspecified"]
"""The address family of a header: `unspecified` has no addresses."""

Address: TypeAlias = tuple[str, int] | str
"""An IP address and a port, or the path of a Unix socket (abstract if it starts with NUL)."""

V2_LIMIT: Final = 4096
"""The default limit for a version 2 header, in bytes."""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V1_LIMIT = 107
_V1_START = b"PROXY "
_V1_FAMILIES: dict[str, Family] = {"TCP4": "tcp4", "TCP6": "tcp6"}
_V2_START = 16
_LOCAL, _PROXY = 0x20, 0x21
_PATH = 108

_FAMILIES: dict[int, Family] = {
    0x00: "unspecified",
    0x11: "tcp4",
    0x12: "udp4",
    0x21: "tcp6",
    0x22: "udp6",
    0x31: "unix",
    0x32: "unix-datagram",
}
_CODES: dict[Family, int] = {family: code for code, family in _FAMILIES.items()}
_start = Struct(">12sBBH")
_ip4 = Struct(">4s4sHH")
_ip6 = Struct(">16s16sHH")
_unix = Struct(f"{_PATH}s{_PATH}s")


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """The original source and destination of a connection.

    Command `local` means a connection of the proxy itself, such as a health check: the connection's own addresses
    apply, as they do for the family `unspecified`. Parsed IPv6 addresses are in their shortest form.
    """

    command: Literal["local", "proxy"] = "local"
    family: Family = "unspecified"
    source: Address | None = None
    destination: Address | None = None
    tlvs: tuple[Tlv, ...] = ()
    """Further information, as (type, content) in the order received, without checksum and padding."""

    def __post_init__(self) -> None:
        addresses = 0 if self.family == "unspecified" else 2
        if (self.source is not None) + (self.destination is not None) != addresses:
            raise ValueError(f"a PROXY header for {self.family} has {addresses} addresses")
        if self.command == "local" and (addresses or self.tlvs):
            raise ValueError("a PROXY header for a local connection has neither addresses nor TLVs")

    @classmethod
    def between(cls, source: Address | None, destination: Address | None, *tlvs: Tlv) -> "ProxyHeader":
        """Return the header of a TCP or Unix connection; if only one address is IPv4, it is mapped into IPv6.

        If an address is missing, or only one is a path, the family is `unspecified`.
        """
        if isinstance(source, str) and isinstance(destination, str):
            return cls("proxy", "unix", source, destination, tlvs)
        if not isinstance(source, tuple) or not isinstance(destination, tuple):
            return cls("proxy", "unspecified", tlvs=tlvs)
        if ":" not in source[0] and ":" not in destination[0]:
            return cls("proxy", "tcp4", source, destination, tlvs)
        return cls("proxy", "tcp6", _mapped(source), _mapped(destination), tlvs)

    def encode_v1(self) -> bytes:
        """Encode as a line of text: UNKNOWN for anything but TCP. Raises ValueError if there are TLVs."""
        if self.tlvs:
            raise ValueError("version 1 of the PROXY protocol has no TLVs")
        if self.family not in ("tcp4", "tcp6"):
            return b"PROXY UNKNOWN\r\n"
        source, destination = _ip(self.source, self.family), _ip(self.destination, self.family)
        line = f"PROXY {self.family.upper()} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n"
        return line.encode("ascii")

    def encode_v2(self, *, checksum: bool = False) -> bytes:
        """Encode in binary form, with an optional CRC-32C. Raises ValueError if it cannot be encoded."""
        body = _encode_addresses(self) + encode_tlvs(self.tlvs, checksum)
        if len(body) > 0xFFFF:
            raise ValueError(f"a PROXY header of {len(body)} bytes: at most 65535 fit")
        command = _LOCAL if self.command == "local" else _PROXY
        head = _start.pack(SIGNATURE, command, _CODES[self.family], len(body))
        return seal(head + body) if checksum else head + body

    def get(self, kind: int) -> bytes | None:
        """Return the content of the first TLV of a type, or None."""
        return next((content for own, content in self.tlvs if own == kind), None)

    @property
    def alpn(self) -> bytes | None:
        """The application protocol that was negotiated."""
        return self.get(TlvType.ALPN)

    @property
    def authority(self) -> str | None:
        """The host name that the client requested, as sent by the proxy."""
        return self._text(TlvType.AUTHORITY)

    @property
    def unique_id(self) -> bytes | None:
        """The proxy's unique identifier of the connection, at most 128 bytes."""
        return self.get(TlvType.UNIQUE_ID)

    @property
    def netns(self) -> str | None:
        """The name of the network namespace."""
        return self._text(TlvType.NETNS)

    @property
    def ssl(self) -> ProxySSL | None:
        """The information about the client's TLS, or None if the proxy sent none."""
        content = self.get(TlvType.SSL)
        return None if content is None else ProxySSL.decode(content)

    def _text(self, kind: int) -> str | None:
        content = self.get(kind)
        return None if content is None else decode_text(content)


def parse(data: bytes | bytearray | memoryview, limit: int = V2_LIMIT) -> tuple[ProxyHeader, int] | None:
    """Parse the header in a connection's first bytes; returns it and its length, or None if bytes are missing.

    Raises ProtocolError at the first byte that does not belong to a PROXY header, and TooLargeError for a version 2
    header of more than `limit` bytes. While the header is incomplete, a call examines at most 107 bytes.
    """
    head = bytes(data[:_V1_LIMIT])
    if head[:1] == b"\r":
        _check_start(head, SIGNATURE)
        return _parse_v2(data, limit) if len(data) >= _V2_START else None
    _check_start(head, _V1_START)
    return _parse_v1(head)


def _check_start(head: bytes, start: bytes) -> None:
    size = min(len(head), len(start))
    if head[:size] != start[:size]:
        raise ProtocolError(f"not a PROXY protocol header: first bytes 0x{head[:12].hex()}")


def _parse_v1(head: bytes) -> tuple[ProxyHeader, int] | None:
    end = head.find(b"\n")
    if end < 0:
        if len(head) >= _V1_LIMIT:
            raise ProtocolError(f"a PROXY line without an end within {_V1_LIMIT} bytes")
        return None
    line = head[: end + 1]
    try:
        return _v1_header(line.decode("latin-1")), len(line)
    except ValueError as problem:
        raise ProtocolError(f"a malformed PROXY line {line!r}: {problem}") from None


def _v1_header(line: str) -> ProxyHeader:
    if not line.endswith("\r\n"):
        raise ValueError("it does not end in CR LF")
    words = line[:-2].split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader("proxy")  # the specification says to ignore the rest of the line
    family = _V1_FAMILIES.get(words[1])
    if family is None or len(words) != 6:
        raise ValueError("expected TCP4 or TCP6, two addresses and two ports, or UNKNOWN")
    _, _, source, destination, source_port, destination_port = words
    return ProxyHeader(
        "proxy",
        family,
        _ip((source, _port(source_port)), family),
        _ip((destination, _port(destination_port)), family),
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and str(int(text)) == text):
        raise ValueError(f"{text!r} is not a port")
    return int(text)


def _parse_v2(data: bytes | bytearray | memoryview, limit: int) -> tuple[ProxyHeader, int] | None:
    _, command, code, length = _start.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ProtocolError(f"PROXY version and command 0x{command:02x}: expected 0x20 or 0x21")
    size = _V2_START + length
    if size > limit:
        raise TooLargeError(f"a PROXY header of {size} bytes: the limit is {limit}")
    if len(data) < size:
        return None
    if command == _LOCAL:
        return (
            ProxyHeader(),
            size,
        )  # the specification says to ignore the rest of the header, including its family
    family = _FAMILIES.get(code)
    if family is None:
        raise ProtocolError(f"PROXY family and transport 0x{code:02x} are not known")
    return _v2_header(bytes(data[:size]), family), size


def _v2_header(header: bytes, family: Family) -> ProxyHeader:
    try:
        source, destination, at = _decode_addresses(header, family)
    except error:
        raise ProtocolError(f"a PROXY header for {family} ends inside its addresses") from None
    return ProxyHeader("proxy", family, source, destination, decode_tlvs(header, at))


def _decode_addresses(header: bytes, family: Family) -> tuple[Address | None, Address | None, int]:
    if family == "unspecified":
        return None, None, _V2_START
    if family in ("unix", "unix-datagram"):
        paths = _unix.unpack_from(header, _V2_START)
        return _read_path(paths[0]), _read_path(paths[1]), _V2_START + _unix.size
    layout = _ip4 if family in ("tcp4", "udp4") else _ip6
    source_ip, destination_ip, source_port, destination_port = layout.unpack_from(header, _V2_START)
    return (
        (str(ipaddress.ip_address(source_ip)), source_port),
        (str(ipaddress.ip_address(destination_ip)), destination_port),
        _V2_START + layout.size,
    )


def _encode_addresses(header: ProxyHeader) -> bytes:
    if header.family == "unspecified":
        return b""
    if header.family in ("unix", "unix-datagram"):
        return _unix.pack(_path(header.source), _path(header.destination))
    source, destination = _ip(header.source, header.family), _ip(header.destination, header.family)
    layout = _ip4 if header.family in ("tcp4", "udp4") else _ip6
    return layout.pack(_packed(source), _packed(destination), source[1], destination[1])


def _packed(address: tuple[str, int]) -> bytes:
    return ipaddress.ip_address(address[0]).packed


def _ip(address: Address | None, family: Family) -> tuple[str, int]:
    """Return the normalized address, after checking that it belongs to the family."""
    if not isinstance(address, tuple):
        raise ValueError(f"{address!r} is not an address of family {family}")
    host, port = address
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
    if "%" in host:
        raise ValueError(f"{host!r} has a zone, which is meaningless on another host")
    kind = ipaddress.IPv4Address if family in ("tcp4", "udp4") else ipaddress.IPv6Address
    return str(kind(host)), port


def _mapped(address: tuple[str, int]) -> tuple[str, int]:
    host, port = address
    host = host.partition("%")[0]
    return (host if ":" in host else str(ipaddress.IPv6Address(f"::ffff:{host}"))), port


def _path(address: Address | None) -> bytes:
    if not isinstance(address, str):
        raise ValueError(f"{address!r} is not a path of a Unix socket")
    path = address.encode("utf-8", "surrogateescape")
    if len(path) > _PATH or _read_path(path) != address:
        raise ValueError(
            f"{address!r} is not a path of a Unix socket: expected at most {_PATH} bytes, and NUL only as the first"
        )
    return path


def _read_path(data: bytes) -> str:
    """Decode a path, which ends at NUL; an abstract one starts with NUL, and ends where only padding follows."""
    path = data.rstrip(b"\0") if data[:1] == b"\0" else data.partition(b"\0")[0]
    return path.decode("utf-8", "surrogateescape")

"""The type-length-value fields after the addresses of a PROXY header, and its checksum."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, TypeAlias

from llama._core.errors import ProtocolError

Tlv: TypeAlias = tuple[int, bytes]
"""A type and its content."""


class TlvType(IntEnum):
    """The types that the PROXY protocol defines; 0xE0 to 0xEF are reserved for applications."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_SIG_ALG = 0x24
    SSL_KEY_ALG = 0x25
    SSL_GROUP = 0x26
    SSL_SIG_SCHEME = 0x27
    SSL_CLIENT_CERT = 0x28
    NETNS = 0x30


_MAX_UNIQUE_ID = 128
_ssl_start = Struct(">BI")
_tlv_start = Struct(">BH")

_OVER_TLS, _CERT_NOW, _CERT_IN_SESSION = 1, 2, 4
_TEXTS: Final = {
    TlvType.SSL_VERSION: "version",
    TlvType.SSL_CN: "common_name",
    TlvType.SSL_CIPHER: "cipher",
    TlvType.SSL_SIG_ALG: "signature_algorithm",
    TlvType.SSL_KEY_ALG: "key_algorithm",
    TlvType.SSL_GROUP: "group",
    TlvType.SSL_SIG_SCHEME: "signature_scheme",
}


@dataclass(frozen=True, slots=True)
class ProxySSL:
    """The TLS information of a PROXY header, about the connection between the client and the proxy."""

    tls: bool = True
    """Whether the client used TLS."""
    certificate_now: bool = False
    """Whether the client sent a certificate on this connection."""
    certificate_in_session: bool = False
    """Whether the client sent one in the TLS session, perhaps on an earlier connection."""
    verified: bool = False
    """Whether the client sent a certificate and the proxy verified it."""
    version: str | None = None
    """The TLS version, as `TLSv1.3`."""
    common_name: str | None = None
    """The common name of the client's certificate."""
    cipher: str | None = None
    signature_algorithm: str | None = None
    """The signature algorithm of the proxy's certificate."""
    key_algorithm: str | None = None
    """The key algorithm of the proxy's certificate, as `EC256`."""
    group: str | None = None
    signature_scheme: str | None = None
    client_certificate: bytes | None = None
    """The client's certificate, in DER."""

    def encode(self) -> bytes:
        """Return the content of the TLV."""
        client = (
            self.tls * _OVER_TLS
            | self.certificate_now * _CERT_NOW
            | self.certificate_in_session * _CERT_IN_SESSION
        )
        texts = ((kind, getattr(self, name)) for kind, name in _TEXTS.items())
        tlvs = [(int(kind), str(text).encode("utf-8")) for kind, text in texts if text is not None]
        if self.client_certificate is not None:
            tlvs.append((TlvType.SSL_CLIENT_CERT, self.client_certificate))
        return _ssl_start.pack(client, 0 if self.verified else 1) + _join(tlvs)

    @classmethod
    def decode(cls, content: bytes) -> "ProxySSL":
        """Parse the content of the TLV; unknown types are skipped."""
        if len(content) < _ssl_start.size:
            raise ProtocolError(f"a PROXY TLV for SSL has {len(content)} bytes: expected 5 or more")
        client, verify = _ssl_start.unpack_from(content)
        inner = dict(_split(content, _ssl_start.size, "PROXY TLV for SSL"))
        texts = {name: decode_text(inner[kind]) for kind, name in _TEXTS.items() if kind in inner}
        return cls(
            tls=bool(client & _OVER_TLS),
            certificate_now=bool(client & _CERT_NOW),
            certificate_in_session=bool(client & _CERT_IN_SESSION),
            # A proxy that requested no certificate sends zero too.
            verified=verify == 0 and bool(client & (_CERT_NOW | _CERT_IN_SESSION)),
            client_certificate=inner.get(TlvType.SSL_CLIENT_CERT),
            **texts,
        )


def decode_text(content: bytes) -> str:
    """Decode UTF-8, which the protocol requires; raises ProtocolError."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError(f"a PROXY TLV is not UTF-8: {content[:80]!r}") from None


def decode_tlvs(header: bytes, at: int) -> tuple[Tlv, ...]:
    """Return the TLVs from an offset to the header's end, after checking their contents and the checksum.

    The result does not include padding and the checksum.
    """
    kept: list[Tlv] = []
    checksum: int | None = None
    for kind, content in _split(header, at, "PROXY header"):
        if kind == TlvType.CRC32C:
            if checksum is not None:
                raise ProtocolError("a PROXY header with two checksums")
            checksum = at + 3
            _verify(header, checksum, content)
        elif kind != TlvType.NOOP:
            _check(kind, content)
            kept.append((kind, content))
        at += 3 + len(content)
    return tuple(kept)


def _check(kind: int, content: bytes) -> None:
    if kind in (TlvType.AUTHORITY, TlvType.NETNS):
        decode_text(content)
    elif kind == TlvType.SSL:
        ProxySSL.decode(content)
    elif kind == TlvType.UNIQUE_ID and len(content) > _MAX_UNIQUE_ID:
        raise ProtocolError(f"a PROXY TLV with a unique id of {len(content)} bytes: at most {_MAX_UNIQUE_ID}")


def _verify(header: bytes, at: int, content: bytes) -> None:
    if len(content) != 4:
        raise ProtocolError(f"a PROXY TLV with a checksum of {len(content)} bytes: expected 4")
    if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != int.from_bytes(content, "big"):
        raise ProtocolError("the checksum of a PROXY header is wrong")


def _split(data: bytes, at: int, what: str) -> list[Tlv]:
    found: list[Tlv] = []
    while at < len(data):
        start = at + 3
        end = start + int.from_bytes(data[at + 1 : start], "big")
        if start > len(data) or end > len(data):
            raise ProtocolError(f"a {what} ends inside a TLV of type 0x{data[at]:02x}")
        found.append((data[at], data[start:end]))
        at = end
    return found


def _join(tlvs: Iterable[Tlv]) -> bytes:
    parts: list[bytes] = []
    for kind, content in tlvs:
        if len(content) > 0xFFFF:
            raise ValueError(f"a PROXY TLV of {len(content)} bytes: at most 65535 fit")
        parts.append(_tlv_start.pack(kind, len(content)) + content)
    return b"".join(parts)


def encode_tlvs(tlvs: Iterable[Tlv], checksum: bool) -> bytes:
    """Encode the TLVs; with `checksum` the last one is space for it (see `seal`)."""
    own = list(tlvs)
    if any(kind == TlvType.CRC32C for kind, _ in own):
        raise ValueError("a checksum cannot be passed as a TLV: use checksum=True")
    return _join([*own, (TlvType.CRC32C, bytes(4))] if checksum else own)


def seal(header: bytes) -> bytes:
    """Fill in the checksum of a header that ends in space for one."""
    return header[:-4] + crc32c(header).to_bytes(4, "big")


def _crc32c_of(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C = tuple(_crc32c_of(byte) for byte in range(256))


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli; RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF

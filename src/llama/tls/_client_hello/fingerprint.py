"""JA3 and JA4 of a ClientHello, from its fields.

JA3 is the MD5 of the fields in the order sent; browsers shuffle extensions, so one browser has many JA3 hashes.
JA4 sorts the shuffled lists, and its first part is readable: `t13d1516h2` means TLS over TCP, version 1.3, a
server name, 15 cipher suites, 16 extensions, `h2` first in ALPN. Both leave out GREASE values (RFC 8701).
"""

from collections.abc import Iterable
from hashlib import md5, sha256

GREASE = frozenset(0x0A0A + step * 0x1010 for step in range(16))
"""The reserved values of RFC 8701, which clients send so that servers keep ignoring unknown values."""

_GREASE_HEX = frozenset(f"{value:04x}" for value in GREASE)
_SERVER_NAME, _ALPN = "0000", "0010"
_SHOWN_IN_HEAD = (_SERVER_NAME, _ALPN)
_NOTHING = "000000000000"
_VERSIONS = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
    0xFEFF: "d1",
    0xFEFD: "d2",
    0xFEFC: "d3",
}


def ja3_text(
    version: int,
    cipher_suites: Iterable[int],
    extensions: Iterable[int],
    groups: Iterable[int],
    point_formats: Iterable[int],
) -> str:
    """Return the input of a JA3 hash: five comma-separated fields of hyphen-separated decimals, in the order sent."""
    return (
        f"{version},{_decimal(cipher_suites)},{_decimal(extensions)},"
        f"{_decimal(groups)},{'-'.join(map(str, point_formats))}"
    )


def ja3_hash(text: str) -> str:
    """Return the JA3 hash of the text that `ja3_text` returns: 32 hex digits."""
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def ja4_texts(
    transport: str,
    version: int,
    cipher_suites: bytes,
    extensions: bytes,
    alpn: bytes,
    signature_algorithms: bytes,
) -> tuple[str, str, str]:
    """Return the three parts of the raw JA4, before hashing (`JA4_r`).

    The lists are two-byte values as sent, `extensions` their types only; `alpn` is the first protocol offered,
    empty if there is none.
    """
    ciphers = _hexes(cipher_suites)
    kinds = _hexes(extensions)
    algorithms = _hexes(signature_algorithms)
    head = (
        f"{transport}{_VERSIONS.get(version, '00')}{'d' if _SERVER_NAME in kinds else 'i'}"
        f"{min(len(ciphers), 99):02}{min(len(kinds), 99):02}{_ends(alpn)}"
    )
    ciphers.sort()
    kinds.sort()
    tail = ",".join([kind for kind in kinds if kind not in _SHOWN_IN_HEAD])
    return head, ",".join(ciphers), f"{tail}_{','.join(algorithms)}" if algorithms else tail


def ja4_hash(head: str, ciphers: str, extensions: str) -> str:
    """Return the JA4 fingerprint for the parts that `ja4_texts` returns."""
    return f"{head}_{_short_hash(ciphers)}_{_short_hash(extensions)}"


def _short_hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else _NOTHING


def _decimal(values: Iterable[int]) -> str:
    return "-".join([str(value) for value in values if value not in GREASE])


def _hexes(values: bytes) -> list[str]:
    if not values:
        return []
    return [value for value in values.hex(",", 2).split(",") if value not in _GREASE_HEX]


def _ends(protocol: bytes) -> str:
    if not protocol:
        return "00"
    first, last = protocol[:1], protocol[-1:]
    if first.isalnum() and last.isalnum():
        return (first + last).decode("ascii")
    text = protocol.hex()
    return text[0] + text[-1]

"""JA3 and JA4 of a ClientHello, from its fields.

JA3 is the MD5 of the fields in the order sent; browsers shuffle extensions, so one browser has many. JA4
sorts what is shuffled, and its first part can be read: `t13d1516h2` is TLS over TCP, version 1.3, with a
domain, 15 cipher suites, 16 extensions, `h2` first in ALPN. Both leave GREASE values (RFC 8701) out.
"""

from collections.abc import Iterable
from hashlib import md5, sha256

GREASE = frozenset(0x0A0A + step * 0x1010 for step in range(16))
"""The values of RFC 8701 that clients send so that servers keep ignoring what they do not know."""

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
    """The text under a JA3: five fields by commas, decimal numbers by hyphens, in the order sent."""
    return (
        f"{version},{_decimal(cipher_suites)},{_decimal(extensions)},"
        f"{_decimal(groups)},{'-'.join(map(str, point_formats))}"
    )


def ja3_hash(text: str) -> str:
    """The JA3 itself: 32 hex digits."""
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def ja4_texts(
    transport: str,
    version: int,
    cipher_suites: bytes,
    extensions: bytes,
    alpn: bytes,
    signature_algorithms: bytes,
) -> tuple[str, str, str]:
    """The three parts of the raw JA4, before hashing (`JA4_r`).

    Lists are two-byte values as sent, extensions by type alone; `alpn` is the first protocol offered, if any.
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
    """The JA4 itself, of the parts that `ja4_texts` gives."""
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

"""QUIC packets without a connection: parsing, address validation tokens and stateless resets (RFC 9000)."""

from __future__ import annotations

import hmac
import os
import time
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ID_LENGTH = 8
TOKEN_LIFE = 30
SMALLEST_RESET = 21
RESET_SIZE = 43
RESETS = 100  # per second
SETTLE = (
    2.0  # seconds without resets after the start, while an earlier process may still serve its connections
)


class LongHeader(NamedTuple):
    """The unprotected part of a long header."""

    version: int
    destination: bytes
    source: bytes
    is_initial: bool
    token: bytes


def destination_of(data: bytes) -> bytes | None:
    """Return the destination connection id of a packet; None if it is not a QUIC packet."""
    if not data:
        return None
    if not data[0] & 0x80:
        return data[1 : 1 + ID_LENGTH] if len(data) > ID_LENGTH else None
    if len(data) < 7:
        return None
    return data[6 : 6 + data[5]]


def long_header(data: bytes) -> LongHeader | None:
    """Parse a long header (RFC 9000 section 17.2). Returns None for other packets and for malformed ones."""
    try:
        if not data[0] & 0x80:
            return None
        at = 6 + data[5]
        destination, length = data[6:at], data[at]
        source = data[at + 1 : at + 1 + length]
        at += 1 + length
        version = int.from_bytes(data[1:5], "big")
        if data[5] > 20 or length > 20 or len(source) != length:
            return None
        is_initial = version == 1 and data[0] & 0x30 == 0
        token = _token(data, at) if is_initial else b""
    except IndexError:
        return None
    return LongHeader(version, destination, source, is_initial, token)


def _token(data: bytes, at: int) -> bytes:
    size = 1 << (data[at] >> 6)
    length = int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
    return data[at + size : at + size + length]


class Tokens:
    """Creates and verifies the tokens of Retry packets, which are valid for 30 seconds and for one address."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(hmac.digest(secret, b"retry", "sha256"))

    def make(self, address: tuple[str, int], original: bytes, source: bytes) -> bytes:
        """Return a token for a client that first wrote to `original` and must now write to `source`."""
        nonce = os.urandom(12)
        text = int(time.monotonic()).to_bytes(8, "big") + bytes([len(original)]) + original + source
        return nonce + self._cipher.encrypt(nonce, text, _where(address))

    def read(self, address: tuple[str, int], token: bytes) -> tuple[bytes, bytes] | None:
        """Return both ids, or None if the token is invalid, too old or for another address."""
        try:
            text = self._cipher.decrypt(token[:12], token[12:], _where(address))
        except (InvalidTag, ValueError):
            return None
        if time.monotonic() - int.from_bytes(text[:8], "big") > TOKEN_LIFE:
            return None
        size = text[8]
        return text[9 : 9 + size], text[9 + size :]


class Resets:
    """Stateless resets (RFC 9000 section 10.3), for the first id of each connection.

    A token is also bound to the client's address: clients with an empty id choose the server's id, and could
    otherwise learn the tokens of other clients.
    """

    def __init__(self, secret: bytes, now: float) -> None:
        self._key = hmac.digest(secret, b"reset", "sha256")
        self._left = float(RESETS)
        self._seen = self._begins = now + SETTLE

    def token(self, number: bytes, address: tuple[str, int]) -> bytes:
        """Return the stateless reset token of a connection id, which the server sends to its client."""
        return hmac.digest(self._key, bytes([len(number)]) + number + _where(address), "sha256")[:16]

    def answer(self, data: bytes, number: bytes, address: tuple[str, int], now: float) -> bytes | None:
        """Return a stateless reset for a packet with an unknown id; None if it is too short or over the rate limit.

        The reset is shorter than the packet, so that two endpoints that lost their state do not loop.
        """
        size = min(len(data) - 1, RESET_SIZE)
        if now < self._begins or size < SMALLEST_RESET:
            return None
        self._left = min(self._left + (now - self._seen) * RESETS, RESETS)
        self._seen = now
        if self._left < 1:
            return None
        self._left -= 1
        noise = os.urandom(size - 16)
        return bytes([noise[0] & 0x3F | 0x40]) + noise[1:] + self.token(number, address)


def _where(address: tuple[str, int]) -> bytes:
    return f"{address[0]} {address[1]}".encode()

"""QUIC packets of nobody yet: whom they are for, tokens that prove where a client is, and resets (RFC 9000)."""

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
RESETS = 100  # in a second
SETTLE = 2.0  # seconds in which an earlier process may still take care of its connections


class LongHeader(NamedTuple):
    """What the unprotected part of a long header says."""

    version: int
    destination: bytes
    source: bytes
    is_initial: bool
    token: bytes


def destination_of(data: bytes) -> bytes | None:
    """The connection id that a packet is for; None for what is no QUIC packet."""
    if not data:
        return None
    if not data[0] & 0x80:
        return data[1 : 1 + ID_LENGTH] if len(data) > ID_LENGTH else None
    if len(data) < 7:
        return None
    return data[6 : 6 + data[5]]


def long_header(data: bytes) -> LongHeader | None:
    """Read a long header (RFC 9000 section 17.2); None for other packets and for what is malformed."""
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
    """Makes and reads the tokens of Retry packets; they are good for half a minute, from one address."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(hmac.digest(secret, b"retry", "sha256"))

    def make(self, address: tuple[str, int], original: bytes, source: bytes) -> bytes:
        """A token for a client that first wrote to `original` and is told to write to `source`."""
        nonce = os.urandom(12)
        text = int(time.monotonic()).to_bytes(8, "big") + bytes([len(original)]) + original + source
        return nonce + self._cipher.encrypt(nonce, text, _where(address))

    def read(self, address: tuple[str, int], token: bytes) -> tuple[bytes, bytes] | None:
        """Both ids, or None for a token that is not ours, too old or from elsewhere."""
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

    Its token is bound to the client's address as well: clients with an empty id choose what becomes ours, and
    could learn the tokens of others otherwise.
    """

    def __init__(self, secret: bytes, now: float) -> None:
        self._key = hmac.digest(secret, b"reset", "sha256")
        self._left = float(RESETS)
        self._seen = self._begins = now + SETTLE

    def token(self, number: bytes, address: tuple[str, int]) -> bytes:
        """What the client of a connection is told."""
        return hmac.digest(self._key, bytes([len(number)]) + number + _where(address), "sha256")[:16]

    def answer(self, data: bytes, number: bytes, address: tuple[str, int], now: float) -> bytes | None:
        """The answer to a packet for an id that nobody knows; None where it is not due.

        It is smaller than what it answers, so that two sides that have both forgotten do not go on for ever.
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

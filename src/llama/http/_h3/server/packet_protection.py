"""Protection of 1-RTT packets (RFC 9001 section 5), to read and extend packets outside the QUIC library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import ECB
from qh3.quic.crypto import derive_key_iv_hp
from qh3.tls import CipherSuite, cipher_suite_hash, hkdf_expand_label

SAMPLE = 16
GUESSES = 1 << 16  # decryption attempts per connection to find the upper bits of packet numbers
VERSION = 1
_Key: TypeAlias = tuple[AESGCM | ChaCha20Poly1305, int]


class Opened(NamedTuple):
    """A packet without its protection."""

    number: int
    header: bytes
    payload: bytes


class PacketKeys:
    """The keys of one direction. Key updates are announced with `update`."""

    def __init__(self, suite: CipherSuite, secret: bytes, id_length: int) -> None:
        """`id_length` is the length of the destination connection ids."""
        self._suite = suite
        self._secret = secret
        self._id_length = id_length
        self._mask = _header_mask(
            suite, derive_key_iv_hp(cipher_suite=suite, secret=secret, version=VERSION)[2]
        )
        self._keys: tuple[_Key | None, _Key, _Key] = (None, self._key(secret), self._key(self._next(secret)))
        """The previous, the current and the next keys."""
        self._phase = 0
        self._expected = 0
        self._guesses = GUESSES

    def _next(self, secret: bytes) -> bytes:
        return hkdf_expand_label(cipher_suite_hash(self._suite), secret, b"quic ku", b"", len(secret))

    def _key(self, secret: bytes) -> _Key:
        key, iv, _ = derive_key_iv_hp(cipher_suite=self._suite, secret=secret, version=VERSION)
        is_chacha = self._suite == CipherSuite.CHACHA20_POLY1305_SHA256
        return (ChaCha20Poly1305(key) if is_chacha else AESGCM(key)), int.from_bytes(iv, "big")

    def update(self) -> None:
        """Switch to the next keys (RFC 9001 section 6)."""
        self._secret = self._next(self._secret)
        self._keys = (self._keys[1], self._keys[2], self._key(self._next(self._secret)))
        self._phase ^= 1

    def open(self, packet: bytes, count: int) -> Opened | None:
        """Decrypt a packet; return None if it is not valid.

        The packet has only the lower bits of its number. `count` is the approximate number of packets sent in this
        direction, which bounds the upper bits.
        """
        at = 1 + self._id_length
        sample = packet[at + 4 : at + 4 + SAMPLE]
        if len(sample) < SAMPLE or packet[0] & 0x80:
            return None
        mask = self._mask(sample)
        first = packet[0] ^ (mask[0] & 0x1F)
        end = at + (first & 3) + 1
        number = bytes(a ^ b for a, b in zip(packet[at:end], mask[1:5], strict=False))
        header = bytes([first]) + packet[1:at] + number
        keys = self._keys[1:2] if first >> 2 & 1 == self._phase else (self._keys[0], self._keys[2])
        for candidate in self._numbers(int.from_bytes(number, "big"), 8 * len(number), count):
            for key in filter(None, keys):
                try:
                    payload = key[0].decrypt(_nonce(key[1], candidate), packet[end:], header)
                except InvalidTag:
                    continue
                self._expected = max(self._expected, candidate + 1)
                return Opened(candidate, header, payload)
        return None

    def _numbers(self, lower: int, bits: int, count: int) -> Iterator[int]:
        """Packet numbers with these lower bits, the most likely first (RFC 9000 appendix A.3)."""
        window = 1 << bits
        nearest = (self._expected & -window) | lower
        if nearest > self._expected + window // 2 and nearest >= window:
            nearest -= window
        elif nearest <= self._expected - window // 2:
            nearest += window
        yield nearest
        while nearest < count + window and self._guesses:
            self._guesses -= 1
            nearest += window
            yield nearest

    def seal(self, packet: Opened, payload: bytes) -> bytes:
        """Encrypt another payload under the header of a packet, which must not be sent itself."""
        header = bytearray(packet.header)
        at = 1 + self._id_length
        key = self._keys[1]
        if header[0] >> 2 & 1 != self._phase:
            key = self._keys[0] or self._keys[2]
        body = key[0].encrypt(_nonce(key[1], packet.number), payload, packet.header)
        start = 4 - (len(header) - at)
        mask = self._mask(body[start : start + SAMPLE])
        header[0] ^= mask[0] & 0x1F
        for index in range(at, len(header)):
            header[index] ^= mask[1 + index - at]
        return bytes(header) + body


def _nonce(iv: int, number: int) -> bytes:
    return (iv ^ number).to_bytes(12, "big")


def _header_mask(suite: CipherSuite, key: bytes) -> Callable[[bytes], bytes]:
    """Return a function that computes a header mask from a packet's sample (RFC 9001 section 5.4)."""
    if suite == CipherSuite.CHACHA20_POLY1305_SHA256:
        return lambda sample: Cipher(ChaCha20(key, sample), None).encryptor().update(bytes(5))
    encryptor = Cipher(AES(key), ECB()).encryptor()  # noqa: S305 - as the RFC has it, one block at a time
    return encryptor.update

"""Joins a connection's first TLS records into one handshake message, and rejects everything else."""

from struct import Struct
from typing import Final

from llama._core.errors import ProtocolError, TooLargeError
from llama.tls._client_hello.diagnose import describe_message, describe_record, describe_start, http_method

_MESSAGE_HEADER = 4
HELLO_LIMIT: Final = _MESSAGE_HEADER + 131_396
"""Maximum size of a ClientHello without its record headers, the same as in OpenSSL."""

_RECORD_LIMIT = 16384
_RECORD_HEADER = 5
_HANDSHAKE, _CLIENT_HELLO, _ALERT = 22, 1, 21
_CHANGE_CIPHER_SPEC, _APPLICATION_DATA = 20, 23
_MAJOR = 3

UNEXPECTED_MESSAGE, RECORD_OVERFLOW, PROTOCOL_VERSION = 10, 22, 70

_u16 = Struct(">H").unpack_from


class BadRecord(ProtocolError):
    """Bytes that do not begin a TLS session.

    `alert` is the alert to answer with, None if the peer would not understand one. `http_method` is the method of
    a plain HTTP request, as far as it has arrived.
    """

    def __init__(self, reason: str, alert: int | None = None, http_method: bytes = b"") -> None:
        super().__init__(reason)
        self.alert = alert
        self.http_method = http_method


class RecordReader:
    """Reads records until they hold a ClientHello (RFC 8446, 5.1), and reads each byte once."""

    __slots__ = ("_limit", "_message", "_pending")

    def __init__(self, limit: int = HELLO_LIMIT) -> None:
        self._limit = limit
        self._message = bytearray()
        self._pending = bytearray()  # an incomplete record

    def feed(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """Add the next bytes; return the handshake message once it is complete, else None."""
        pending = self._pending
        pending += data
        at, end = 0, len(pending)
        while end - at >= _RECORD_HEADER:
            size = self._record_size(at)
            if size == 0 or end - at < size:
                break
            self._message += pending[at + _RECORD_HEADER : at + size]
            at += size
            if self._is_whole():
                return bytes(self._message)
        del pending[:at]
        return None

    def _record_size(self, at: int) -> int:
        """Return the size of the record at this offset with its header; 0 if more bytes are needed."""
        pending = self._pending
        kind, major = pending[at], pending[at + 1]
        if kind != _HANDSHAKE or major != _MAJOR:
            if self._message:
                raise BadRecord(describe_record(kind), UNEXPECTED_MESSAGE)
            if kind == _ALERT and major == _MAJOR and len(pending) < 7:
                return 0
            head = bytes(pending[at : at + 7])
            raise BadRecord(describe_start(head), _start_alert(kind, major), http_method(head))
        length: int = _u16(pending, at + 3)[0]
        if not 0 < length <= _RECORD_LIMIT:
            reason = f"a TLS record of {length} bytes: expected 1 to {_RECORD_LIMIT}"
            raise BadRecord(reason, RECORD_OVERFLOW if length else UNEXPECTED_MESSAGE)
        size = _RECORD_HEADER + length
        if not self._message and len(pending) > at + _RECORD_HEADER:
            self._check_type(pending[at + _RECORD_HEADER])
        return size

    def _check_type(self, kind: int) -> None:
        if kind != _CLIENT_HELLO:
            raise BadRecord(describe_message(kind), UNEXPECTED_MESSAGE)

    def _is_whole(self) -> bool:
        message = self._message
        if len(message) < _MESSAGE_HEADER:
            return False
        size = _MESSAGE_HEADER + int.from_bytes(message[1:4], "big")
        if size > self._limit:
            raise TooLargeError(f"a ClientHello of {size} bytes: the limit is {self._limit}")
        if len(message) > size:
            reason = f"{len(message) - size} bytes follow the ClientHello in its record"
            raise BadRecord(reason, UNEXPECTED_MESSAGE)
        return len(message) == size


def _start_alert(kind: int, major: int) -> int | None:
    if kind == _HANDSHAKE:
        return PROTOCOL_VERSION
    return (
        UNEXPECTED_MESSAGE if major == _MAJOR and kind in (_CHANGE_CIPHER_SPEC, _APPLICATION_DATA) else None
    )

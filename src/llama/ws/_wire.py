"""WebSocket frames (RFC 6455 section 5, RFC 7692): parses bytes into messages, and encodes messages."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TypeAlias

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

try:
    from websockets.speedups import apply_mask as apply_mask
except ImportError:  # built without C
    from websockets.utils import apply_mask as apply_mask

Payload: TypeAlias = bytes | bytearray | memoryview
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_STATUS, ABNORMAL = 1000, 1001, 1002, 1005, 1006
INVALID_DATA, MESSAGE_TOO_BIG, INTERNAL_ERROR = 1007, 1009, 1011
_MAX_CONTROL = 125
_OPCODES = {CONT: Opcode.CONT, TEXT: Opcode.TEXT, BINARY: Opcode.BINARY}


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping, which requires a pong with the same data."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong, solicited or not."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer's close frame; code 1005 if it had none."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A protocol error or an exceeded limit: the code to close with, and the reason."""

    code: int
    reason: str


Event: TypeAlias = str | bytes | Ping | Pong | Close | Failure
"""A text message is a `str`, a binary one `bytes`."""


class _Failed(Exception):
    def __init__(self, code: int, reason: str) -> None:
        self.failure = Failure(code, reason)


class Frames:
    """The frames of one connection, in both directions; a client masks its frames.

    Fragments are assembled into messages and inflated; no message exceeds `max_size` bytes. Close or Failure is the
    last event; later bytes are ignored.
    """

    __slots__ = ("_buffer", "_deflate", "_inflating", "_max_size", "_opcode", "_parts", "is_client", "over")

    def __init__(self, *, is_client: bool, deflate: PerMessageDeflate | None, max_size: int) -> None:
        self.is_client = is_client
        self._deflate = deflate
        self._max_size = max_size
        self._buffer = bytearray()
        self._parts = bytearray()
        self._opcode = 0  # of the message that is being assembled
        self._inflating = False
        self.over = False
        """Whether the last event has been parsed; later bytes are ignored."""

    @property
    def is_compressed(self) -> bool:
        """Whether received messages may be compressed, so that few bytes inflate to many."""
        return self._deflate is not None

    # receiving

    def feed(self, data: bytes) -> list[Event]:
        """Parse bytes; return the events that they complete."""
        events: list[Event] = []
        if self.over:
            return events
        buffer = self._buffer
        source: bytes | bytearray = data
        if buffer:
            buffer += data
            source = buffer
        position = 0
        try:
            while not self.over and (end := self._next(source, position, events)):
                position = end
        except _Failed as failed:
            events.append(failed.failure)
            self.over = True
        if self.over:
            self._buffer = self._parts = bytearray()
        elif source is buffer:
            del buffer[:position]
        elif position < len(data):
            buffer += memoryview(data)[position:]
        return events

    def _next(self, source: bytes | bytearray, at: int, events: list[Event]) -> int:
        """Parse the frame at offset `at`; return its end, or 0 if it is incomplete."""
        size = len(source)
        if size < at + 2:
            return 0
        first, length = source[at], source[at + 1]
        if (length > 127) is self.is_client:
            raise _Failed(PROTOCOL_ERROR, "a masked frame" if self.is_client else "an unmasked frame")
        length &= 127
        self._check(first, length)
        start = at + 2
        if length > 125:
            start += 2 if length == 126 else 8
            if size < start:
                return 0
            length = int.from_bytes(source[at + 2 : start], "big")
            self._check_size(first, length)
        elif length > self._max_size:
            self._check_size(first, length)
        key: bytes | bytearray = b""
        if not self.is_client:
            start += 4
            key = source[start - 4 : start]
        end = start + length
        if size < end:
            return 0
        payload = apply_mask(source[start:end], key) if key and length else bytes(source[start:end])
        if first & 8:
            self._control(first & 15, payload, events)
        else:
            self._data(first, payload, events)
        return end

    def _check(self, first: int, length: int) -> None:
        opcode = first & 15
        if first & 0x70:
            deflated = self._deflate is not None and opcode in (TEXT, BINARY) and not first & 0x30
            if not deflated:
                raise _Failed(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode > PONG or 2 < opcode < 8:
            raise _Failed(PROTOCOL_ERROR, f"opcode {opcode} is not known")
        if opcode & 8:
            if not first & 0x80:
                raise _Failed(PROTOCOL_ERROR, "a fragmented control frame")
            if length > _MAX_CONTROL:
                raise _Failed(PROTOCOL_ERROR, f"a control frame of more than {_MAX_CONTROL} bytes")
        elif bool(opcode) is bool(self._opcode):
            what = (
                "a new message before the last fragment of another"
                if opcode
                else "a continuation frame without a message"
            )
            raise _Failed(PROTOCOL_ERROR, what)

    def _check_size(self, first: int, length: int) -> None:
        if first & 8:
            return
        most = self._max_size
        if first & 0x40 or self._inflating:
            most += most // 1000 + 64  # incompressible data grows a little
        if length + len(self._parts) > most:
            raise self._too_big()

    def _too_big(self) -> _Failed:
        return _Failed(MESSAGE_TOO_BIG, f"a message of more than {self._max_size} bytes")

    def _data(self, first: int, payload: bytes, events: list[Event]) -> None:
        fin = first & 0x80
        opcode = first & 15
        if first & 0x40 or (self._inflating and not opcode):
            payload = self._inflate(opcode, payload, first)
        if self._opcode or not fin:
            if opcode:
                self._opcode = opcode
                self._inflating = bool(first & 0x40)
            if len(payload) + len(self._parts) > self._max_size:
                raise self._too_big()
            self._parts += payload
            if not fin:
                return
            opcode, payload = self._opcode, bytes(self._parts)
            self._opcode = 0
            self._inflating = False
            self._parts = bytearray()
        if opcode == BINARY:
            events.append(payload)
            return
        try:
            events.append(payload.decode())
        except UnicodeDecodeError as error:
            raise _Failed(INVALID_DATA, f"text that is not UTF-8: {error.reason}") from None

    def _inflate(self, opcode: int, payload: bytes, first: int) -> bytes:
        assert self._deflate is not None  # or the bit would have been refused
        frame = Frame(_OPCODES[opcode], payload, bool(first & 0x80), bool(first & 0x40))
        left = self._max_size - len(self._parts)
        try:  # a limit of 0 would be none
            data = bytes(self._deflate.decode(frame, max_size=max(left, 1)).data)
        except PayloadTooBig:
            raise self._too_big() from None
        except ProtocolError as error:
            raise _Failed(PROTOCOL_ERROR, str(error)) from None
        if len(data) > left:
            raise self._too_big()
        return data

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            events.append(_read_close(payload))
            self.over = True

    # sending

    def message(self, data: str | Payload) -> bytes:
        """Encode a message as one frame; a `str` is text."""
        opcode, payload = (TEXT, data.encode()) if isinstance(data, str) else (BINARY, data)
        if self._deflate is None:
            return self._encode(0x80 | opcode, payload)
        deflated = self._deflate.encode(Frame(_OPCODES[opcode], payload)).data
        return self._encode(0xC0 | opcode, deflated)

    def ping(self, data: bytes) -> bytes:
        """Encode a ping with at most 125 bytes."""
        return self._encode(0x80 | PING, _control_data(data))

    def pong(self, data: bytes) -> bytes:
        """Encode a pong."""
        return self._encode(0x80 | PONG, _control_data(data))

    def close(self, code: int, reason: str = "") -> bytes:
        """Encode the close frame; 1005 sends no code. ValueError for an invalid code or reason."""
        return self._encode(0x80 | CLOSE, close_data(code, reason))

    def _encode(self, first: int, payload: Payload) -> bytes:
        length = len(payload)
        mask = 0x80 if self.is_client else 0
        if length < 126:
            head = bytes((first, mask | length))
        elif length < 65536:
            head = bytes((first, mask | 126)) + length.to_bytes(2, "big")
        else:
            head = bytes((first, mask | 127)) + length.to_bytes(8, "big")
        if not mask:
            return head + payload
        key = secrets.token_bytes(4)
        return head + key + apply_mask(payload, key)


def _read_close(payload: bytes) -> Close:
    try:
        close = CloseFrame.parse(payload)
    except ProtocolError as error:
        raise _Failed(PROTOCOL_ERROR, f"a malformed close: {error}") from None
    except UnicodeDecodeError:
        raise _Failed(INVALID_DATA, "a reason that is not UTF-8") from None
    return Close(int(close.code), close.reason)


def close_data(code: int, reason: str) -> bytes:
    """Encode the payload of a close frame."""
    if code == NO_STATUS and not reason:
        return b""
    try:
        return _control_data(CloseFrame(code, reason).serialize())
    except ProtocolError:
        raise ValueError(f"close code {code} cannot be sent: expected 1000 to 1014 or 3000 to 4999") from None


def _control_data(data: bytes) -> bytes:
    if len(data) > _MAX_CONTROL:
        raise ValueError(f"{len(data)} bytes are too many for a control frame: at most {_MAX_CONTROL}")
    return data

"""WebSocket frames that pass by, read without changing them (RFC 6455 section 5, RFC 7692)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from websockets.exceptions import ProtocolError
from websockets.frames import Close as CloseFrame

from llama.ws._wire import CLOSE, CONT, TEXT, Close, apply_mask

_PIECE = 1 << 18  # inflated at once
_TAIL = b"\x00\x00\xff\xff"  # a sender leaves it out (RFC 7692 section 7.2.1)
_MAX_CONTROL = 125
_LENGTHS = {126: 2, 127: 8}


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that has passed: its data, or None where that is over the limit or cannot be read."""

    data: str | bytes | None
    size: int


TapEvent: TypeAlias = Seen | Close


class Tap:
    """Reads the frames of one direction as they pass, in any pieces; holds at most `limit` bytes of a message.

    `takeover` says whether a deflated message needs the context of earlier ones; None where none is deflated.
    Frames that break the protocol end the reading: what becomes of them is for both ends to decide.
    """

    __slots__ = (
        "_control", "_deflated", "_first", "_head", "_in_frame", "_inflater", "_kept", "_key", "_left", "_opcode",
        "_size", "_takeover", "limit", "over",
    )  # fmt: skip

    def __init__(self, limit: int, takeover: bool | None) -> None:
        self.limit = limit
        """Bytes of a message. It may be lowered: from 0 on nothing is unmasked or inflated any more."""
        self.over = False
        """Whether nothing more is read."""
        self._takeover = takeover
        self._inflater: zlib._Decompress | None = None
        self._head = bytearray()
        self._in_frame = False
        self._first = 0  # byte of the frame
        self._left = 0  # bytes of the frame's payload
        self._key = b""
        self._control = bytearray()
        self._opcode = 0  # of the message
        self._deflated = False
        self._kept: bytearray | None = None  # of the message, as long as it is within the limit
        self._size = 0

    def feed(self, data: bytes | memoryview) -> Iterator[TapEvent]:
        """What these bytes complete."""
        view = memoryview(data)
        at = 0
        while at < len(view) and not self.over:
            if self._in_frame:
                part = view[at : at + self._left]
                self._left -= len(part)
                self._take(bytes(part))
            else:
                part = view[at : at + _head_size(self._head) - len(self._head)]
                self._head += part
                if len(self._head) == _head_size(self._head):
                    self._begin()
            at += len(part)
            if self._in_frame and not self._left:
                self._in_frame = False
                yield from self._end()

    def _begin(self) -> None:
        head, self._head = bytes(self._head), bytearray()
        first, length = head[0], head[1] & 127
        key = head[-4:] if head[1] & 128 else b""
        if length in _LENGTHS:
            length = int.from_bytes(head[2 : 2 + _LENGTHS[length]], "big")
        self._first, self._left, self._key, self._in_frame = first, length, key, True
        opcode = first & 15
        if opcode & 8:
            self._control.clear()
            self.over = length > _MAX_CONTROL
        elif opcode:
            self._opcode, self._deflated = opcode, bool(first & 0x40)
            self._kept, self._size = bytearray(), 0
            self.over = self._deflated and self._takeover is None

    def _take(self, part: bytes) -> None:
        if self._first & 8:
            self._control += self._unmasked(part)
        elif self.limit <= 0:
            self._size += len(part)
        else:
            part = self._unmasked(part)
            if self._deflated:
                self._inflate(part)
            else:
                self._keep(part)

    def _unmasked(self, part: bytes) -> bytes:
        key = self._key
        if not key or not part:
            return part
        turn = len(part) % 4
        self._key = key[turn:] + key[:turn]
        return apply_mask(part, key)

    def _inflate(self, part: bytes) -> None:
        """In pieces, for few bytes may stand for many; beyond the limit too, since later messages may refer to it."""
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-15)
        try:
            while part:
                self._keep(self._inflater.decompress(part, _PIECE))
                part = self._inflater.unconsumed_tail
        except zlib.error:
            self.over = True

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._kept is not None:
            if self._size > self.limit:
                self._kept = None
            else:
                self._kept += data

    def _end(self) -> Iterator[TapEvent]:
        opcode = self._first & 15
        if opcode == CLOSE:
            self.over = True
            try:
                close = CloseFrame.parse(bytes(self._control))
            except (ProtocolError, UnicodeDecodeError):
                return
            yield Close(int(close.code), close.reason)
        elif not opcode & 8 and self._first & 0x80 and self._opcode != CONT:
            if self._deflated and self.limit > 0:
                self._inflate(_TAIL)
                if not self._takeover:
                    self._inflater = None
            if not self.over:
                yield self._seen()
            self._opcode, self._kept = CONT, None

    def _seen(self) -> Seen:
        kept = self._kept if self.limit > 0 else None
        if kept is None:
            return Seen(None, self._size)
        try:
            return Seen(kept.decode() if self._opcode == TEXT else bytes(kept), self._size)
        except UnicodeDecodeError:
            return Seen(None, self._size)


def _head_size(head: bytearray) -> int:
    """Bytes of a frame's head, by its first two."""
    if len(head) < 2:
        return 2
    return 2 + _LENGTHS.get(head[1] & 127, 0) + (4 if head[1] & 128 else 0)

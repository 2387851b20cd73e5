"""Reads header blocks (RFC 7541), and checks each field as it comes (RFC 9113 section 8.2.1)."""

from __future__ import annotations

import re

from llama._errors import ProtocolError
from llama.http.wire._hpack_huffman import huffman_decode
from llama.http.wire._hpack_table import OVERHEAD, STATIC, TABLE_SIZE, Field, NeverIndexed

MALFORMED = ""
"""The name of a field that no message may have; its value tells why."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t\x20-~\x80-\xff]*[!-~\x80-\xff])?)?")
_PSEUDO = (":method", ":scheme", ":authority", ":path", ":protocol", ":status")
_REMEMBERED, _REMEMBERED_SIZE = 2048, 40  # names, and characters of one
_known = {*_PSEUDO, *(name for name, _ in STATIC[1:])}


def _is_name(name: str) -> bool:
    if _NAME.fullmatch(name) is None:
        return False
    if len(_known) < _REMEMBERED and len(name) <= _REMEMBERED_SIZE:
        _known.add(name)
    return True


def _complaint(name: str, value: str) -> str:
    """What is wrong with a field, or nothing."""
    if name not in _known and not _is_name(name):
        return f"a malformed field name {name[:40]!r}"
    if _VALUE.fullmatch(value) is None:
        return f"a malformed value of {name[:40]}: {value[:40]!r}"
    return ""


class Decoder:
    """The decoding side of one connection.

    What comes out is `(name, value)`; a field that no message may have is named MALFORMED, so that the table
    stays the same on both sides. Raises ProtocolError for what is no HPACK: then the connection is lost.
    """

    __slots__ = ("_entries", "_most", "_sizes", "_table", "changes", "size")

    def __init__(self, most: int = TABLE_SIZE) -> None:
        self._entries: list[Field] = []  # the newest last
        self._sizes: list[int] = []
        self._most = most
        self._table = most
        self.size = 0
        """Bytes that the table counts."""
        self.changes = 0
        """How often the table has changed: a block that leaves this alone always decodes to the same."""

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a whole header block."""
        fields: list[Field] = []
        entries = self._entries
        at, end = 0, len(block)
        try:
            while at < end:
                byte = block[at]
                at += 1
                if byte >= 0x80:
                    index = byte & 0x7F
                    if not index:
                        raise ProtocolError("index 0")
                    if index == 0x7F:
                        index, at = _integer(block, at, 0x7F)
                    fields.append(STATIC[index] if index < 62 else entries[61 - index])
                elif byte >= 0x40:
                    field, at, size = self._literal(block, at, byte & 0x3F, 0x3F)
                    self._add(field, size)
                    fields.append(field)
                elif byte >= 0x20:
                    if fields:
                        raise ProtocolError("a change of the table's size after a field")
                    at = self._resize(block, at, byte & 0x1F)
                else:
                    field, at, _ = self._literal(block, at, byte & 0x0F, 0x0F)
                    fields.append((field[0], NeverIndexed(field[1])) if byte & 0x10 else field)
        except IndexError:
            raise ProtocolError("a header block that is cut off, or an index beyond the table") from None
        return fields

    def _literal(self, block: bytes, at: int, index: int, most: int) -> tuple[Field, int, int]:
        """A literal field, where it ends and what it counts."""
        if index:
            if index == most:
                index, at = _integer(block, at, most)
            name = (STATIC[index] if index < 62 else self._entries[61 - index])[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        size = len(name) + len(value) + OVERHEAD
        if name in _known and value.isascii() and value.isprintable() and value[:1] != " " != value[-1:]:
            return (name, value), at, size
        complaint = _complaint(name, value)
        return ((MALFORMED, complaint) if complaint else (name, value)), at, size

    def _add(self, field: Field, size: int) -> None:
        self.changes += 1
        self._evict(self._table - size)
        if size <= self._table:
            self._entries.append(field)
            self._sizes.append(size)
            self.size += size

    def _evict(self, most: int) -> None:
        gone = 0
        while self.size > most and gone < len(self._sizes):
            self.size -= self._sizes[gone]
            gone += 1
        if gone:
            del self._entries[:gone]
            del self._sizes[:gone]

    def _resize(self, block: bytes, at: int, size: int) -> int:
        if size == 0x1F:
            size, at = _integer(block, at, 0x1F)
        if size > self._most:
            raise ProtocolError(f"a table of {size} bytes, where {self._most} are allowed")
        self.changes += 1
        self._table = size
        self._evict(size)
        return at


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """The rest of an integer whose prefix is full, and where it ends."""
    for shift in (0, 7, 14, 21):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ProtocolError("an integer that is too large")


def _string(block: bytes, at: int) -> tuple[str, int]:
    first = block[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise ProtocolError("a string beyond the end of its header block")
    raw = block[at:end]
    return (huffman_decode(raw) if first & 0x80 else str(raw, "latin-1")), end

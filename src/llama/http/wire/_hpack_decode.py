"""Reads header blocks (RFC 7541), and checks each field as it comes (RFC 9113 section 8.2.1).

One byte can stand for a field as large as the dynamic table, so a decoder builds fields only up to its limits. It
reads the rest of the block for its effect on the dynamic table, which must stay equal to the peer's; a block with
far more fields than allowed is not worth that, and costs the connection.
"""

from __future__ import annotations

import re

from llama._errors import ProtocolError
from llama.http.wire._hpack_huffman import huffman_decode
from llama.http.wire._hpack_table import (
    OVERHEAD,
    STATIC,
    STATIC_SIZES,
    TABLE_SIZE,
    UNLIMITED,
    Field,
    NeverIndexed,
)

MALFORMED = ""
"""The name of a field that no message may have; its value tells why."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t\x20-~\x80-\xff]*[!-~\x80-\xff])?)?")
_INDEXED = re.compile(rb"[\x81-\xfe]+")  # fields whose index takes one byte
_INDEXED_127 = re.compile(rb"(?:\xff[\x00-\x7f])++")  # and two bytes; possessive, so that re keeps no stack
_LONGEST_CODE, _BYTE = 30, 8  # bits of the Huffman code
_SIZE_UPDATES = (
    2  # at the start of a block (RFC 7541 section 4.2): the smallest size since the last one, and the latest
)
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

    __slots__ = (
        "_entries", "_fields", "_header_list", "_most", "_most_excess", "_sizes", "_table", "_within", "changes",
        "excess", "is_abandoned", "is_truncated", "list_size", "size",
    )  # fmt: skip

    def __init__(
        self,
        most: int = TABLE_SIZE,
        *,
        header_list: int = UNLIMITED,
        fields: int = UNLIMITED,
        excess: int = UNLIMITED,
    ) -> None:
        self._entries: list[Field] = []  # the newest last
        self._sizes: list[int] = []
        self._most = most
        self._table = most
        self._header_list = header_list
        self._fields = fields
        self._within = min(header_list, fields * OVERHEAD)  # no limit is exceeded up to this size
        self._most_excess = excess
        self.size = 0
        """Bytes that the table counts."""
        self.changes = 0
        """How often the table has changed: a block that leaves this alone always decodes to the same."""
        self.is_truncated = False
        """Whether the last block exceeded a limit, and its fields are only those before that."""
        self.list_size = 0
        """Size of the last block's field list (RFC 9113 section 6.5.2), with all fields that were not built."""
        self.excess = 0
        """Fields of the last block read one by one beyond a limit; a run of table references counts once an entry."""
        self.is_abandoned = False
        """Whether the last block was not read to its end: the table differs from the peer's, the connection is lost."""

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a whole header block, as far as they are within the limits."""
        fields: list[Field] = []
        entries, sizes = self._entries, self._sizes
        most, most_fields = self._header_list, self._fields
        within = self._within
        self.is_truncated = False
        self.excess = updates = 0
        at, end, total = 0, len(block), 0
        try:
            while at < end:
                start = at
                byte = block[at]
                at += 1
                if byte >= 0x80:
                    index = byte & 0x7F
                    if not index:
                        raise ProtocolError("index 0")
                    if index == 0x7F:
                        index, at = _integer(block, at, 0x7F)
                    if index < 62:
                        field, size = STATIC[index], STATIC_SIZES[index]
                    else:
                        field, size = entries[61 - index], sizes[61 - index]
                elif 0x20 <= byte < 0x40:
                    if fields:
                        raise ProtocolError("a change of the table's size after a field")
                    updates += 1
                    if updates > _SIZE_UPDATES:
                        raise ProtocolError(
                            f"more than {_SIZE_UPDATES} changes of the table's size in a block"
                        )
                    at = self._resize(block, at, byte & 0x1F)
                    continue
                else:
                    field, at, size = self._literal(block, at, byte, most - total)
                total += size
                if total > within and (total > most or len(fields) >= most_fields):
                    self.is_truncated = True
                    self.list_size = total - size
                    self._skip(block, start)
                    return fields
                if 0x40 <= byte < 0x80:
                    self._add(field, size)
                fields.append(field)
        except IndexError:
            raise ProtocolError("a header block that is cut off, or an index beyond the table") from None
        self.list_size = total
        return fields

    def _literal(self, block: bytes, at: int, byte: int, room: int) -> tuple[Field, int, int]:
        """A literal field, where it ends and what it counts; only a size above `room` if a string is longer."""
        prefix = 0x3F if byte >= 0x40 else 0x0F
        index = byte & prefix
        if len(block) > room and (end := _end_of_long(block, at, prefix, room)):
            return STATIC[0], end, room + 1
        if index:
            if index == prefix:
                index, at = _integer(block, at, prefix)
            name = (STATIC[index] if index < 62 else self._entries[61 - index])[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        size = len(name) + len(value) + OVERHEAD
        if (
            name not in _known
            or not value.isascii()
            or not value.isprintable()
            or value[:1] == " "
            or value[-1:] == " "
        ):
            complaint = _complaint(name, value)
            if complaint:
                return (MALFORMED, complaint), at, size
        return (name, NeverIndexed(value) if byte & 0xF0 == 0x10 else value), at, size

    def _skip(self, block: bytes, at: int) -> None:
        """Read the fields from here on for their effect on the table, and count their size."""
        end, most = len(block), self._most_excess
        while at < end:
            self.excess += 1
            if self.excess > most:
                self.is_abandoned = True
                return
            byte = block[at]
            if byte > 0x80:
                at = self._skip_indexed(block, at)
            elif byte >= 0x40:
                if byte == 0x80:
                    raise ProtocolError("index 0")
                at = self._skip_literal(block, at, 0x3F)
            elif byte >= 0x20:
                raise ProtocolError("a change of the table's size after a field")
            else:
                at = self._skip_literal(block, at, 0x0F)

    def _skip_indexed(self, block: bytes, at: int) -> int:
        """Count the size of fields that are in a table, all that follow one another together."""
        if (found := _INDEXED.match(block, at)) is not None:
            run, first = found[0], 0x80
        elif (found := _INDEXED_127.match(block, at)) is not None:
            run, first = found[0][1::2], -0x7F
        else:
            index, at = _integer(block, at + 1, 0x7F)
            self.list_size += self._sizes[61 - index]
            return at
        while run:
            rest = run.translate(None, run[:1])
            index = run[0] - first
            size = STATIC_SIZES[index] if index < 62 else self._sizes[61 - index]
            self.list_size += size * (len(run) - len(rest))
            self.excess += bool(rest)
            run = rest
        return found.end()

    def _skip_literal(self, block: bytes, at: int, prefix: int) -> int:
        """Count the size of a literal field; decode it only if it goes into the table."""
        index = block[at] & prefix
        start = at = at + 1
        size = OVERHEAD
        if index == prefix:
            index, at = _integer(block, at, prefix)
        if index:
            size += len((STATIC[index] if index < 62 else self._entries[61 - index])[0])
        else:
            at, length, _ = _skip_string(block, at)
            size += length
        at, length, least = _skip_string(block, at)
        size += length
        if prefix == 0x3F:
            if least > self._table:
                self._add(STATIC[0], self._table + 1)
            else:
                field, at, size = self._literal(block, start, block[start - 1], self._table * 4)
                self._add(field, size)
        self.list_size += size
        return at

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


def _end_of_long(block: bytes, at: int, prefix: int, room: int) -> int:
    """Where a literal field ends that has a string longer than `room` as sent; 0 if it has none."""
    index, longest = block[at - 1] & prefix, 0
    if index == prefix:
        index, at = _integer(block, at, prefix)
    elif not index:
        at, longest, _ = _skip_string(block, at)
    at, length, _ = _skip_string(block, at)
    return at if max(longest, length) > room else 0


def _string(block: bytes, at: int) -> tuple[str, int]:
    """A string and where it ends."""
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


def _skip_string(block: bytes, at: int) -> tuple[int, int, int]:
    """Where a string ends, its length as sent, and the least that it can have decoded."""
    first = block[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    if at + length > len(block):
        raise ProtocolError("a string beyond the end of its header block")
    return at + length, length, length * _BYTE // _LONGEST_CODE if first & 0x80 else length

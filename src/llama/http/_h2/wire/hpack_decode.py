"""The HPACK decoder (RFC 7541), which validates each field while decoding (RFC 9113 section 8.2.1).

One byte can refer to a field as large as the dynamic table, so the decoder builds fields only up to its limits. It
reads the rest of the block only for its effect on the dynamic table, which must stay identical to the peer's. For a
block with far more fields than allowed even that costs too much: the decoder stops and the connection ends.
"""

from __future__ import annotations

import re

from llama._core.errors import ProtocolError
from llama.http._h2.wire.hpack_huffman import huffman_decode
from llama.http._h2.wire.hpack_table import (
    OVERHEAD,
    STATIC,
    STATIC_SIZES,
    TABLE_SIZE,
    UNLIMITED,
    Field,
    NeverIndexed,
)

MALFORMED_BLOCK = ""
"""The name given to a malformed field; its value is the reason."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t\x20-~\x80-\xff]*[!-~\x80-\xff])?)?")
_INDEXED = re.compile(rb"[\x81-\xfe]+")  # a run of fields whose index takes one byte
_INDEXED_127 = re.compile(
    rb"(?:\xff[\x00-\x7f])++"
)  # two bytes; possessive, so that re needs no stack for backtracking
_LONGEST_CODE, _BYTE = 30, 8  # bits of the longest Huffman code, and of a byte
_SIZE_UPDATES = (
    2  # at the start of a block (RFC 7541 section 4.2): the smallest size since the last one, and the latest
)
_PSEUDO = (":method", ":scheme", ":authority", ":path", ":protocol", ":status")
_CACHE_SIZE, _MAX_CACHED_NAME = 2048, 40  # the most cached names, and the most characters of one
_known = {*_PSEUDO, *(name for name, _ in STATIC[1:])}


def _is_name(name: str) -> bool:
    if _NAME.fullmatch(name) is None:
        return False
    if len(_known) < _CACHE_SIZE and len(name) <= _MAX_CACHED_NAME:
        _known.add(name)
    return True


def _explain(name: str, value: str) -> str:
    """Return what is wrong with a field; empty if it is well-formed."""
    if name not in _known and not _is_name(name):
        return f"malformed field name {name[:40]!r}"
    if _VALUE.fullmatch(value) is None:
        return f"malformed value of {name[:40]}: {value[:40]!r}"
    return ""


class Decoder:
    """The decoder of one direction of a connection.

    It returns fields as `(name, value)`. A malformed field is named MALFORMED_BLOCK instead of raising at once, so that
    the table stays the same on both sides. Raises ProtocolError for invalid HPACK, which is a connection error.
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
        self._entries: list[Field] = []  # oldest first
        self._sizes: list[int] = []
        self._most = most
        self._table = most
        self._header_list = header_list
        self._fields = fields
        self._within = min(header_list, fields * OVERHEAD)  # no limit is exceeded up to this size
        self._most_excess = excess
        self.size = 0
        """Size of the dynamic table, in bytes (RFC 7541 section 4.1)."""
        self.changes = 0
        """The number of changes of the dynamic table. While it stays the same, equal blocks decode equally."""
        self.is_truncated = False
        """Whether the last block exceeded a limit, so that only the fields before it were returned."""
        self.list_size = 0
        """Size of the last block's field list (RFC 9113 section 6.5.2), including the fields that were not built."""
        self.excess = 0
        """Fields of the last block beyond a limit. A run of table references counts each distinct entry once."""
        self.is_abandoned = False
        """Whether the last block was not read to its end. The table is then out of sync: end the connection."""

    def decode(self, block: bytes) -> list[Field]:
        """Decode a complete header block and return its fields up to the limits."""
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
                        raise ProtocolError("index 0 is invalid")
                    if index == 0x7F:
                        index, at = _integer(block, at, 0x7F)
                    if index < 62:
                        field, size = STATIC[index], STATIC_SIZES[index]
                    else:
                        field, size = entries[61 - index], sizes[61 - index]
                elif 0x20 <= byte < 0x40:
                    if fields:
                        raise ProtocolError("a table size update after a field")
                    updates += 1
                    if updates > _SIZE_UPDATES:
                        raise ProtocolError(f"more than {_SIZE_UPDATES} table size updates in a block")
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
            raise ProtocolError("the header block is cut off, or an index is beyond the table") from None
        self.list_size = total
        return fields

    def _literal(self, block: bytes, at: int, byte: int, room: int) -> tuple[Field, int, int]:
        """Return a literal field, the position after it, and its size.

        If a string is longer than `room` bytes as sent, the field is a dummy and the size is `room` + 1.
        """
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
            complaint = _explain(name, value)
            if complaint:
                return (MALFORMED_BLOCK, complaint), at, size
        return (name, NeverIndexed(value) if byte & 0xF0 == 0x10 else value), at, size

    def _skip(self, block: bytes, at: int) -> None:
        """Read the fields from `at` on for their effect on the table, and add up their size."""
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
                    raise ProtocolError("index 0 is invalid")
                at = self._skip_literal(block, at, 0x3F)
            elif byte >= 0x20:
                raise ProtocolError("a table size update after a field")
            else:
                at = self._skip_literal(block, at, 0x0F)

    def _skip_indexed(self, block: bytes, at: int) -> int:
        """Add the size of a run of indexed fields."""
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
        """Add the size of a literal field; decode it only if it goes into the table."""
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
            raise ProtocolError(f"expected a table size of at most {self._most} bytes, got {size}")
        self.changes += 1
        self._table = size
        self._evict(size)
        return at


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """Read the rest of an integer whose prefix is full; return the integer and the position after it."""
    for shift in (0, 7, 14, 21):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ProtocolError("an integer is too large")


def _end_of_long(block: bytes, at: int, prefix: int, room: int) -> int:
    """Return the position after a literal field if it has a string longer than `room` as sent, else 0."""
    index, longest = block[at - 1] & prefix, 0
    if index == prefix:
        index, at = _integer(block, at, prefix)
    elif not index:
        at, longest, _ = _skip_string(block, at)
    at, length, _ = _skip_string(block, at)
    return at if max(longest, length) > room else 0


def _string(block: bytes, at: int) -> tuple[str, int]:
    """Read a string; return it and the position after it."""
    first = block[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise ProtocolError("a string extends beyond its header block")
    raw = block[at:end]
    return (huffman_decode(raw) if first & 0x80 else str(raw, "latin-1")), end


def _skip_string(block: bytes, at: int) -> tuple[int, int, int]:
    """Return the position after a string, its length as sent, and its least possible decoded length."""
    first = block[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    if at + length > len(block):
        raise ProtocolError("a string extends beyond its header block")
    return at + length, length, length * _BYTE // _LONGEST_CODE if first & 0x80 else length

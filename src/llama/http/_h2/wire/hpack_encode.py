"""The HPACK encoder (RFC 7541)."""

from __future__ import annotations

from collections.abc import Iterable

from llama.http._h2.wire.hpack_huffman import huffman_encode
from llama.http._h2.wire.hpack_table import (
    OVERHEAD,
    STATIC_FIELDS,
    STATIC_NAMES,
    TABLE_SIZE,
    Field,
    encode_integer,
)

# Secrets are never indexed, so that another sender on the same connection cannot guess them by the sizes of blocks.
SECRET = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
# Values that rarely repeat are not indexed, because they would evict values that do.
_NEVER_CACHED = frozenset(
    {
        ":path",
        "age",
        "content-length",
        "content-range",
        "etag",
        "expires",
        "if-modified-since",
        "if-none-match",
        "last-modified",
        "location",
        "range",
    }
)
_PLAIN = SECRET | _NEVER_CACHED
_LONGEST = 1024  # larger fields are not added to the dynamic table
_DYNAMIC = 1 << 20  # number of the first dynamic entry, above every static index
_INDEXED = [bytes((0x80 | index,)) for index in range(127)]
_LENGTHS = [bytes((length,)) for length in range(127)]


def _heads(first: int, most: int) -> dict[str, bytes]:
    return {name: encode_integer(index, first, most) for name, index in STATIC_NAMES.items()}


_BARE = _heads(0, 0x0F)
_NEVER = _heads(0x10, 0x0F)
_KEEP = _heads(0x40, 0x3F)


def _text(text: str) -> bytes:
    raw = text.encode("latin-1")
    length = len(raw)
    return (_LENGTHS[length] if length < 0x7F else encode_integer(length, 0, 0x7F)) + raw


def _short_text(text: str) -> bytes:
    """Encode a string with the Huffman code if that is shorter. Used only for fields that enter the table."""
    coded = huffman_encode(text)
    return encode_integer(len(coded), 0x80, 0x7F) + coded if len(coded) < len(text) else _text(text)


class Encoder:
    """The encoder of one direction of a connection. Expects well-formed fields with names in lower case."""

    __slots__ = ("_entries", "_inserted", "_known", "_sizes", "_smallest", "_table", "size")

    def __init__(self) -> None:
        self._known: dict[Field, int] = STATIC_FIELDS.copy()
        self._entries: list[Field] = []  # oldest first
        self._sizes: list[int] = []
        self._inserted = _DYNAMIC
        self._table = TABLE_SIZE
        self._smallest: int | None = None
        self.size = 0
        """Size of the dynamic table, in bytes (RFC 7541 section 4.1)."""

    def resize(self, most: int) -> None:
        """Set the size that the peer allows for the table; at most TABLE_SIZE bytes are used."""
        size = min(most, TABLE_SIZE)
        if size != self._table or self._smallest is not None:
            self._smallest = size if self._smallest is None else min(size, self._smallest)
            self._table = size
            self._evict(size)

    def encode(self, fields: Iterable[Field]) -> bytes:
        """Return the header block of these fields."""
        out: list[bytes] = []
        if self._smallest is not None:
            out.append(self._sizes_told())
        known = self._known
        top = self._inserted + 61
        for field in fields:
            index = known.get(field)
            name, value = field
            if type(value) is not str:
                out.append((_NEVER.get(name) or b"\x10" + _text(name)) + _text(value))
            elif index is not None:
                if index >= _DYNAMIC:
                    index = top - index
                out.append(_INDEXED[index] if index < 0x7F else encode_integer(index, 0x80, 0x7F))
            elif name in _PLAIN:
                heads = _NEVER if name in SECRET else _BARE
                out.append(heads[name] + _text(value))
            else:
                out.append(self._new(field))
                top = self._inserted + 61
        return b"".join(out)

    def _new(self, field: Field) -> bytes:
        """Encode a literal field and add it to the table if it fits."""
        name, value = field
        size = len(name) + len(value) + OVERHEAD
        if size > _LONGEST or size > self._table:
            return (_BARE.get(name) or b"\x00" + _text(name)) + _text(value)
        self._evict(self._table - size)
        self._known[field] = self._inserted
        self._inserted += 1
        self._entries.append(field)
        self._sizes.append(size)
        self.size += size
        return (_KEEP.get(name) or b"\x40" + _short_text(name)) + _short_text(value)

    def _evict(self, most: int) -> None:
        gone = 0
        while self.size > most and gone < len(self._sizes):
            self.size -= self._sizes[gone]
            del self._known[self._entries[gone]]
            gone += 1
        if gone:
            del self._entries[:gone]
            del self._sizes[:gone]

    def _sizes_told(self) -> bytes:
        """Encode the smallest table size since the last block, and the current one (RFC 7541 section 4.2)."""
        smallest, self._smallest = self._smallest or 0, None
        told = encode_integer(self._table, 0x20, 0x1F)
        return told if smallest == self._table else encode_integer(smallest, 0x20, 0x1F) + told

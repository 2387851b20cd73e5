"""Header fields in order, with their case and duplicates; look-ups ignore case."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TypeVar, cast, overload

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_D = TypeVar("_D")

Pairs = Iterable[tuple[str, str]]


@lru_cache(1024)
def checked_name(name: str) -> str:
    """Return `name`; raise ValueError if it is not a valid field name (RFC 9110 section 5.1)."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"invalid header name {name!r}: expected a token")
    return name


def checked_value(value: str) -> str:
    """Return `value` without outer whitespace; raise ValueError if it is invalid (RFC 9110 section 5.5)."""
    if value.isascii() and value.isprintable():
        return value if value[:1] != " " != value[-1:] else value.strip(" ")
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"invalid header value {value!r}: expected Latin-1 without control characters")
    return value.strip(" \t")


class Headers:
    """The header fields of a message, in order, as they were sent.

    Names and values are `str`: one character is one byte (Latin-1), so bytes above 127 are preserved. Iteration
    yields `(name, value)` pairs, including duplicates; look-ups ignore case. Names and values are validated when
    set: CR, LF, NUL and other control characters raise ValueError, so a value cannot inject another line.
    """

    __slots__ = ("_keys", "_lines")

    def __init__(self, source: "Headers | Mapping[str, str] | Pairs" = ()) -> None:
        self._lines: list[str]  # "Name: value", as on the wire: most are forwarded unchanged
        self._keys: list[str]  # the names in lower case, each as long as the name in its line
        if isinstance(source, Headers):
            self._lines = source._lines.copy()
            self._keys = source._keys.copy()
            return
        items = list(cast("Mapping[str, str]", source).items() if isinstance(source, Mapping) else source)
        self._lines = [f"{checked_name(name)}: {checked_value(value)}" for name, value in items]
        self._keys = [name.lower() for name, _ in items]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for line, key in zip(self._lines, self._keys, strict=True):
            size = len(key)
            yield line[:size], line[size + 2 :]

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._keys

    def __getitem__(self, name: str) -> str:
        """Return the value of the first field with this name; raise KeyError if there is none."""
        key = name.lower()
        if key in self._keys:
            return self._lines[self._keys.index(key)][len(key) + 2 :]
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        """Replace all fields with this name by one, at the position of the first, or add it at the end."""
        line = f"{checked_name(name)}: {checked_value(value)}"
        self._put(name.lower(), line)

    def _put(self, key: str, line: str) -> None:
        """Set a field from its validated line, "Name: value"; `key` is its name in lower case."""
        keys = self._keys
        if key not in keys:
            self._lines.append(line)
            keys.append(key)
            return
        first = keys.index(key)
        if keys.count(key) > 1:
            self._drop({key}, after=first)
        self._lines[first] = line

    def __delitem__(self, name: str) -> None:
        """Remove all fields with this name; raise KeyError if there is none."""
        if not self.discard(name):
            raise KeyError(name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._keys == other._keys and [v for _, v in self] == [v for _, v in other]

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: _D) -> str | _D: ...
    def get(self, name: str, default: object = None) -> object:
        """Return the value of the first field with this name, or `default`."""
        key = name.lower()
        return self._lines[self._keys.index(key)][len(key) + 2 :] if key in self._keys else default

    def get_all(self, name: str) -> list[str]:
        """Return the values of all fields with this name, in order."""
        key = name.lower()
        if key not in self._keys:
            return []
        skipped = len(key) + 2
        return [line[skipped:] for line, own in zip(self._lines, self._keys, strict=True) if own == key]

    def tokens(self, name: str) -> list[str]:
        """Return the comma-separated elements of all fields with this name, in lower case."""
        return [
            part for value in self.get_all(name) for raw in value.split(",") if (part := raw.strip().lower())
        ]

    def add(self, name: str, value: str) -> None:
        """Add a field at the end, and keep existing fields with the same name."""
        self._lines.append(f"{checked_name(name)}: {checked_value(value)}")
        self._keys.append(name.lower())

    def insert(self, index: int, name: str, value: str) -> None:
        """Insert a field before the one at `index`."""
        self._lines.insert(index, f"{checked_name(name)}: {checked_value(value)}")
        self._keys.insert(index, name.lower())

    def extend(self, pairs: Pairs) -> None:
        """Add each pair at the end."""
        for name, value in pairs:
            self.add(name, value)

    def setdefault(self, name: str, value: str) -> str:
        """Return the value of the first field with this name; if there is none, add `value` and return it."""
        if name not in self:
            self.add(name, value)
        return self[name]

    def discard(self, *names: str) -> bool:
        """Remove all fields with these names; return whether there were any."""
        gone = {name.lower() for name in names}
        if gone.isdisjoint(self._keys):
            return False
        self._drop(gone)
        return True

    def copy(self) -> "Headers":
        """Return an independent copy."""
        return Headers(self)

    @property
    def names(self) -> list[str]:
        """The names in lower case, one for each field. Do not modify the list."""
        return self._keys

    def _drop(self, gone: set[str], after: int = -1) -> None:
        kept = [i for i, key in enumerate(self._keys) if key not in gone or i <= after]
        self._lines = [self._lines[i] for i in kept]
        self._keys = [self._keys[i] for i in kept]


_new = Headers.__new__


def headers_from_wire(pairs: list[tuple[str, str]], names: list[str]) -> Headers:
    """Make Headers from pairs that a parser has validated; takes ownership of `names`, their names in lower case."""
    return headers_of_lines([f"{name}: {value}" for name, value in pairs], names)


def headers_of_lines(lines: list[str], names: list[str]) -> Headers:
    """Make Headers from validated lines, "Name: value", and their names in lower case; takes ownership of both."""
    headers = _new(Headers)
    headers._lines = lines
    headers._keys = names
    return headers

"""Header fields: ordered, with their case and duplicates, looked up without case."""

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
    """Return `name` if it is a field name (RFC 9110 section 5.1); ValueError otherwise."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"header name {name!r} is not a token")
    return name


def checked_value(value: str) -> str:
    """Return `value` without outer whitespace if a field may hold it (RFC 9110 section 5.5)."""
    if value.isascii() and value.isprintable():
        return value if value[:1] != " " != value[-1:] else value.strip(" ")
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"header value {value!r} has a control character or one beyond Latin-1")
    return value.strip(" \t")


class Headers:
    """The header fields of a message, in order, as they were sent.

    Names and values are `str`: one character is one byte (Latin-1), so bytes above 127 survive. Iterating
    gives `(name, value)` pairs, duplicates included; every look-up ignores case. What is set is checked, and
    ValueError says what a field cannot hold (CR, LF, NUL and other controls), so a value never ends its line.
    """

    __slots__ = ("_keys", "_lines")

    def __init__(self, source: "Headers | Mapping[str, str] | Pairs" = ()) -> None:
        self._lines: list[str]  # "Name: value", as they go over the wire: most are passed on as they came
        self._keys: list[str]  # the names in lower case, as long as those in the lines
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
        """The first field of this name; KeyError if there is none."""
        key = name.lower()
        if key in self._keys:
            return self._lines[self._keys.index(key)][len(key) + 2 :]
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        """Replace every field of this name by one, in the place of the first (or at the end)."""
        line = f"{checked_name(name)}: {checked_value(value)}"
        self._put(name.lower(), line)

    def _put(self, key: str, line: str) -> None:
        """Set a field by its well-formed line, "Name: value"; `key` is its name in lower case."""
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
        """Remove every field of this name; KeyError if there is none."""
        if not self.discard(name):
            raise KeyError(name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._keys == other._keys and [v for _, v in self] == [v for _, v in other]

    __hash__ = None  # type: ignore[assignment]  # what changes cannot be a key

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: _D) -> str | _D: ...
    def get(self, name: str, default: object = None) -> object:
        """The first field of this name, or `default`."""
        key = name.lower()
        return self._lines[self._keys.index(key)][len(key) + 2 :] if key in self._keys else default

    def get_all(self, name: str) -> list[str]:
        """The values of every field of this name, in order."""
        key = name.lower()
        if key not in self._keys:
            return []
        skipped = len(key) + 2
        return [line[skipped:] for line, own in zip(self._lines, self._keys, strict=True) if own == key]

    def tokens(self, name: str) -> list[str]:
        """The comma-separated elements of every field of this name, in lower case."""
        return [
            part for value in self.get_all(name) for raw in value.split(",") if (part := raw.strip().lower())
        ]

    def add(self, name: str, value: str) -> None:
        """Add a field at the end, beside those of the same name."""
        self._lines.append(f"{checked_name(name)}: {checked_value(value)}")
        self._keys.append(name.lower())

    def insert(self, index: int, name: str, value: str) -> None:
        """Add a field before the one at `index`."""
        self._lines.insert(index, f"{checked_name(name)}: {checked_value(value)}")
        self._keys.insert(index, name.lower())

    def extend(self, pairs: Pairs) -> None:
        """Add each pair at the end."""
        for name, value in pairs:
            self.add(name, value)

    def setdefault(self, name: str, value: str) -> str:
        """The first field of this name; where there is none, `value` is added and returned."""
        if name not in self:
            self.add(name, value)
        return self[name]

    def discard(self, *names: str) -> bool:
        """Remove every field of these names; tells whether there was one."""
        gone = {name.lower() for name in names}
        if gone.isdisjoint(self._keys):
            return False
        self._drop(gone)
        return True

    def copy(self) -> "Headers":
        """An independent copy."""
        return Headers(self)

    @property
    def names(self) -> list[str]:
        """The names in lower case, one for each field; not to be changed."""
        return self._keys

    def _drop(self, gone: set[str], after: int = -1) -> None:
        kept = [i for i, key in enumerate(self._keys) if key not in gone or i <= after]
        self._lines = [self._lines[i] for i in kept]
        self._keys = [self._keys[i] for i in kept]


_new = Headers.__new__


def headers_from_wire(pairs: list[tuple[str, str]], names: list[str]) -> Headers:
    """Headers over pairs that a parser has checked; `names` are theirs in lower case, which it takes."""
    return headers_of_lines([f"{name}: {value}" for name, value in pairs], names)


def headers_of_lines(lines: list[str], names: list[str]) -> Headers:
    """Headers over checked lines, "Name: value", and their names in lower case. Takes both lists."""
    headers = _new(Headers)
    headers._lines = lines
    headers._keys = names
    return headers

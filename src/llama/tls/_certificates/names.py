"""Host names in the form of certificates and SNI (lower-case A-labels), and tables keyed by name or wildcard."""

import re
from collections.abc import Mapping
from typing import Generic, TypeVar

from llama._core.errors import ConfigError

T = TypeVar("T")

# Host names do not allow underscores, but clients send names with them and servers answer.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_is_name = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*").fullmatch
_ends_in_a_number = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)").fullmatch


def is_host_name(name: str) -> bool:
    """Whether a lower-case string is a host name: labels of letters, digits, `-` and `_`, and not an address.

    A name whose last label is a number is not one: URL parsers treat it as an address or reject it (RFC 1123, 2.1).
    """
    return _is_name(name) is not None and _ends_in_a_number(name) is None


def to_ascii(name: str) -> str:
    """Convert a host name to lower-case A-labels: `Bücher.example.` becomes `xn--bcher-kva.example`.

    A trailing dot is dropped. Raises ValueError if the result is not a host name.
    """
    ascii_name = name
    if not name.isascii():
        try:
            ascii_name = name.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{name!r} is not a host name: {error}") from None
    ascii_name = ascii_name.lower().removesuffix(".")
    if not is_host_name(ascii_name):
        raise ValueError(f"{name!r} is not a host name")
    return ascii_name


def to_pattern(pattern: str) -> str:
    """Convert a host name, or `*.` and a host name, to lower-case A-labels. Raises ConfigError for anything else."""
    name = pattern.removeprefix("*.")
    try:
        ascii_name = to_ascii(name)
    except ValueError:
        raise ConfigError(f"{pattern!r} is not a name pattern: {_explain(pattern)}") from None
    return f"*.{ascii_name}" if name != pattern else ascii_name


def is_pattern(pattern: str) -> bool:
    """Whether a string is a host name, or `*.` and a host name."""
    try:
        to_pattern(pattern)
    except ConfigError:
        return False
    return True


def _explain(pattern: str) -> str:
    if pattern in ("", "*"):
        return "give a default for every other name"
    if pattern.startswith("."):
        return f"write {pattern[1:]!r} and {'*' + pattern!r}"
    if "*" in pattern.removeprefix("*."):
        return "'*' matches one whole label, the first"
    if _ends_in_a_number(pattern.lower().removeprefix("*.")) or ":" in pattern:
        return "clients send no name for an address or a port"
    return "a label has 1 to 63 letters, digits and inner hyphens, a name at most 253 characters"


class NameTable(Generic[T]):
    """Values by server name: an exact name matches first, then `*.` for one label, then the default.

    Patterns may be in any case, with non-ASCII letters and a trailing dot; an invalid or duplicate one raises
    ConfigError. A table is immutable.
    """

    __slots__ = ("_default", "_exact", "_wildcard")

    def __init__(self, patterns: Mapping[str, T], default: T | None = None) -> None:
        self._exact: dict[str, T] = {}
        self._wildcard: dict[str, T] = {}
        self._default = default
        for pattern, value in patterns.items():
            name = to_pattern(pattern)
            table = self._wildcard if name.startswith("*.") else self._exact
            key = name.removeprefix("*.")
            if key in table:
                raise ConfigError(f"{pattern!r} is given twice: names are compared without case, as {name!r}")
            table[key] = value

    def lookup(self, name: str | None) -> T | None:
        """Return the value for a name; the default for None and for a name that no pattern matches."""
        if name is None:
            return self._default
        name = name.lower().removesuffix(".")
        found = self._exact.get(name)
        if found is None and self._wildcard:
            found = self._wildcard.get(name.partition(".")[2])
        return self._default if found is None else found

    @property
    def default(self) -> T | None:
        """The value for every other name."""
        return self._default

    def items(self) -> list[tuple[str, T]]:
        """Return the normalized patterns with their values, exact names first."""
        return [*self._exact.items(), *((f"*.{name}", value) for name, value in self._wildcard.items())]

    def __len__(self) -> int:
        return len(self._exact) + len(self._wildcard)

    def __repr__(self) -> str:
        names = ", ".join(name for name, _ in self.items())
        return f"NameTable({names}; default {self._default!r})"

"""A map keyed by type, in which layers share information about a connection or a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

T = TypeVar("T")


class Extensions:
    """A map from types to values, with at most one value of each type."""

    __slots__ = ("_values",)

    def __init__(self, *values: object) -> None:
        self._values: dict[type, object] = {type(value): value for value in values}

    def __getitem__(self, key: type[T]) -> T:
        return cast("T", self._values[key])

    def get(self, key: type[T]) -> T | None:
        """The value of this type, or None."""
        return self._values.get(key)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # by type

    def set(self, value: object, /) -> None:
        """Store a value under its own type, replacing an earlier one."""
        self._values[type(value)] = value

    def update(self, other: Extensions, /) -> None:
        """Store all values of another map, replacing earlier ones."""
        self._values.update(other._values)

    def discard(self, key: type) -> None:
        """Remove the value of this type, if present."""
        self._values.pop(key, None)

    def fork(self) -> Extensions:
        """Return an independent copy: later changes to one do not affect the other."""
        copy = _create_empty(Extensions)
        copy._values = self._values.copy()
        return copy

    def __contains__(self, key: type) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[object]:
        return iter(self._values.values())

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Extensions({', '.join(map(repr, self._values.values()))})"


_create_empty = Extensions.__new__

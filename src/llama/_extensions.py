"""A map keyed by type, for what layers learn and tell each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

T = TypeVar("T")


class Extensions:
    """Values by their type: at most one of each."""

    __slots__ = ("_values",)

    def __init__(self, *values: object) -> None:
        self._values: dict[type, object] = {type(value): value for value in values}

    def __getitem__(self, key: type[T]) -> T:
        return cast("T", self._values[key])

    def get(self, key: type[T]) -> T | None:
        """The value of this type, or None."""
        return self._values.get(key)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # by type

    def set(self, value: object, /) -> None:
        """Keep a value under its own type, in place of an earlier one."""
        self._values[type(value)] = value

    def update(self, other: Extensions, /) -> None:
        """Keep all that another map holds, in place of earlier values."""
        self._values.update(other._values)

    def discard(self, key: type) -> None:
        """Forget the value of this type, if there is one."""
        self._values.pop(key, None)

    def fork(self) -> Extensions:
        """A copy: what is set there later does not show here, nor the other way round."""
        copy = _new(Extensions)
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


_new = Extensions.__new__

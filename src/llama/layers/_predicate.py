"""Predicates over the inputs of services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from llama._core.stack import display_name

In = TypeVar("In", contravariant=True)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Predicate(Generic[In]):
    """A boolean function of an input that combines with others by `&`, `|` and `~`.

    Decorate any function with `@Predicate`. The other operand of `&` and `|` may be a plain function.
    """

    test: Callable[[In], bool]
    name: str = ""

    def __call__(self, input: In, /) -> bool:
        return self.test(input)

    def __and__(self: Predicate[T], other: Callable[[T], bool]) -> Predicate[T]:
        return _both(self, other)

    def __rand__(self: Predicate[T], other: Callable[[T], bool]) -> Predicate[T]:
        return _both(other, self)

    def __or__(self: Predicate[T], other: Callable[[T], bool]) -> Predicate[T]:
        return _either(self, other)

    def __ror__(self: Predicate[T], other: Callable[[T], bool]) -> Predicate[T]:
        return _either(other, self)

    def __invert__(self) -> Predicate[In]:
        test = self.test
        return Predicate(lambda input: not test(input), f"~{self!r}")

    def __repr__(self) -> str:
        return self.name or display_name(self.test)


def _both(first: Callable[[T], bool], second: Callable[[T], bool]) -> Predicate[T]:
    name = f"({display_name(first)} & {display_name(second)})"
    return Predicate(lambda input: first(input) and second(input), name)


def _either(first: Callable[[T], bool], second: Callable[[T], bool]) -> Predicate[T]:
    name = f"({display_name(first)} | {display_name(second)})"
    return Predicate(lambda input: first(input) or second(input), name)

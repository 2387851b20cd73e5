"""What a service and a layer are: any async callable, and what wraps one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, TypeVar

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class Service(Protocol[In, Out]):
    """Any async callable with one input: its output, or an exception."""

    def __call__(self, input: In, /) -> Awaitable[Out]: ...


I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
I2 = TypeVar("I2")
O2 = TypeVar("O2")

Layer: TypeAlias = Callable[[Service[I2, O2]], Service[I, O]]
"""Takes a service and returns a service."""

Middleware: TypeAlias = Callable[[Service[I, O]], Service[I, O]]
"""A layer that leaves the kind of service as it is.

A factory of a layer for any kind spells this out instead: mypy takes an alias' variables for the factory's own.
"""

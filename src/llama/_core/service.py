"""The types of services (async callables) and layers (functions that wrap a service)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, TypeVar

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class Service(Protocol[In, Out]):
    """An async callable with one input, which returns its output or raises."""

    def __call__(self, input: In, /) -> Awaitable[Out]: ...


I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
I2 = TypeVar("I2")
O2 = TypeVar("O2")

Layer: TypeAlias = Callable[[Service[I2, O2]], Service[I, O]]
"""Takes a service and returns a service."""

Middleware: TypeAlias = Callable[[Service[I, O]], Service[I, O]]
"""A layer whose outer and inner service have the same type.

A generic layer factory writes the type out instead, because mypy binds an alias' type variables to the factory.
"""

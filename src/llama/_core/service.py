"""The types of services (async callables) and layers (functions that wrap a service)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, TypeVar

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)


class Service(Protocol[RequestT_contra, ResponseT_co]):
    """An async callable with one input, which returns its output or raises."""

    def __call__(self, input: RequestT_contra, /) -> Awaitable[ResponseT_co]: ...


RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
InnerRequestT = TypeVar("InnerRequestT")
InnerResponseT = TypeVar("InnerResponseT")

Layer: TypeAlias = Callable[[Service[InnerRequestT, InnerResponseT]], Service[RequestT, ResponseT]]
"""Takes a service and returns a service."""

Middleware: TypeAlias = Callable[[Service[RequestT, ResponseT]], Service[RequestT, ResponseT]]
"""A layer whose outer and inner service have the same type.

A generic layer factory writes the type out instead, because mypy binds an alias' type variables to the factory.
"""

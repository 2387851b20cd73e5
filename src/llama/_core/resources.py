"""Finds the resources that a stack owns, and opens them, innermost first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from types import FunctionType, MethodType
from typing import cast


def find_resources(*services: object) -> list[AbstractAsyncContextManager[object]]:
    """Return the services that are async context managers, each once, inner ones before outer ones.

    Searches dataclass fields, containers, partials, bound methods and closure cells. A context manager
    that is not callable, such as a lock, is not a service.
    """
    found: list[AbstractAsyncContextManager[object]] = []
    seen: dict[int, object] = {}
    todo: list[tuple[object, bool]] = [(each, False) for each in reversed(services)]
    while todo:
        item, done = todo.pop()
        if done:
            found.append(cast("AbstractAsyncContextManager[object]", item))
            continue
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if callable(item) and hasattr(type(item), "__aenter__") and hasattr(type(item), "__aexit__"):
            todo.append((item, True))
        todo.extend((each, False) for each in _children(item))
    return found


def _children(item: object) -> Iterator[object]:
    if isinstance(item, (str, bytes, bytearray, memoryview, int, float, type)):
        return
    if isinstance(item, Mapping):
        yield from cast("Mapping[object, object]", item).values()
    elif isinstance(item, (list, tuple, set, frozenset)):
        yield from cast("list[object]", item)
    elif isinstance(item, partial):
        yield item.func
        yield from item.args
        yield from item.keywords.values()
    elif isinstance(item, MethodType):
        yield item.__self__
        yield item.__func__
    elif isinstance(item, FunctionType):
        yield from _closure_values(item)
    elif dataclasses.is_dataclass(item):
        for field in dataclasses.fields(item):
            yield getattr(item, field.name, None)


def _closure_values(function: FunctionType) -> Iterator[object]:
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not bound yet
            continue


async def enter_resources(exits: AsyncExitStack, *services: object) -> None:
    """Enter the resources that these services own; the exit stack exits them in reverse order."""
    for each in find_resources(*services):
        await exits.enter_async_context(each)

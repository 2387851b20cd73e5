"""Finalizers for responses that were never closed."""

from __future__ import annotations

import asyncio
import logging
from asyncio.events import _get_running_loop as running_loop
from collections.abc import Awaitable, Callable
from contextvars import Context
from inspect import isawaitable
from typing import TypeAlias
from weakref import WeakSet

from llama._core.shutdown import Shutdown, detached_task

log = logging.getLogger("llama.server")
Callback: TypeAlias = Callable[[], Awaitable[object] | object]
_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


class CloseCallbacks(list[Callback]):
    """The `on_close` callbacks of a response, shared with its body; run when neither is referenced any more.

    The finalizer is here, not in Response, because most responses have no callbacks.
    """

    __slots__ = ("loop",)

    loop: asyncio.AbstractEventLoop | None
    """The event loop of the exchange, or None."""

    def __del__(self) -> None:
        if self:
            run_finalizers(self[:], getattr(self, "loop", None))


def register_loop() -> None:
    """Register the running loop as one in which exchanges run."""
    _loops.add(asyncio.get_running_loop())


def run_finalizers(callbacks: list[Callback], own: asyncio.AbstractEventLoop | None = None) -> None:
    """Run the callbacks of a dropped response, the last one first; takes ownership of the list."""
    running = running_loop()
    if own is not None and own is not running and own.is_running():  # collected in another thread
        try:  # an empty context: the current one belongs to this thread
            own.call_soon_threadsafe(_call_all, callbacks, context=Context())
            return
        except RuntimeError:  # the loop was closed concurrently
            pass
    if running is None:  # collected in a thread without a loop
        for loop in _loops:
            if loop.is_running():
                loop.call_soon_threadsafe(_call_all, callbacks)
                return
    _call_all(callbacks)


def _call_all(callbacks: list[Callback]) -> None:
    while callbacks:
        try:
            result = callbacks.pop()()
        except Exception:
            log.exception("an on_close callback of a dropped response failed")
            continue
        if isawaitable(result):
            _spawn(result)


def _spawn(awaitable: Awaitable[object]) -> None:
    """Await the callback's result in a task."""
    coroutine = _await(awaitable)
    if running_loop() is None:
        coroutine.close()
        return
    try:
        Shutdown.current().spawn(coroutine, name="on_close of a dropped response")
    except RuntimeError:  # no server runs
        detached_task(coroutine)


async def _await(awaitable: Awaitable[object]) -> None:
    await awaitable

"""Ends that nobody told: of responses that were dropped without being closed."""

from __future__ import annotations

import asyncio
import logging
from asyncio.events import _get_running_loop as running_loop
from collections.abc import Awaitable, Callable
from contextvars import Context
from inspect import isawaitable
from typing import TypeAlias
from weakref import WeakSet

from llama._shutdown import Shutdown, own_task

log = logging.getLogger("llama.server")
Callback: TypeAlias = Callable[[], Awaitable[object] | object]
_loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


class SharedEnd(list[Callback]):
    """What is called back when neither the response nor its body is held any more.

    The response itself has no finalizer: most end without anybody who waits for it.
    """

    __slots__ = ("loop",)

    loop: asyncio.AbstractEventLoop | None
    """The one that the exchange runs in, where there is one."""

    def __del__(self) -> None:
        if self:
            end_forgotten(self[:], getattr(self, "loop", None))


def note_loop() -> None:
    """Exchanges run in this loop."""
    _loops.add(asyncio.get_running_loop())


def end_forgotten(callbacks: list[Callback], own: asyncio.AbstractEventLoop | None = None) -> None:
    """Call what waits for the end of a dropped response, the last one first; takes the list."""
    running = running_loop()
    if own is not None and own is not running and own.is_running():  # the thread of another collects garbage
        try:  # what is current in this thread is not in that one
            own.call_soon_threadsafe(_call_all, callbacks, context=Context())
            return
        except RuntimeError:  # it was closed in the very same moment
            pass
    if running is None:  # a thread without a loop does
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
            log.exception("the end of a dropped response could not be told")
            continue
        if isawaitable(result):
            _spawn(result)


def _spawn(awaitable: Awaitable[object]) -> None:
    """Await it in a task, for whoever dropped the response does not."""
    coroutine = _await(awaitable)
    if running_loop() is None:
        coroutine.close()
        return
    try:
        Shutdown.current().spawn(coroutine, name="the end of a dropped response")
    except RuntimeError:  # no server runs here
        own_task(coroutine)


async def _await(awaitable: Awaitable[object]) -> None:
    await awaitable

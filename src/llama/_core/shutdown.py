"""Ownership of tasks: a server ends only after its last task has."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

from llama._core.loggers import logger

log = logger("server")
T = TypeVar("T")

_current: ContextVar[Shutdown | None]


class Shutdown:
    """Owns every task of a running server, and defines the order in which they end.

    As an async context manager it is the current Shutdown within its block. Leaving the block waits until the
    last task has ended, then awaits the closers registered with `on_close`, last first. A cancelled wait cancels
    the tasks.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stoppers: dict[object, Callable[[], object]] = {}
        self._closers: list[Callable[[], Awaitable[object]]] = []
        self._idle: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.stopping = False

    @staticmethod
    def current() -> Shutdown:
        """Return the Shutdown of the running task; raises RuntimeError outside `run`, `serve` and `Shutdown`."""
        shutdown = _current.get()
        if shutdown is None:
            raise RuntimeError("no llama server runs here: use `async with Shutdown():`, serve() or run()")
        return shutdown

    @contextmanager
    def as_current(self) -> Generator[None]:
        """Make this the current Shutdown of the running task within the block; leaving it waits for nothing."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def spawn(
        self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None, eager: bool = False
    ) -> asyncio.Task[T]:
        """Start a task that this Shutdown owns; an exception that is never retrieved is logged.

        From Python 3.12 on an `eager` task runs until it first waits before this returns.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if eager and sys.version_info >= (3, 12):
            task = asyncio.Task(coroutine, loop=self._loop, name=name, eager_start=True)
            if task.done():
                return task
        else:
            task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not self._tasks and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def __len__(self) -> int:
        return len(self._tasks)

    def on_stop(self, callback: Callable[[], object], /) -> Callable[[], None]:
        """Call back once when stopping begins (now, if it has begun); returns a function that unregisters it."""
        if self.stopping:
            callback()
            return _noop
        key = object()
        self._stoppers[key] = callback
        return lambda: self._stoppers.pop(key, None) and None

    def on_close(self, closer: Callable[[], Awaitable[object]], /) -> None:
        """Await `closer` after the last task has ended: this frees resources that were opened on first use."""
        self._closers.append(closer)

    def stop(self) -> None:
        """Begin to stop: accept no new work, let running tasks finish. Idempotent."""
        if self.stopping:
            return
        self.stopping = True
        stoppers, self._stoppers = list(self._stoppers.values()), {}
        for callback in stoppers:
            callback()

    def cancel(self) -> None:
        """Cancel every task."""
        self.stop()
        for task in tuple(self._tasks):
            task.cancel()

    async def drain(self, grace: float | None = None) -> bool:
        """Wait until the last task has ended; cancel the remaining ones after `grace` seconds (None: never).

        Returns True if no task had to be cancelled.
        """
        self.stop()
        try:
            async with asyncio.timeout(grace):
                await self._wait()
        except TimeoutError:
            self.cancel()
            await self._wait()
            return False
        except asyncio.CancelledError:
            self.cancel()
            raise
        return True

    async def _wait(self) -> None:
        while self._tasks:
            self._idle = asyncio.get_running_loop().create_future()
            try:
                await self._idle
            finally:
                self._idle = None

    async def aclose(self) -> None:
        """Wait until the last task has ended, then await the closers, as leaving the block does."""
        try:
            await self.drain()
        finally:
            await self._close()

    async def __aenter__(self) -> Shutdown:
        self._token = _current.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self.cancel()
            await self.drain()
        finally:
            _current.reset(self._token)
            await self._close()

    async def _close(self) -> None:
        while self._closers:
            closer = self._closers.pop()
            try:
                await closer()
            except Exception:
                log.exception("closing %r failed", closer)


def detached_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that its caller owns, cancels and awaits: no Shutdown waits for it."""
    task = asyncio.get_running_loop().create_task(coroutine)
    task.add_done_callback(_retrieve_exception)
    return task


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Mark the exception as retrieved: the task's owner may have ended without awaiting it."""
    if not task.cancelled():
        task.exception()


def _noop() -> None:
    return None


_current = ContextVar("llama.shutdown", default=None)

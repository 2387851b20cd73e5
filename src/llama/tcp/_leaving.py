"""Work for a client that may leave meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Generic, TypeVar

from llama._errors import LlamaError
from llama._stream import ReadyStream, Stream

T = TypeVar("T")


class ClientLeft(ConnectionAbortedError):
    """The client is gone, so there is nobody to answer."""


async def unless_gone(stream: Stream, work: Awaitable[T], about: str) -> T:
    """Await `work`, and cancel it when the client ends or breaks its stream; nobody else may be reading that.

    Raises ClientLeft then. What the client says meanwhile stays in the stream, and from then on
    its leaving goes unnoticed, as it does on streams without readiness callbacks. Work that does not
    wait is not watched.
    """
    if not isinstance(stream, ReadyStream):
        return await work
    watch = _Watch(stream)
    try:
        return await _Waiting(work, watch.begin)
    except asyncio.CancelledError:
        if watch.cancelled_by_it():
            raise ClientLeft(f"the client left before {about}") from None
        raise
    finally:
        watch.end()


class _Waiting(Generic[T]):
    """Awaits something, and calls back when that waits for the first time."""

    __slots__ = ("_begin", "_work")

    def __init__(self, work: Awaitable[T], begin: Callable[[], object]) -> None:
        self._work = work
        self._begin = begin

    def __await__(self) -> Generator[object, None, T]:
        steps = self._work.__await__()
        try:
            waited = next(steps)
            self._begin()
            while True:
                try:
                    yield waited
                except BaseException as error:
                    waited = steps.throw(error)
                else:
                    waited = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


class _Watch:
    __slots__ = ("_begun", "_cancelling", "_gone", "_over", "_stream", "_task")

    def __init__(self, stream: ReadyStream) -> None:
        self._stream = stream
        self._begun = self._over = self._gone = False

    def begin(self) -> None:
        """Watch the stream for the running task."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("unless_gone() runs in a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._begun = True
        self._stream.on_readable(self.look)

    def end(self) -> None:
        """Leave the stream to others."""
        self._over = True
        if self._begun:
            self._stream.on_readable(None)

    def look(self) -> None:
        if self._over or self._gone:
            return
        try:
            data = self._stream.read_nowait()
        except (OSError, EOFError, LlamaError):
            data = b""
        if data is None:
            return
        self._stream.on_readable(None)
        if data:
            self._stream.unread(bytes(data))
        else:
            self._gone = True
            self._task.cancel()

    def cancelled_by_it(self) -> bool:
        return self._gone and self._task.uncancel() <= self._cancelling

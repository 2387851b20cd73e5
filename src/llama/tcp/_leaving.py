"""Work for a client that may leave meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from llama._errors import LlamaError
from llama._stream import ReadyStream, Stream

T = TypeVar("T")


class ClientLeft(ConnectionAbortedError):
    """The client is gone, so there is nobody to answer."""


async def unless_gone(stream: Stream, work: Awaitable[T], about: str) -> T:
    """Await `work`, and cancel it when the client ends or breaks its stream; nobody else may be reading that.

    Raises ClientLeft then. What the client says meanwhile stays in the stream, and from then on
    its leaving goes unnoticed, as it does on streams without readiness callbacks.
    """
    if not isinstance(stream, ReadyStream):
        return await work
    watch = _Watch(stream)
    stream.on_readable(watch.look)
    try:
        return await work
    except asyncio.CancelledError:
        if watch.cancelled_by_it():
            raise ClientLeft(f"the client left before {about}") from None
        raise
    finally:
        watch.over = True
        stream.on_readable(None)


class _Watch:
    __slots__ = ("_cancelling", "_gone", "_stream", "_task", "over")

    def __init__(self, stream: ReadyStream) -> None:
        self._stream = stream
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("unless_gone() runs in a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._gone = self.over = False

    def look(self) -> None:
        if self.over or self._gone:
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

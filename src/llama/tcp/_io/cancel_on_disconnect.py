"""Cancellation of work whose client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Generic, TypeVar

from llama._core.errors import LlamaError
from llama._core.shutdown import detached_task
from llama._core.stream import NonblockingStream, Stream

T = TypeVar("T")


class ClientLeft(ConnectionAbortedError):
    """The client has disconnected, so a response cannot be sent."""


async def cancel_on_disconnect(stream: Stream, work: Awaitable[T], about: str) -> T:
    """Await `work`, and cancel it if the client closes or resets the stream; other code must not read meanwhile.

    Raises ClientLeft then. Bytes that arrive meanwhile stay in the stream; after them a disconnect is not
    detected, and never on streams without readiness callbacks. Work that does not wait is not watched.
    """
    if not isinstance(stream, NonblockingStream):
        return await work
    watch = _DisconnectWatcher(stream)
    try:
        return await _Waiting(work, watch.begin)
    except asyncio.CancelledError:
        if watch.is_cancelled_by_disconnect():
            raise ClientLeft(f"the client disconnected before {about}") from None
        raise
    finally:
        watch.end()


async def cancel_on_disconnect_any_stream(
    stream: Stream, work: Awaitable[T], about: str, *, ahead: int, grace: float | None
) -> T:
    """Do the same for streams of any type, by reading up to `ahead` bytes, which are put back.

    After that number of bytes a disconnect is not detected. After an orderly end the work has `grace` more
    seconds; None ignores such an end, which may be a half-close.
    """
    watch = _ReadAheadWatcher(stream, ahead, grace)
    try:
        return await _Waiting(work, watch.begin)
    except asyncio.CancelledError:
        if watch.is_cancelled_by_disconnect():
            raise ClientLeft(f"a side disconnected before {about}") from None
        raise
    finally:
        await watch.end()


class _Waiting(Generic[T]):
    """Awaits `work`, and calls `begin` when it waits for the first time."""

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


class _CancelScope:
    """Cancels the running task once, and distinguishes its own cancellation from others."""

    __slots__ = ("_before", "_gone", "_task")

    def __init__(self) -> None:
        self._gone = False
        self._task: asyncio.Task[object] | None = None

    def begin(self) -> None:
        """Record the running task, which waits from now on."""
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a client can be watched only from within a task")
        self._before = self._task.cancelling()

    def on_disconnect(self) -> None:
        """Cancel the task: the client has disconnected."""
        if self._task is not None and not self._gone:
            self._gone = True
            self._task.cancel()

    def is_cancelled_by_disconnect(self) -> bool:
        return self._gone and self._task is not None and self._task.uncancel() <= self._before


class _DisconnectWatcher(_CancelScope):
    __slots__ = ("_over", "_stream")

    def __init__(self, stream: NonblockingStream) -> None:
        super().__init__()
        self._stream = stream
        self._over = False

    def begin(self) -> None:
        """Watch the stream for the running task."""
        super().begin()
        self._stream.on_readable(self.check)

    def end(self) -> None:
        """Release the stream."""
        self._over = True
        if self._task is not None:
            self._stream.on_readable(None)

    def check(self) -> None:
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
            self.on_disconnect()


class _ReadAheadWatcher(_CancelScope):
    __slots__ = ("_grace", "_held", "_reader", "_room", "_stream")

    def __init__(self, stream: Stream, room: int, grace: float | None) -> None:
        super().__init__()
        self._stream = stream
        self._room = room
        self._grace = grace
        self._held: list[bytes] = []
        self._reader: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Read ahead for the running task."""
        super().begin()
        self._reader = detached_task(self._read())

    async def _read(self) -> None:
        try:
            while self._room > 0:
                data = await self._stream.read()
                if not data:
                    if self._grace is not None:
                        await asyncio.sleep(self._grace)
                        self.on_disconnect()
                    return
                self._held.append(data)
                self._room -= len(data)
        except (OSError, EOFError, LlamaError):
            self.on_disconnect()

    async def end(self) -> None:
        """Release the stream, and put back the bytes that were read."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait((self._reader,))
        if self._held:
            self._stream.unread(b"".join(self._held))

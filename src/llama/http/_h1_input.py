"""What comes from an HTTP/1.1 client: bytes, and the sign that it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llama._errors import LlamaError
from llama._stream import ReadyStream, Stream
from llama.http._sweep import Sweep

GONE, STOP, LATE = "gone", "stop", "late"


class Interrupts:
    """Interrupts the connection's own task for a reason, and tells that apart from a cancellation."""

    __slots__ = ("_task", "reason")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.reason = ""

    def interrupt(self, reason: str) -> None:
        """Cancel what the task awaits, once."""
        if not self.reason and self._task is not None:
            self.reason = reason
            self._task.cancel()

    def taken(self) -> str:
        """The reason of the CancelledError that was caught, which is then over; empty when it came from elsewhere."""
        reason, self.reason = self.reason, ""
        if reason and self._task is not None and self._task.uncancel() > 0:
            return ""
        return reason

    async def settle(self) -> str:
        """Take an interruption that came when what it was for had just ended; its reason, or empty."""
        if self.reason:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if reason := self.taken():
                    return reason
                raise
        return ""


class Input:
    """The reading side of a connection.

    `rest` is what was read too far. While an exchange runs and nobody reads, the client's end interrupts it.
    """

    __slots__ = (
        "_armed", "_gone", "_guarded", "_half_close", "_ready", "_sweep", "began", "ended", "rest", "stream"
    )  # fmt: skip

    def __init__(self, stream: Stream, sweep: Sweep, gone: Callable[[], object], *, half_close: bool) -> None:
        self.stream = stream
        self.rest = b""
        self.ended = False
        self._ready = stream if isinstance(stream, ReadyStream) else None
        self._sweep = sweep
        self.began = 0
        self._gone = gone
        self._half_close = half_close
        self._armed = self._guarded = False

    async def read(self) -> bytes:
        """What is there, or comes next; b"" at the end."""
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        if self._armed:
            self.unwatch()
        return await self.stream.read()

    def watch_break(self) -> None:
        """Somebody may read the body, or wait for the other side meanwhile: then only a break is told."""
        if self._ready is not None and not self._guarded:
            self._guarded = True
            self._ready.on_broken(self._gone)

    def release(self) -> None:
        """The stream is somebody else's from now on."""
        self.unwatch()
        if self._guarded and self._ready is not None:
            self._guarded = False
            self._ready.on_broken(None)

    def watch(self) -> None:
        """The request has been read: from now on only its client's end matters."""
        if self._ready is not None:
            self._sweep.add(self)

    def unwatch(self) -> None:
        """Somebody reads again."""
        self._sweep.discard(self)
        if self._armed:
            self._armed = False
            if self._ready is not None:
                self._ready.on_readable(None)

    def arm(self) -> None:
        """The exchange takes its time: have the stream report."""
        if self._ready is not None and not self.rest and not self.ended:
            self._armed = True
            self._ready.on_readable(self._readable)
            self._readable()
        elif self.rest:
            self.watch_break()

    def _readable(self) -> None:
        if not self._armed or self._ready is None:
            return
        try:
            data = self._ready.read_nowait()
        except (OSError, LlamaError):
            data = b""
        if data is None:
            return
        self.unwatch()
        if data:
            self.rest = bytes(data)  # the next request; whoever sends it early is told of no end
            self.watch_break()
        else:
            self.ended = True
            if not self._half_close:
                self._gone()

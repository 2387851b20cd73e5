"""The input of a server's HTTP/1.1 connection: received bytes and disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llama._core.errors import LlamaError
from llama._core.stream import NonblockingStream, Stream
from llama.http._h1.disconnect_watch import DisconnectWatchTimer

CLIENT_GONE, STOPPING, TIMED_OUT = "gone", "stop", "late"


class TaskInterrupt:
    """Interrupts the connection's task for a reason, and distinguishes that from a cancellation from outside."""

    __slots__ = ("_task", "reason")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.reason = ""

    def interrupt(self, reason: str) -> None:
        """Cancel the task's current await; later calls have no effect until the reason is taken."""
        if not self.reason and self._task is not None:
            self.reason = reason
            self._task.cancel()

    def consume(self) -> str:
        """Return and clear the reason of a caught CancelledError; "" if it is a cancellation from outside."""
        reason, self.reason = self.reason, ""
        if reason and self._task is not None and self._task.uncancel() > 0:
            return ""
        return reason

    async def flush_pending(self) -> str:
        """Consume an interruption that came just after its operation had ended; return its reason, or ""."""
        if self.reason:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if reason := self.consume():
                    return reason
                raise
        return ""


class H1Reader:
    """The reading side of a connection.

    `rest` holds bytes that were read but not consumed. While a request is handled and its connection is not being
    read, a disconnect of the client calls `gone`.
    """

    __slots__ = (
        "_gone",
        "_guarded",
        "_half_close",
        "_is_watching",
        "_ready",
        "_sweep",
        "ended",
        "rest",
        "started_at",
        "stream"
    )  # fmt: skip

    def __init__(
        self, stream: Stream, sweep: DisconnectWatchTimer, gone: Callable[[], object], *, half_close: bool
    ) -> None:
        self.stream = stream
        self.rest = b""
        self.ended = False
        self._ready = stream if isinstance(stream, NonblockingStream) else None
        self._sweep = sweep
        self.started_at = 0
        self._gone = gone
        self._half_close = half_close
        self._is_watching = self._guarded = False

    async def read(self) -> bytes:
        """Return `rest`, or else the next bytes; b"" at the end."""
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        if self._is_watching:
            self.unwatch_disconnect()
        return await self.stream.read()

    def watch_reset(self) -> None:
        """Watch only for a broken connection, while the handler may read the body."""
        if self._ready is not None and not self._guarded:
            self._guarded = True
            self._ready.on_broken(self._gone)

    def detach(self) -> None:
        """Stop watching the stream, before another owner takes it."""
        self.unwatch_disconnect()
        if self._guarded and self._ready is not None:
            self._guarded = False
            self._ready.on_broken(None)

    def watch_disconnect(self) -> None:
        """Watch for a disconnect after the request was read completely, once the sweep finds that it takes long."""
        if self._ready is not None:
            self._sweep.add(self)

    def unwatch_disconnect(self) -> None:
        """Stop watching for a disconnect, because the connection is read again."""
        self._sweep.discard(self)
        if self._is_watching:
            self._is_watching = False
            if self._ready is not None:
                self._ready.on_readable(None)

    def start(self) -> None:
        """Register the readiness callback; the sweep calls this for slow requests."""
        if self._ready is not None and not self.rest and not self.ended:
            self._is_watching = True
            self._ready.on_readable(self._readable)
            self._readable()
        elif self.rest:
            self.watch_reset()

    def _readable(self) -> None:
        if not self._is_watching or self._ready is None:
            return
        try:
            data = self._ready.read_nowait()
        except (OSError, LlamaError):
            data = b""
        if data is None:
            return
        self.unwatch_disconnect()
        if data:
            self.rest = bytes(data)  # a pipelined request: its end hides a half-close
            self.watch_reset()
        else:
            self.ended = True
            if not self._half_close:
                self._gone()

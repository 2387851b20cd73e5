"""A Stream over one stream of a multiplexed connection: the common part for HTTP/2 and HTTP/3."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from llama._core.errors import StreamClosedError
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, Stream, busy_error, closed_error

WRITE_SLICE = 65_536


class StreamTunnel(Stream):
    """A bidirectional byte stream: checks for one reader and one writer, rate limits, and tracks cancelled writes."""

    __slots__ = ("_broken", "_closed", "_eof_sent", "_gone", "_held", "_reading", "_unread", "_writing")

    def __init__(self) -> None:
        super().__init__()
        self._unread = b""
        self._held = b""  # bytes received beyond the limit of a read, not yet counted by the rate limit
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = self._writing = self._eof_sent = self._closed = self._broken = False

    # implemented by the connection

    @abstractmethod
    async def _receive(self, limit: int) -> bytes:
        """Return the next bytes, possibly more than `limit`; b"" at the end."""

    @abstractmethod
    async def _send(self, piece: memoryview) -> None:
        """Send a piece; return when the send buffer is small again (backpressure)."""

    @abstractmethod
    def _end(self) -> None:
        """End the sending side, if it is open, after the buffered data."""

    @property
    def _is_sending(self) -> bool:
        """Whether a piece of a cancelled write may have been sent in part."""
        return True

    @abstractmethod
    def _finish(self, *, broken: bool) -> None:
        """Close the stream; `broken` if a write was not finished."""

    @abstractmethod
    def _cut(self) -> None:
        """Reset the stream."""

    # reading

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        if self._reading:
            raise busy_error(self, "reading")
        if self._closed:
            raise closed_error(self)
        if limit < 1:
            raise ValueError(f"expected a read limit of at least 1, got {limit}")
        if self._unread:
            data, self._unread = self._unread[:limit], self._unread[limit:]
            return data
        self._reading = True
        try:
            return await self._read(limit)
        finally:
            self._reading = False

    async def _read(self, limit: int) -> bytes:
        pace = self._pacer
        if pace is not None:
            limit = pace.cap_read(limit)
            while (delay := pace.read_delay()) > 0:
                await self._pause(delay)
        data, self._held = self._held, b""
        if not data:
            data = await self._receive(limit)
        if self._closed:
            raise closed_error(self)
        if len(data) > limit:
            data, self._held = data[:limit], data[limit:]
        if pace is not None and data:
            pace.on_received(len(data))
        return data

    def unread(self, data: bytes, /) -> None:
        self._unread = data + self._unread

    async def _pause(self, delay: float) -> None:
        await asyncio.wait((self._gone,), timeout=delay)
        if self._closed:
            raise closed_error(self)

    # writing

    async def write(self, data: Buffer, /) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        self._check_write()
        view = memoryview(data).cast("B")
        at = 0
        self._writing = True
        try:
            while at < len(view):
                at += await self._write(view[at : at + WRITE_SLICE])
        except BaseException:
            self._broken = self._broken or at > 0 or self._is_sending
            raise
        finally:
            self._writing = False

    async def _write(self, view: memoryview) -> int:
        pace = self._pacer
        if pace is not None:
            view = view[: pace.cap_read(len(view))]
            while (delay := pace.write_delay()) > 0:
                await self._pause(delay)
        await self._send(view)
        if self._closed:
            raise closed_error(self)
        if pace is not None:
            pace.on_sent(len(view))
        return len(view)

    def _check_write(self) -> None:
        if self._closed:
            raise closed_error(self)
        if self._eof_sent:
            raise StreamClosedError(f"cannot write to {self!r}: write_eof was called")
        if self._broken and self._is_sending:
            raise StreamClosedError(
                f"cannot write to {self!r}: an earlier write was cancelled before its end"
            )

    async def write_eof(self) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        if self._closed:
            raise closed_error(self)
        if not self._eof_sent:
            self._eof_sent = True
            self._end()

    # the end

    async def aclose(self) -> None:
        if not self._closed:
            broken = self._broken or self._writing
            self._leave()
            self._finish(broken=broken)

    def abort(self) -> None:
        if not self._closed:
            self._leave()
            self._cut()

    def _leave(self) -> None:
        self._closed = True
        self._unread = self._held = b""
        if not self._gone.done():
            self._gone.set_result(None)

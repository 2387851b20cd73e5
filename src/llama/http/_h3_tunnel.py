"""A stream of bytes over one HTTP/3 request stream: what CONNECT opens (RFC 9114 section 4.4)."""

from __future__ import annotations

import asyncio

from llama._stream import CHUNK, Buffer, Stream, busy, closed
from llama.http._h3_channel import H3_CONNECT_ERROR, H3_NO_ERROR, Channel


class ChannelStream(Stream):
    """Bytes both ways over a channel; whoever made the channel closes that after the stream."""

    __slots__ = ("_channel", "_closed", "_cut", "_over", "_reading", "_rest", "_said_eof", "_writing")

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._rest = b""
        self._over = asyncio.Event()
        self._closed = self._reading = self._writing = self._said_eof = self._cut = False

    def __repr__(self) -> str:
        return f"<tunnel over HTTP/3 stream {self._channel.number}>"

    async def read(self, limit: int = CHUNK, /) -> bytes:
        if limit <= 0:
            raise ValueError(f"read({limit}): expected more than 0")
        if self._reading:
            raise busy(self, "reading")
        self._reading = True
        try:
            return await self._read(limit)
        finally:
            self._reading = False

    async def _read(self, limit: int) -> bytes:
        if self._closed:
            raise closed(self)
        if self._rest:
            data, self._rest = self._rest[:limit], self._rest[limit:]
            return data
        pace = self._pace
        if pace is None:
            return await self._channel.read(limit)
        if delay := pace.read_delay():
            await self._sleep(delay)
        data = await self._channel.read(pace.cap(limit))
        if data:
            pace.received(len(data))
        return data

    async def _sleep(self, delay: float) -> None:
        """Wait, but not longer than the stream lives."""
        try:
            async with asyncio.timeout(delay):
                await self._over.wait()
        except TimeoutError:
            return
        raise closed(self)

    async def write(self, data: Buffer, /) -> None:
        if self._writing:
            raise busy(self, "writing")
        if self._closed or self._said_eof or self._cut:
            raise closed(self)
        view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
        if not view:
            return
        self._writing = True
        try:
            await self._write(view)
        except asyncio.CancelledError:
            self._cut = True
            raise
        finally:
            self._writing = False

    async def _write(self, view: memoryview) -> None:
        while view:
            pace = self._pace
            if pace is None:
                await self._channel.send(view)
                return
            if delay := pace.write_delay():
                await self._sleep(delay)
            size = min(pace.cap(CHUNK), len(view))
            await self._channel.send(view[:size])
            pace.sent(size)
            view = view[size:]

    async def write_eof(self) -> None:
        if self._writing:
            raise busy(self, "writing")
        if self._closed or self._cut:
            raise closed(self)
        if not self._said_eof:
            self._said_eof = True
            await self._channel.send(b"", end=True)

    def unread(self, data: bytes, /) -> None:
        self._rest = data + self._rest

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._said_eof and not self._cut:
                self._channel.end()
            self._free(H3_NO_ERROR)

    def abort(self) -> None:
        if not self._closed:
            self._closed = True
            self._free(H3_CONNECT_ERROR)

    def _free(self, code: int) -> None:
        self._rest = b""
        self._over.set()
        self._channel.fail(closed(self))
        self._channel.drop()
        self._channel.abort(code)

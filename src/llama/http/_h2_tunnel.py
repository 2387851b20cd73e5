"""A Stream over an HTTP/2 stream: what CONNECT and upgrades speak through (RFC 9113 section 8.5)."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Protocol

from llama._errors import Closed
from llama._stream import CHUNK, Buffer, Stream, busy, closed
from llama.http._h2_body import H2Body
from llama.http._h2_link import Link
from llama.http.wire import _h2_frames as frames
from llama.http.wire._h2_states import CLOSED
from llama.http.wire._h2_stream import Stream as H2Stream

PIECE = 65_536


class Owner(Protocol):
    """The exchange that a tunnel took over."""

    link: Link
    stream: H2Stream

    def break_off(self, code: int, /) -> None:
        """Break the stream off."""
        ...

    def half_closed(self) -> None:
        """This side has ended."""
        ...


class H2Tunnel(Stream):
    """Bytes both ways on one stream of a connection; the end of a direction is END_STREAM, a break RST_STREAM."""

    __slots__ = (
        "_body", "_broken", "_closed", "_eof_sent", "_gone", "_held", "_name", "_owner", "_reading", "_unread",
        "_writing",
    )  # fmt: skip

    def __init__(self, owner: Owner, body: H2Body, name: str) -> None:
        super().__init__()
        self._owner = owner
        self._body = body
        self._name = name
        self._unread = b""
        self._held = b""  # what came with a read of fewer bytes; meters have not seen it
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = self._writing = self._eof_sent = self._closed = self._broken = False

    def __repr__(self) -> str:
        return f"<{self._name} on {self._owner.stream}>"

    async def read(self, limit: int = CHUNK, /) -> bytes:
        if self._reading:
            raise busy(self, "reading")
        if self._closed:
            raise closed(self)
        if limit < 1:
            raise ValueError(f"a read of {limit} bytes: expected at least 1")
        if self._unread:
            return self._take(limit)
        self._reading = True
        try:
            return await self._read(limit)
        finally:
            self._reading = False

    async def _read(self, limit: int) -> bytes:
        pace = self._pace
        if pace is not None:
            limit = pace.cap(limit)
            while (delay := pace.read_delay()) > 0:
                await self._pause(delay)
        data, self._held = self._held, b""
        if not data and not (data := self._body.chunk_nowait()):
            data = await self._body.chunk()
        if self._closed:
            raise closed(self)
        if len(data) > limit:
            data, self._held = data[:limit], data[limit:]
        if pace is not None and data:
            pace.received(len(data))
        return data

    def _take(self, limit: int) -> bytes:
        data, self._unread = self._unread[:limit], self._unread[limit:]
        return data

    def unread(self, data: bytes, /) -> None:
        self._unread = data + self._unread

    async def _pause(self, delay: float) -> None:
        await asyncio.wait((self._gone,), timeout=delay)
        if self._closed:
            raise closed(self)

    async def write(self, data: Buffer, /) -> None:
        if self._writing:
            raise busy(self, "writing")
        self._check_write()
        view = memoryview(data).cast("B")
        at = 0
        self._writing = True
        try:
            while at < len(view):
                at += await self._send(view[at : at + PIECE])
        except BaseException:
            self._broken = self._broken or at > 0 or self._is_sending
            raise
        finally:
            self._writing = False

    @property
    def _is_sending(self) -> bool:
        """Whether a piece of a write that was cancelled may have left in part."""
        return self._owner.stream.state < CLOSED

    async def _send(self, view: memoryview) -> int:
        pace = self._pace
        if pace is not None:
            view = view[: pace.cap(len(view))]
            while (delay := pace.write_delay()) > 0:
                await self._pause(delay)
        owner = self._owner
        try:
            await owner.link.send(owner.stream, bytes(view), end=False, is_tunnel=True)
        except Closed:
            if self._closed:
                raise closed(self) from None
            raise broken_pipe() from None
        if self._closed:
            raise closed(self)
        if pace is not None:
            pace.sent(len(view))
        return len(view)

    def _check_write(self) -> None:
        if self._closed:
            raise closed(self)
        if self._eof_sent:
            raise Closed(f"{self!r} takes no more writes: write_eof was called")
        if self._broken and self._is_sending:
            raise Closed(f"{self!r} takes no more writes: an earlier write was cancelled halfway")

    async def write_eof(self) -> None:
        if self._writing:
            raise busy(self, "writing")
        if self._closed:
            raise closed(self)
        if not self._eof_sent:
            self._eof_sent = True
            self._end()

    def _end(self) -> None:
        owner = self._owner
        if owner.stream.state < CLOSED:
            owner.link.engine.send_data(owner.stream, b"", end=True)
            owner.link.flush()
            owner.half_closed()

    async def aclose(self) -> None:
        if self._closed:
            return
        broken = self._broken or self._writing
        self._leave()
        if broken:
            self._owner.break_off(frames.CANCEL)
            return
        if not self._eof_sent:
            self._end()
        if self._body.is_whole:
            return
        self._owner.break_off(frames.NO_ERROR)

    def abort(self) -> None:
        if not self._closed:
            self._leave()
            self._owner.break_off(frames.CANCEL if self._body.is_whole else frames.CONNECT_ERROR)

    def _leave(self) -> None:
        self._closed = True
        if not self._gone.done():
            self._gone.set_result(None)
        self._body.stop(closed(self))
        self._owner.link.ended(self._owner.stream)


def broken_pipe() -> OSError:
    """The error of a write to who is gone."""
    return OSError(errno.EPIPE, os.strerror(errno.EPIPE))


def was_reset() -> OSError:
    """The error of a read from who has broken off."""
    return OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

"""A stream over a non-blocking socket, read and written directly: no asyncio transport in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import threading
from collections.abc import Callable

from llama._errors import Closed
from llama._stream import CHUNK, Buffer, ReadyStream, busy, closed
from llama.tcp._readiness import Readiness

SCRATCH = 262144
LINGER = 1.0
_RESET_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class _Scratch(threading.local):
    """One large buffer for each thread, and so for each running loop: an idle connection holds none."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(SCRATCH))


_scratch = _Scratch()


class SocketStream(ReadyStream):
    """A connected stream socket, TCP or Unix; it owns the socket and closes it.

    The descriptor leaves the loop before it is closed. `peer` is the other side's address, for messages.
    """

    __slots__ = (
        "_broken",
        "_closed",
        "_eof",
        "_eof_sent",
        "_readable",
        "_reading",
        "_short",
        "_sock",
        "_unread",
        "_writable",
        "_writing",
        "peer",
    )

    def __init__(self, sock: socket.socket, peer: str = "") -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self._sock = sock
        self._readable = Readiness(sock.fileno(), loop.add_reader, loop.remove_reader)
        self._writable: Readiness | None = None
        self._unread = b""
        self._reading = self._writing = self._short = False
        self._eof = self._eof_sent = self._closed = self._broken = False
        self.peer = peer

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for options and addresses; the stream goes on owning it."""
        return self._sock

    def __repr__(self) -> str:
        return f"<stream {self.peer}>" if self.peer else f"<stream on descriptor {self._sock.fileno()}>"

    async def read(self, limit: int = CHUNK, /) -> bytes:
        if self._reading:
            raise busy(self, "reading")
        if self._closed:
            raise closed(self)
        if limit < 1:
            raise ValueError(f"a read of {limit} bytes: expected at least 1")
        if self._unread:
            return self._take(limit)
        if self._eof:
            return b""
        self._reading = True
        try:
            if self._pace is not None:
                limit = self._pace.cap(limit)
                if (delay := self._pace.read_delay()) > 0:
                    await self._readable.pause(delay)
            return await self._receive(limit)
        finally:
            self._reading = False

    async def _receive(self, limit: int) -> bytes:
        if self._short:  # the queue was emptied last time: asking at once would mostly be a wasted call
            await self._readable.wait()
        while True:
            try:
                data = self._sock.recv(limit)
            except BlockingIOError:
                await self._readable.wait()
            else:
                self._received(len(data), limit)
                return data

    def _received(self, count: int, limit: int) -> None:
        self._short = count < limit
        if not count:
            self._eof = True
        elif self._pace is not None:
            self._pace.received(count)

    def _take(self, limit: int) -> bytes:
        data, self._unread = self._unread[:limit], self._unread[limit:]
        return data

    def unread(self, data: bytes, /) -> None:
        self._unread = data + self._unread

    def read_nowait(self, limit: int = CHUNK, /) -> Buffer | None:
        if self._closed:
            raise closed(self)
        if self._unread:
            return self._take(limit)
        if self._eof:
            return b""
        if self._pace is not None:
            limit = self._pace.cap(limit)
            if (delay := self._pace.read_delay()) > 0:
                self._readable.hold(delay)
                return None
        scratch = _scratch.view
        try:
            count = self._sock.recv_into(scratch, min(SCRATCH, limit))
        except BlockingIOError:
            return None
        self._received(count, limit)
        return scratch[:count]

    def on_readable(self, callback: Callable[[], object] | None, /) -> None:
        if not self._closed:
            self._readable.on(callback)

    async def write(self, data: Buffer, /) -> None:
        if self._writing or self._eof_sent or self._broken or self._closed:
            raise self._no_write()
        if type(data) is memoryview:
            data = data.cast("B")
        count = 0
        if self._pace is None:
            with contextlib.suppress(BlockingIOError):
                count = self._sock.send(data)
        if count < len(data):
            await self._write_rest(memoryview(data), count)

    async def _write_rest(self, data: memoryview, count: int) -> None:
        self._writing = True
        try:
            while count < len(data):
                if (taken := self.write_nowait(data[count:])) == 0:
                    await self._wait_writable()
                count += taken
        except BaseException:
            self._broken = count > 0
            raise
        finally:
            self._writing = False

    async def _wait_writable(self) -> None:
        delay = self._pace.write_delay() if self._pace is not None else 0.0
        if delay > 0:
            await self._writer().pause(delay)
        else:
            await self._writer().wait()

    def _writer(self) -> Readiness:
        if self._writable is None:
            loop = asyncio.get_running_loop()
            self._writable = Readiness(self._sock.fileno(), loop.add_writer, loop.remove_writer)
        return self._writable

    def _no_write(self) -> Exception:
        if self._writing:
            return busy(self, "writing")
        if self._closed:
            return closed(self)
        reason = "write_eof was called" if self._eof_sent else "an earlier write was cancelled halfway"
        return Closed(f"{self!r} takes no more writes: {reason}")

    def write_nowait(self, data: Buffer, /) -> int:
        if self._eof_sent or self._closed or self._broken:
            raise self._no_write()
        pace = self._pace
        if pace is not None:
            if (delay := pace.write_delay()) > 0:
                self._writer().hold(delay)
                return 0
            data = memoryview(data)[: pace.cap(len(data))]
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            return 0
        if pace is not None:
            pace.sent(count)
        return count

    def flush_nowait(self) -> bool:
        return True

    def on_writable(self, callback: Callable[[], object] | None, /) -> None:
        if not self._closed and (callback is not None or self._writable is not None):
            self._writer().on(callback)

    async def write_eof(self) -> None:
        if self._writing:
            raise busy(self, "writing")
        self.write_eof_nowait()

    def write_eof_nowait(self) -> None:
        if self._closed:
            raise closed(self)
        if not self._eof_sent:
            self._eof_sent = True
            with contextlib.suppress(OSError):  # the peer may have reset: the next call tells
                self._sock.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._leave()
        try:
            if not self._eof:
                await self._linger()
        finally:
            self._sock.close()

    def abort(self) -> None:
        if not self._closed:
            self._leave()
        if self._sock.fileno() >= 0:  # also while aclose lingers
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._readable.fail(closed(self))
            self._sock.close()

    def _leave(self) -> None:
        self._closed = True
        self._readable.fail(closed(self))
        if self._writable is not None:
            self._writable.fail(closed(self))

    async def _linger(self) -> None:
        # Closing over bytes that nobody read sends a reset, which can overtake what was written last.
        with contextlib.suppress(OSError, TimeoutError):
            if not self._sock.recv_into(_scratch.view):
                return
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LINGER):
                while True:
                    try:
                        if not self._sock.recv_into(_scratch.view):
                            return
                    except BlockingIOError:
                        await self._readable.wait()

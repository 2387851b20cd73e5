"""A stream over a socket on a loop without readiness callbacks: the loop receives and sends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from llama._core.errors import StreamClosedError
from llama._core.shutdown import detached_task
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, Stream, busy_error, closed_error
from llama.tcp._io.stream import LINGER_TIMEOUT, RESET_ON_CLOSE


class ProactorStream(Stream):
    """A connected stream socket on a loop such as Windows' proactor; it owns the socket and closes it.

    Bytes that the loop receives for a cancelled read are kept for the next one.
    """

    __slots__ = (
        "_broken",
        "_closed",
        "_eof",
        "_eof_sent",
        "_error",
        "_gone",
        "_loop",
        "_reading",
        "_receiving",
        "_sending",
        "_sock",
        "_unread",
        "_writing",
        "peer",
    )

    def __init__(self, sock: socket.socket, peer: object = "") -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._unread = b""
        self._receiving: asyncio.Task[bytes] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._reading = self._writing = False
        self._eof = self._eof_sent = self._closed = self._broken = False
        self._error: int | None = None
        self.peer = peer

    @property
    def socket(self) -> socket.socket:
        """The socket, for options and addresses; the stream still owns it."""
        return self._sock

    def __repr__(self) -> str:
        return f"<stream {self.peer}>" if self.peer else f"<stream on descriptor {self._sock.fileno()}>"

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        if self._reading:
            raise busy_error(self, "reading")
        if self._closed:
            raise closed_error(self)
        if limit < 1:
            raise ValueError(f"a read of {limit} bytes: expected at least 1")
        if self._unread:
            return self._take(limit)
        if self._eof:
            return b""
        self._reading = True
        try:
            return await self._receive(limit)
        finally:
            self._reading = False

    async def _receive(self, limit: int) -> bytes:
        if self._pacer is not None:
            limit = self._pacer.cap_read(limit)
            while (delay := self._pacer.read_delay()) > 0:
                await self._pause(delay)
        data = await self._received(limit)
        if not data:
            if self._error is not None:
                raise OSError(self._error, os.strerror(self._error))
            self._eof = True
        elif self._pacer is not None:
            self._pacer.on_received(len(data))
        if len(data) > limit:  # received for a cancelled read with a larger limit
            self.unread(data)
            return self._take(limit)
        return data

    async def _received(self, limit: int) -> bytes:
        if self._receiving is None:
            try:
                return self._sock.recv(limit)
            except BlockingIOError:
                self._receiving = detached_task(self._loop.sock_recv(self._sock, limit))
            except OSError as error:
                self._fail(error)
                raise
        await asyncio.wait((self._receiving,))
        if self._closed:
            raise closed_error(self)
        task, self._receiving = self._receiving, None
        try:
            return task.result()
        except OSError as error:
            self._fail(error)
            raise

    def _fail(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self._error = error.errno

    def _take(self, limit: int) -> bytes:
        data, self._unread = self._unread[:limit], self._unread[limit:]
        return data

    def unread(self, data: bytes, /) -> None:
        self._unread = data + self._unread

    async def _pause(self, delay: float) -> None:
        await asyncio.wait((self._gone,), timeout=delay)
        if self._closed:
            raise closed_error(self)

    async def write(self, data: Buffer, /) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        self._check_write()
        view = memoryview(data).cast("B")
        count = 0
        self._writing = True
        try:
            while count < len(view):
                count += await self._send(view[count:])
        except OSError:  # later calls raise it again
            raise
        except BaseException:
            self._broken = self._broken or count > 0
            raise
        finally:
            self._writing = False

    def _check_write(self) -> None:
        if self._closed:
            raise closed_error(self)
        if self._eof_sent:
            raise StreamClosedError(f"{self!r} takes no more writes: write_eof was called")
        if self._broken:
            raise StreamClosedError(f"{self!r} takes no more writes: an earlier write was cancelled halfway")

    async def _send(self, view: memoryview) -> int:
        pace = self._pacer
        if pace is not None:
            view = view[: pace.cap_read(len(view))]
            while (delay := pace.write_delay()) > 0:
                await self._pause(delay)
        try:
            count = self._sock.send(view)
        except BlockingIOError:
            count = await self._send_all(view)
        except OSError as error:
            self._fail(error)
            raise
        if pace is not None:
            pace.on_sent(count)
        return count

    async def _send_all(self, view: memoryview) -> int:
        self._sending = task = detached_task(self._loop.sock_sendall(self._sock, view))
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            self._broken = True  # it is unknown how many bytes were sent
            task.cancel()
            raise
        if self._closed:
            raise closed_error(self)
        self._sending = None
        try:
            task.result()
        except OSError as error:
            self._fail(error)
            raise
        return len(view)

    async def write_eof(self) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        if self._closed:
            raise closed_error(self)
        if not self._eof_sent:
            self._eof_sent = True
            with contextlib.suppress(OSError):  # the peer may have reset: the next call raises it
                self._sock.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._wake_pending()
        try:
            if calls := self._pending_calls():
                await asyncio.wait(calls)
            if not self._eof:
                await self._linger()
        finally:
            self._close_after_calls()

    def abort(self) -> None:
        if self._sock.fileno() >= 0:  # also while aclose lingers
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._wake_pending()
            self._close_after_calls()

    def _wake_pending(self) -> None:
        self._closed = True
        if not self._gone.done():
            self._gone.set_result(None)
        for call in self._pending_calls():
            call.cancel()

    def _pending_calls(self) -> list[asyncio.Task[bytes] | asyncio.Task[None]]:
        """The pending loop calls, which use the descriptor until they end."""
        return [call for call in (self._receiving, self._sending) if call is not None and not call.done()]

    def _close_after_calls(self) -> None:
        calls = self._pending_calls()
        for call in calls:
            call.cancel()
            call.add_done_callback(lambda _: self._close_after_calls())
        if not calls:
            self._sock.close()

    async def _linger(self) -> None:
        # Closing with unread bytes sends a reset, which can destroy the last bytes written.
        with contextlib.suppress(OSError, TimeoutError):
            if not self._sock.recv(DEFAULT_READ_SIZE):
                return
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LINGER_TIMEOUT):
                while self._sock.fileno() >= 0:
                    self._receiving = detached_task(self._loop.sock_recv(self._sock, DEFAULT_READ_SIZE))
                    await asyncio.wait((self._receiving,))
                    if self._receiving.cancelled() or not self._receiving.result():
                        return

"""A stream over a non-blocking socket, read and written directly, without an asyncio transport.

Situations to handle: any call is cancelled at any await, the peer resets between two calls, a write is accepted in
part, another task closes the stream during a read, and the peer still sends while this side closes. Failures to
rule out: a cancelled read that loses bytes, a second write after half of the first, a reset that a later
read reports as an orderly end, or a closed descriptor number that is still in the poller.

- A read waits for readiness and then makes the system call itself, with no await in between, so cancellation
  cannot lose bytes. A write that is cancelled after some bytes were accepted leaves the peer with half a
  message: `_broken` makes every later write raise. asyncio's transports were tried: they are the slow part of
  asyncio's TLS, they buffer without the caller's knowledge, and their cancellation rules differ.
- A call is tried first and waited for on EAGAIN only; a short read means an empty queue, which saves the call
  that would return EAGAIN, unless the peer has closed (`hangup`): then one more read returns its end.
- Reads by callback share one 256 KB buffer for each loop, so that an idle connection holds none; a returned
  memoryview is valid until the next call. `recv` of 256 KB allocates by mmap and costs five times as much.
- The kernel reports a reset once and an end from then on: `_error` keeps the error for later reads. EPIPE is not
  such an error, since it also follows an orderly close of the peer.
- `write_buffered` keeps at most one small message until the end of the loop iteration: a peer to which several
  connections send in one iteration wakes once. Every later write, half-close and close sends it first.
- `bypass_fast_path` is true while meters or bytes that were put back require the slow path of a pump.
- Closing with unread bytes in the queue would send a reset, which can destroy the last bytes in flight. `aclose`
  therefore shuts the write side down and discards input until the peer's end, for at most LINGER_TIMEOUT seconds.
  `abort` sets SO_LINGER to 0 to send a reset deliberately.
- `aclose` and `abort` wake pending calls with StreamClosedError, not CancelledError, which would look like a
  cancelled task,
  and unregister the descriptor before they close it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable

from llama._core.errors import StreamClosedError
from llama._core.meter import Meter
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, NonblockingStream, busy_error, closed_error
from llama.tcp._io.readiness import Port

BUFFER_SIZE = 262144
COALESCE_MAX = 16384  # bytes; the largest message that write_soon accepts
LINGER_TIMEOUT = 1.0  # seconds that aclose waits for the peer's end
RESET_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class _Scratch(threading.local):
    """One large buffer for each thread, and thus for each running loop: idle connections hold none."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BUFFER_SIZE))


_scratch = _Scratch()


def scratch() -> memoryview:
    """Return the running loop's buffer: its content is valid until the next call on any stream of the loop."""
    return _scratch.view


class SocketStream(NonblockingStream):
    """A connected stream socket, TCP or Unix; it owns the socket and closes it.

    The descriptor is unregistered before it is closed. `peer` names the peer in messages; `port` is the socket's
    readiness, for code that drives the socket directly.
    """

    __slots__ = (
        "_broken",
        "_buffered",
        "_closed",
        "_eof",
        "_eof_sent",
        "_error",
        "_reading",
        "_sock",
        "_unread",
        "_writing",
        "bypass_fast_path",
        "peer",
        "port",
    )

    def __init__(self, sock: socket.socket, peer: object = "", port: Port | None = None) -> None:
        super().__init__()
        self._sock = sock
        self.port = port or Port(sock.fileno())
        self._unread = b""
        self._buffered = b""  # by write_soon
        self.bypass_fast_path = (
            False  # meters, or bytes put back or not yet sent: a pump must not use the socket directly
        )
        self._reading = self._writing = False
        self._eof = self._eof_sent = self._closed = self._broken = False
        self._error: int | None = None
        self.peer = peer

    @property
    def socket(self) -> socket.socket:
        """The socket, for options and addresses; the stream still owns it."""
        return self._sock

    @property
    def may_read_more(self) -> bool:
        return self.port.readable or self._eof or bool(self._unread)

    def mark_eof(self) -> None:
        """Record the end of the input, which code that drives the socket directly has read."""
        self._eof = True

    def _fail(self, error: OSError) -> None:
        """Record that the connection broke: the kernel reports it once, and an end from then on."""
        if not isinstance(error, BrokenPipeError):  # which also follows an orderly close of the peer
            self._error = error.errno

    def __repr__(self) -> str:
        return f"<stream {self.peer}>" if self.peer else f"<stream on descriptor {self._sock.fileno()}>"

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        if self._reading or self._closed or limit < 1:
            raise self._check_read(limit)
        if self._unread:
            return self._take(limit)
        if self._eof:
            return b""
        self._reading = True
        try:
            if self._pacer is not None:
                limit = await self._paced(limit)
            port = self.port
            while True:
                if not port.readable:
                    await port.when_readable()
                try:
                    data = self._sock.recv(limit)
                except BlockingIOError:
                    port.clear_readable()
                except OSError as error:
                    self._fail(error)
                    raise
                else:
                    self._received(len(data), limit)
                    return data
        finally:
            self._reading = False

    def _check_read(self, limit: int) -> Exception:
        if self._reading:
            return busy_error(self, "reading")
        if self._closed:
            return closed_error(self)
        return ValueError(f"a read of {limit} bytes: expected at least 1")

    async def _paced(self, limit: int) -> int:
        """Wait until the meters permit another read; returns its size limit."""
        if self._pacer is None:
            return limit
        limit = self._pacer.cap_read(limit)
        while (delay := self._pacer.read_delay()) > 0:
            await self.port.pause_read(delay)
        return limit

    def _received(self, count: int, limit: int) -> None:
        if not count:
            if self._error is not None:
                raise OSError(self._error, os.strerror(self._error))
            self._eof = True
            return
        if count < limit and not self.port.hangup:  # the queue is empty: another call would return EAGAIN
            self.port.clear_readable()
        if self._pacer is not None:
            self._pacer.on_received(count)

    def _take(self, limit: int) -> bytes:
        data, self._unread = self._unread[:limit], self._unread[limit:]
        self.bypass_fast_path = self._pacer is not None or bool(self._unread)
        return data

    def unread(self, data: bytes, /) -> None:
        self._unread = data + self._unread
        self.bypass_fast_path = True

    def attach(self, meter: Meter, /) -> None:
        self._flush()
        super().attach(meter)
        self.bypass_fast_path = True

    def detach(self, meter: Meter, /) -> None:
        super().detach(meter)
        self.bypass_fast_path = self._pacer is not None or bool(self._unread)

    def read_nowait(self, limit: int = DEFAULT_READ_SIZE, /) -> Buffer | None:
        if self._closed:
            raise closed_error(self)
        if self._unread:
            return self._take(limit)
        if self._eof:
            return b""
        if limit > BUFFER_SIZE:
            limit = BUFFER_SIZE
        if self._pacer is not None:
            limit = self._pacer.cap_read(limit)
            if (delay := self._pacer.read_delay()) > 0:
                self.port.delay_readable(delay)
                return None
        if not self.port.readable:
            return None
        view = _scratch.view
        try:
            count = self._sock.recv_into(view, limit)
        except BlockingIOError:
            self.port.clear_readable()
            return None
        except OSError as error:
            self._fail(error)
            raise
        self._received(count, limit)
        return view[:count]

    def on_readable(self, callback: Callable[[], object] | None, /) -> None:
        if not self._closed:
            self.port.on_readable(callback)
            if callback is not None and self._unread:
                asyncio.get_running_loop().call_soon(callback)

    def on_broken(self, callback: Callable[[], object] | None, /) -> None:
        if not self._closed:
            self.port.on_broken(callback)

    def write_buffered(self, data: bytes, /) -> bool:
        if (
            self._buffered
            or self._pacer is not None
            or self._writing
            or self._eof_sent
            or self._broken
            or self._closed
            or len(data) > COALESCE_MAX
        ):
            return False
        self._buffered = data
        self.port.send_soon(self)
        return True

    def flush_buffered(self) -> None:
        """Send the message that `write_buffered` queued; called at the end of the loop iteration."""
        if not self._flush():
            self.bypass_fast_path = True
            self.port.on_writable(self._flush_later)

    def _flush(self) -> bool:
        """Send the message that `write_buffered` queued; True once the kernel has all of it."""
        data = self._buffered
        if not data:
            return True
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:  # the next call raises it too
            self._fail(error)
            count = len(data)
        self._buffered = data = data[count:]
        if data:
            self.port.clear_writable()
            return False
        if self.bypass_fast_path:
            self.bypass_fast_path = self._pacer is not None or bool(self._unread)
        if self._eof_sent:
            self._shut()
        return True

    def _flush_later(self) -> None:
        if self._flush():
            self.port.on_writable(None)

    async def _flush_all(self) -> None:
        """Send the message that `write_buffered` queued, before anything else."""
        if self._flush():
            return
        self.port.on_writable(None)
        self._writing = True
        try:
            while not self._flush():
                await self.port.wait_writable()
        finally:
            self._writing = False
            if self._buffered and not self._closed:
                self.port.on_writable(self._flush_later)

    async def write(self, data: Buffer, /) -> None:
        if self._writing or self._eof_sent or self._broken or self._closed:
            raise self._check_write()
        if self._buffered:
            await self._flush_all()
        if type(data) is memoryview:
            data = data.cast("B")
        count = 0
        if self._pacer is None:
            try:
                count = self._sock.send(data)
            except BlockingIOError:
                self.port.clear_writable()
            except OSError as error:
                self._fail(error)
                raise
        if count < len(data):
            await self._write_rest(memoryview(data), count)

    async def _write_rest(self, data: memoryview, count: int) -> None:
        self._writing = True
        try:
            while count < len(data):
                if (taken := self.write_nowait(data[count:])) == 0:
                    await self._wait_writable()
                count += taken
        except OSError:  # later calls raise it again
            raise
        except BaseException:
            self._broken = count > 0
            raise
        finally:
            self._writing = False

    async def _wait_writable(self) -> None:
        delay = self._pacer.write_delay() if self._pacer is not None else 0.0
        if delay > 0:
            await self.port.pause_write(delay)
        else:
            await self.port.wait_writable()

    def _check_write(self) -> Exception:
        if self._writing:
            return busy_error(self, "writing")
        if self._closed:
            return closed_error(self)
        reason = "write_eof was called" if self._eof_sent else "an earlier write was cancelled halfway"
        return StreamClosedError(f"{self!r} takes no more writes: {reason}")

    def write_nowait(self, data: Buffer, /) -> int:
        if self._eof_sent or self._closed or self._broken:
            raise self._check_write()
        if self._buffered and not self._flush():
            return 0
        pace = self._pacer
        if pace is not None:
            if (delay := pace.write_delay()) > 0:
                self.port.delay_writable(delay)
                return 0
            data = memoryview(data)[: pace.cap_read(len(data))]
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._fail(error)
            raise
        if count < len(data):
            self.port.clear_writable()
        if pace is not None and count:
            pace.on_sent(count)
        return count

    def flush_nowait(self) -> bool:
        return self._flush()

    def on_writable(self, callback: Callable[[], object] | None, /) -> None:
        if not self._closed:
            self.port.on_writable(callback)

    async def write_eof(self) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        self.write_eof_nowait()

    def write_eof_nowait(self) -> None:
        if self._closed:
            raise closed_error(self)
        if not self._eof_sent:
            self._eof_sent = True
            if not self._buffered:
                self._shut()
            elif not self._flush():
                self.port.on_writable(self._flush_later)

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # the peer may have reset: the next call raises it
            self._sock.shutdown(socket.SHUT_WR)

    def _closed_error(self) -> Exception:
        return closed_error(self)

    async def aclose(self) -> None:
        if self._closed:
            return
        if self._buffered and not self._writing:
            with contextlib.suppress(OSError, StreamClosedError):
                await self._flush_all()
        self._closed = True
        self.port.fail(self._closed_error)
        try:
            if not self._eof:
                await self._linger()
        finally:
            self._close()

    def abort(self) -> None:
        if self._sock.fileno() >= 0:  # also while aclose lingers
            self._closed = True
            self._buffered = b""
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.port.fail(self._closed_error)
            self._close()

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self.port.unregister()
            self._sock.close()

    async def _linger(self) -> None:
        # Closing with unread bytes sends a reset, which can destroy the last bytes written.
        with contextlib.suppress(OSError, TimeoutError):
            if not self._sock.recv_into(_scratch.view):
                return
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LINGER_TIMEOUT):
                while True:
                    try:
                        if not self._sock.recv_into(_scratch.view):
                            return
                    except BlockingIOError:
                        self.port.clear_readable()
                        await self.port.wait_readable()

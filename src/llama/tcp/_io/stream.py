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
- The kernel reports a reset once and an end from then on: `_lost` keeps the error for later reads. EPIPE is not
  such an error, since it also follows an orderly close of the peer.
- `write_soon` keeps at most one small message until the end of the loop iteration: a peer to which several
  connections send in one iteration wakes once. Every later write, half-close and close sends it first.
- `special` is true while meters or bytes that were put back require the slow path of a pump.
- Closing with unread bytes in the queue would send a reset, which can destroy the last bytes in flight. `aclose`
  therefore shuts the write side down and discards input until the peer's end, for at most LINGER seconds.
  `abort` sets SO_LINGER to 0 to send a reset deliberately.
- `aclose` and `abort` wake pending calls with Closed, not CancelledError, which would look like a cancelled task,
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

from llama._core.errors import Closed
from llama._core.meter import Meter
from llama._core.stream import CHUNK, Buffer, ReadyStream, busy, closed
from llama.tcp._io.readiness import Port

SCRATCH = 262144
SOON = 16384  # bytes; the largest message that write_soon accepts
LINGER = 1.0  # seconds that aclose waits for the peer's end
RESET_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class _Scratch(threading.local):
    """One large buffer for each thread, and thus for each running loop: idle connections hold none."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(SCRATCH))


_scratch = _Scratch()


def scratch() -> memoryview:
    """Return the running loop's buffer: its content is valid until the next call on any stream of the loop."""
    return _scratch.view


class SocketStream(ReadyStream):
    """A connected stream socket, TCP or Unix; it owns the socket and closes it.

    The descriptor is unregistered before it is closed. `peer` names the peer in messages; `port` is the socket's
    readiness, for code that drives the socket directly.
    """

    __slots__ = (
        "_broken",
        "_closed",
        "_eof",
        "_eof_sent",
        "_lost",
        "_reading",
        "_sock",
        "_taken",
        "_unread",
        "_writing",
        "peer",
        "port",
        "special",
    )

    def __init__(self, sock: socket.socket, peer: object = "", port: Port | None = None) -> None:
        super().__init__()
        self._sock = sock
        self.port = port or Port(sock.fileno())
        self._unread = b""
        self._taken = b""  # by write_soon
        self.special = (
            False  # meters, or bytes put back or not yet sent: a pump must not use the socket directly
        )
        self._reading = self._writing = False
        self._eof = self._eof_sent = self._closed = self._broken = False
        self._lost: int | None = None
        self.peer = peer

    @property
    def socket(self) -> socket.socket:
        """The socket, for options and addresses; the stream still owns it."""
        return self._sock

    @property
    def more(self) -> bool:
        return self.port.readable or self._eof or bool(self._unread)

    def mark_eof(self) -> None:
        """Record the end of the input, which code that drives the socket directly has read."""
        self._eof = True

    def _lose(self, error: OSError) -> None:
        """Record that the connection broke: the kernel reports it once, and an end from then on."""
        if not isinstance(error, BrokenPipeError):  # which also follows an orderly close of the peer
            self._lost = error.errno

    def __repr__(self) -> str:
        return f"<stream {self.peer}>" if self.peer else f"<stream on descriptor {self._sock.fileno()}>"

    async def read(self, limit: int = CHUNK, /) -> bytes:
        if self._reading or self._closed or limit < 1:
            raise self._no_read(limit)
        if self._unread:
            return self._take(limit)
        if self._eof:
            return b""
        self._reading = True
        try:
            if self._pace is not None:
                limit = await self._paced(limit)
            port = self.port
            while True:
                if not port.readable:
                    await port.when_readable()
                try:
                    data = self._sock.recv(limit)
                except BlockingIOError:
                    port.unreadable()
                except OSError as error:
                    self._lose(error)
                    raise
                else:
                    self._received(len(data), limit)
                    return data
        finally:
            self._reading = False

    def _no_read(self, limit: int) -> Exception:
        if self._reading:
            return busy(self, "reading")
        if self._closed:
            return closed(self)
        return ValueError(f"a read of {limit} bytes: expected at least 1")

    async def _paced(self, limit: int) -> int:
        """Wait until the meters permit another read; returns its size limit."""
        if self._pace is None:
            return limit
        limit = self._pace.cap(limit)
        while (delay := self._pace.read_delay()) > 0:
            await self.port.pause_read(delay)
        return limit

    def _received(self, count: int, limit: int) -> None:
        if not count:
            if self._lost is not None:
                raise OSError(self._lost, os.strerror(self._lost))
            self._eof = True
            return
        if count < limit and not self.port.hangup:  # the queue is empty: another call would return EAGAIN
            self.port.unreadable()
        if self._pace is not None:
            self._pace.received(count)

    def _take(self, limit: int) -> bytes:
        data, self._unread = self._unread[:limit], self._unread[limit:]
        self.special = self._pace is not None or bool(self._unread)
        return data

    def unread(self, data: bytes, /) -> None:
        self._unread = data + self._unread
        self.special = True

    def attach(self, meter: Meter, /) -> None:
        self._push()
        super().attach(meter)
        self.special = True

    def detach(self, meter: Meter, /) -> None:
        super().detach(meter)
        self.special = self._pace is not None or bool(self._unread)

    def read_nowait(self, limit: int = CHUNK, /) -> Buffer | None:
        if self._closed:
            raise closed(self)
        if self._unread:
            return self._take(limit)
        if self._eof:
            return b""
        if limit > SCRATCH:
            limit = SCRATCH
        if self._pace is not None:
            limit = self._pace.cap(limit)
            if (delay := self._pace.read_delay()) > 0:
                self.port.hold_readable(delay)
                return None
        if not self.port.readable:
            return None
        view = _scratch.view
        try:
            count = self._sock.recv_into(view, limit)
        except BlockingIOError:
            self.port.unreadable()
            return None
        except OSError as error:
            self._lose(error)
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

    def write_soon(self, data: bytes, /) -> bool:
        if (
            self._taken
            or self._pace is not None
            or self._writing
            or self._eof_sent
            or self._broken
            or self._closed
            or len(data) > SOON
        ):
            return False
        self._taken = data
        self.port.send_soon(self)
        return True

    def send_taken(self) -> None:
        """Send the message that `write_soon` queued; called at the end of the loop iteration."""
        if not self._push():
            self.special = True
            self.port.on_writable(self._push_on)

    def _push(self) -> bool:
        """Send the message that `write_soon` queued; True once the kernel has all of it."""
        data = self._taken
        if not data:
            return True
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:  # the next call raises it too
            self._lose(error)
            count = len(data)
        self._taken = data = data[count:]
        if data:
            self.port.unwritable()
            return False
        if self.special:
            self.special = self._pace is not None or bool(self._unread)
        if self._eof_sent:
            self._shut()
        return True

    def _push_on(self) -> None:
        if self._push():
            self.port.on_writable(None)

    async def _push_all(self) -> None:
        """Send the message that `write_soon` queued, before anything else."""
        if self._push():
            return
        self.port.on_writable(None)
        self._writing = True
        try:
            while not self._push():
                await self.port.wait_writable()
        finally:
            self._writing = False
            if self._taken and not self._closed:
                self.port.on_writable(self._push_on)

    async def write(self, data: Buffer, /) -> None:
        if self._writing or self._eof_sent or self._broken or self._closed:
            raise self._no_write()
        if self._taken:
            await self._push_all()
        if type(data) is memoryview:
            data = data.cast("B")
        count = 0
        if self._pace is None:
            try:
                count = self._sock.send(data)
            except BlockingIOError:
                self.port.unwritable()
            except OSError as error:
                self._lose(error)
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
        delay = self._pace.write_delay() if self._pace is not None else 0.0
        if delay > 0:
            await self.port.pause_write(delay)
        else:
            await self.port.wait_writable()

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
        if self._taken and not self._push():
            return 0
        pace = self._pace
        if pace is not None:
            if (delay := pace.write_delay()) > 0:
                self.port.hold_writable(delay)
                return 0
            data = memoryview(data)[: pace.cap(len(data))]
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._lose(error)
            raise
        if count < len(data):
            self.port.unwritable()
        if pace is not None and count:
            pace.sent(count)
        return count

    def flush_nowait(self) -> bool:
        return self._push()

    def on_writable(self, callback: Callable[[], object] | None, /) -> None:
        if not self._closed:
            self.port.on_writable(callback)

    async def write_eof(self) -> None:
        if self._writing:
            raise busy(self, "writing")
        self.write_eof_nowait()

    def write_eof_nowait(self) -> None:
        if self._closed:
            raise closed(self)
        if not self._eof_sent:
            self._eof_sent = True
            if not self._taken:
                self._shut()
            elif not self._push():
                self.port.on_writable(self._push_on)

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # the peer may have reset: the next call raises it
            self._sock.shutdown(socket.SHUT_WR)

    def _closed_error(self) -> Exception:
        return closed(self)

    async def aclose(self) -> None:
        if self._closed:
            return
        if self._taken and not self._writing:
            with contextlib.suppress(OSError, Closed):
                await self._push_all()
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
            self._taken = b""
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.port.fail(self._closed_error)
            self._close()

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self.port.leave()
            self._sock.close()

    async def _linger(self) -> None:
        # Closing with unread bytes sends a reset, which can destroy the last bytes written.
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
                        self.port.unreadable()
                        await self.port.wait_readable()

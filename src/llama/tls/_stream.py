"""TLS over any stream, by an SSLObject between two memory BIOs.

A TLSStream reads ciphertext from the inner stream, feeds it to the incoming BIO, and sends what the session
puts into the outgoing BIO. It depends on the Stream interface alone, so TLS in TLS, a half-close and bytes read
ahead need no code of their own.

What can happen: a call is cancelled at any await; the peer half-closes, or ends without close_notify, or is
reset; a record is damaged; the peer requests key updates faster than it reads the answers; reading and writing
run at the same time.

What must never happen: a cancelled read loses bytes; an attacker's FIN passes for the end of the data; data is
sent after a write that was interrupted halfway; buffers grow with what the peer sends.

How it is done: received bytes enter the BIO without an await in between, so a cancelled read leaves them there.
A cancelled or failed write marks the stream as broken, and later writes raise. An end without close_notify is
Truncated. Before close_notify is sent, plaintext that has arrived is read out, since `unwrap` looks for the peer's
close_notify and fails on data before it. Whole records are counted as they arrive, because reading from a session
without one raises an exception, which is slow. BIOs never shrink, so each is fed at most 64 KiB at a time.

Rejected: asyncio's TLS, whose transports cost about half as much again per byte, and `ssl.SSLSocket`, which
loses bytes when a write is cancelled and fails in `unwrap` while data is queued.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable
from typing import cast

from llama._core.errors import LlamaError, StreamClosedError, TLSError, TruncatedError
from llama._core.extensions import Extensions
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, Stream, busy_error, closed_error
from llama.tls._tls_errors import tls_error

WRITE_SLICE = 65536  # the most that a BIO is fed at once: BIOs never shrink
BUFFER_SIZE = 262144
RECORD = 16384
RECORD_HEADER = 5
MAX_RECORD = 18432  # maximum record length without its header (RFC 5246, section 6.2.3)
MAX_PENDING_OUTPUT = 65536
CLOSE_TIMEOUT = 1.0


class _Scratch(threading.local):
    """A plaintext buffer per thread, and therefore per running loop."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(BUFFER_SIZE))


_scratch = _Scratch()


class TLSStream(Stream):
    """A TLS session over a stream, which it owns. It shares that stream's extensions.

    Reads raise TruncatedError if the peer ends without close_notify (RFC 8446, section 6.1). Meters count plaintext.
    """

    __slots__ = (
        "_broken",
        "_close_notify_sent",
        "_closed",
        "_ended",
        "_eof_sent",
        "_header",
        "_incoming",
        "_inner",
        "_left",
        "_lock",
        "_more",
        "_outgoing",
        "_plain",
        "_read",
        "_reading",
        "_sleepers",
        "_tls",
        "_whole",
        "_writing",
    )

    def __init__(
        self,
        inner: Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__()
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._read = cast(
            "Callable[[int, memoryview], int]", self._tls.read
        )  # with a buffer it returns a count
        self._plain = b""
        self._more = False  # the session may hold plaintext that did not fit into the buffer
        self._whole = 0  # complete records received but not yet read
        self._left = 0  # missing bytes of the current record; `_header` is its header while incomplete
        self._header = b""
        self._ended: Exception | bool = False
        self._reading = self._writing = self._eof_sent = self._closed = False
        self._close_notify_sent = (
            False  # the inner stream's write side is closed: later answers of the session are dropped
        )
        self._broken: OSError | bool = True  # True until the handshake is done; an OSError broke a write
        self._lock: asyncio.Lock | None = None
        self._sleepers: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<tls over {self._inner!r}>"

    @property
    def extensions(self) -> Extensions:
        return self._inner.extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._inner.extensions = value

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The underlying SSLObject, which has the version, the cipher and the certificates."""
        return self._tls

    @property
    def close_reason(self) -> Exception | bool:
        """How the peer ended: True for close_notify, the error otherwise, False if no read has reached the end."""
        return self._ended

    async def handshake(self, received: Buffer = b"") -> None:
        """Perform the handshake; `on_received` holds bytes already read from the peer.

        Raises TLSError if the peer closes the connection, and ssl.SSLError if the handshake fails: `send_alert`
        then sends the alert. After an error only `aclose` and `abort` are allowed.
        """
        if received:
            self._feed(received)
        while not self._do_handshake():
            await self._flush()
            if not (data := await self._inner.read(RECORD)):
                raise TLSError("the peer closed the connection during the handshake")
            self._feed(data)
        await self._flush()
        if not self._incoming.pending:  # otherwise some of the records carry application data
            self._whole = 0
        self._broken = False

    def _do_handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    async def send_alert(self) -> None:
        """Send the alert for a failed handshake, waiting at most a second; errors are ignored."""
        with contextlib.suppress(OSError, LlamaError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._flush()

    # decryption

    def _decrypt(self, room: int) -> memoryview | None:
        """Decrypt into the scratch buffer: plaintext, empty at the end, None if more ciphertext is needed."""
        view = _scratch.view
        if self._ended is False:
            if self._whole <= 0 and not self._more:
                return None
            filled = self._decrypt_into(view, 0, min(room, BUFFER_SIZE))
        else:
            filled = 0
        if filled:
            return view[:filled]
        if self._ended is False:
            return None
        if self._ended is not True:
            raise self._ended
        return view[:0]

    def _decrypt_into(self, view: memoryview, filled: int, room: int) -> int:
        read = self._read
        try:
            while filled < room:
                count = read(room - filled, view[filled:] if filled else view)
                if not count:
                    self._ended = True
                    break
                filled += count
                if filled < room:
                    self._whole -= 1
                    if self._whole <= 0:
                        break
        except ssl.SSLWantReadError:
            self._whole = 0
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLEOFError:
            self._ended = TruncatedError(f"{self!r} ended without close_notify")
        except ssl.SSLError as error:
            self._ended = tls_error(error)
        self._more = filled == room
        return filled

    def _has_more(self) -> bool:
        """Whether a read may return without another byte from the inner stream."""
        return self._whole > 0 or self._more or self._ended is not False

    def _feed(self, data: Buffer) -> None:
        if len(data):
            self._incoming.write(data)
            self._count_records(data, len(data))
        else:
            self._incoming.write_eof()
            self._whole += 1  # so that the next read reaches the end

    def _count_records(self, data: Buffer, size: int) -> None:
        """Count the records that are complete now (RFC 8446, section 5.1).

        Reading from the session without a complete record raises an exception, which is slow. A count that is
        too high, as after a key update, costs one such exception.
        """
        if self._header:
            data = self._header + bytes(data)
            size = len(data)
            self._header = b""
        at = self._left
        if at > size:
            self._left = at - size
            return
        if at:
            self._whole += 1
        while size - at >= RECORD_HEADER:
            length = data[at + 3] << 8 | data[at + 4]
            if length > MAX_RECORD or not 20 <= data[at] <= 24:
                self._whole += 1  # not a record: let the session report the error
                length = 0
            at += RECORD_HEADER + length
            if at > size:
                self._left = at - size
                return
            self._whole += 1
        self._left = 0
        if at < size:
            self._header = bytes(data[at:])

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        if self._reading:
            raise busy_error(self, "reading")
        if self._closed:
            raise closed_error(self)
        if limit < 1:
            raise ValueError(f"a read of {limit} bytes: expected at least 1")
        if self._plain:
            return self._take(limit)
        self._reading = True
        try:
            if self._pacer is not None:
                limit = self._pacer.cap_read(limit)
                await self._sleep_until(self._pacer.read_delay)
            while (data := self._decrypt(limit)) is None:
                if self._outgoing.pending:
                    with contextlib.suppress(OSError):  # data received before the reset is still readable
                        await self._answer()
                self._feed(await self._inner.read(WRITE_SLICE))
            if self._pacer is not None and len(data):
                self._pacer.on_received(len(data))
            return bytes(data)
        except StreamClosedError:
            raise closed_error(self) from None
        finally:
            self._reading = False

    async def _answer(self) -> None:
        """Send the answers that the session produced by itself.

        Answers to key updates may wait for the next write (RFC 8446, section 4.6.3). Above MAX_PENDING_OUTPUT bytes
        they are sent before more is read, so that a peer cannot make them grow. In TLS 1.2 an answer is an alert and is
        sent at once.
        """
        if self._close_notify_sent:
            self._outgoing.read()
        elif not self._broken and (
            self._outgoing.pending > MAX_PENDING_OUTPUT or self._tls.version() != "TLSv1.3"
        ):
            await self._flush()

    def _take(self, limit: int) -> bytes:
        data, self._plain = self._plain[:limit], self._plain[limit:]
        return data

    def unread(self, data: bytes, /) -> None:
        self._plain = data + self._plain

    # encryption and sending

    def _encrypt(self, view: memoryview) -> None:
        try:
            done = self._tls.write(view)
            while done < len(view):
                done += self._tls.write(view[done:])
        except ssl.SSLError as error:
            raise tls_error(error) from error

    async def write(self, data: Buffer, /) -> None:
        if self._writing or self._eof_sent or self._broken or self._closed:
            raise self._check_write()
        view = memoryview(data).cast("B")
        self._writing = True
        try:
            if self._pacer is not None:
                await self._write_paced(view)
                return
            for start in range(0, len(view), WRITE_SLICE):
                self._encrypt(view[start : start + WRITE_SLICE])
                await self._flush()
        except BaseException as error:
            self._broken = error if isinstance(error, OSError) else True
            if isinstance(error, StreamClosedError):
                raise closed_error(self) from None
            raise
        finally:
            self._writing = False

    async def _write_paced(self, view: memoryview) -> None:
        while len(view) and (pace := self._pacer) is not None:
            await self._sleep_until(pace.write_delay)
            piece = view[: pace.cap_read(WRITE_SLICE)]
            self._encrypt(piece)
            await self._flush()
            pace.on_sent(len(piece))
            view = view[len(piece) :]
        if len(view):  # the last meter was detached meanwhile
            self._encrypt(view)
            await self._flush()

    async def _sleep_until(self, delay: Callable[[], float]) -> None:
        """Wait for the delay that the meters require, or until the stream is closed."""
        loop = asyncio.get_running_loop()
        while (seconds := delay()) > 0:
            waiter = loop.create_future()
            self._sleepers.append(waiter)
            timer = loop.call_later(seconds, wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._sleepers.remove(waiter)
            if self._closed:
                raise closed_error(self)

    def _wake_sleepers(self) -> None:
        for waiter in self._sleepers:
            wake(waiter)

    def _check_write(self) -> Exception:
        if self._writing:
            return busy_error(self, "writing")
        if self._closed:
            return closed_error(self)
        if isinstance(self._broken, OSError):
            return self._broken
        reason = "write_eof was called" if self._eof_sent else "an earlier write was cancelled halfway"
        return StreamClosedError(f"{self!r} takes no more writes: {reason}")

    async def _flush(self) -> None:
        """Send all pending ciphertext."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            while self._outgoing.pending:
                await self._inner.write(self._outgoing.read())

    # closing

    async def write_eof(self) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        if self._closed:
            raise closed_error(self)
        await self._end_writing()

    async def _end_writing(self) -> None:
        if not self._eof_sent:
            self._send_close_notify()
            await self._flush()
            await self._inner.write_eof()
            self._close_notify_sent = True

    def _send_close_notify(self) -> None:
        """Put close_notify into the outgoing ciphertext."""
        self._eof_sent = True
        # `unwrap` looks for the peer's close_notify at once and fails on data before it: read that data first.
        if self._ended is False and (self._whole > 0 or self._more):
            filled = self._decrypt_into(_scratch.view, 0, BUFFER_SIZE)
            self._plain += bytes(_scratch.view[:filled])
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake_sleepers()
        try:
            if not self._writing and not self._broken:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._finish()
        except (OSError, LlamaError, TimeoutError):
            pass
        finally:
            await self._inner.aclose()

    async def _finish(self) -> None:
        """Send close_notify, then wait for the peer's. Closing the inner stream wakes a concurrent read."""
        await self._end_writing()
        while not self._reading and ((data := self._decrypt(BUFFER_SIZE)) is None or data):
            if data is None:
                self._feed(await self._inner.read(WRITE_SLICE))

    def abort(self) -> None:
        self._closed = True
        self._wake_sleepers()
        self._inner.abort()


def wake(waiter: asyncio.Future[None]) -> None:
    """Resolve a waiter that is still pending."""
    if not waiter.done():
        waiter.set_result(None)

"""TLS over a stream with readiness callbacks, which relays drive without a task."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from llama._core.meter import Pacer
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, NonblockingStream, Stream, closed_error
from llama.tcp._io.stream import SocketStream
from llama.tcp._relay.pump import Pump
from llama.tls._pump import SMALL_READ, DecryptPump, EncryptPump, Session
from llama.tls._stream import BUFFER_SIZE, MAX_PENDING_OUTPUT, WRITE_SLICE, TLSStream, _scratch


class NonblockingTLSStream(TLSStream, Session):
    """A TLS session with readiness callbacks, over a stream that has them."""

    __slots__ = ("_drained", "_most", "_on_readable", "_on_writable", "_outbox", "_ready")

    def __init__(
        self,
        inner: NonblockingStream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__(inner, context, server_side=server_side, server_hostname=server_hostname)
        self._ready = inner
        # A socket lends its own scratch buffer, distinct from the plaintext one, so large reads are safe.
        self._most = BUFFER_SIZE if isinstance(inner, SocketStream) else WRITE_SLICE
        self._outbox: bytes | memoryview = b""
        self._drained: list[asyncio.Future[None]] = []
        self._on_readable: Callable[[], object] | None = None
        self._on_writable: Callable[[], object] | None = None

    @property
    def may_read_more(self) -> bool:
        return self._has_more() or self._ready.may_read_more or bool(self._plain)

    def read_nowait(self, limit: int = DEFAULT_READ_SIZE, /) -> Buffer | None:
        if self._closed:
            raise closed_error(self)
        if self._plain:
            return self._take(limit)
        if self._pacer is not None:
            if (delay := self._pacer.read_delay()) > 0:
                asyncio.get_running_loop().call_later(delay, self._resume_reading)
                return None
            limit = self._pacer.cap_read(limit)
        data = self._decrypt(limit) if self._whole > 0 or self._more or self._ended is not False else None
        most = self._most
        if limit < most:
            most = limit
        while data is None:
            if self._outgoing.pending and not self.flush_nowait() and self._outgoing.pending > WRITE_SLICE:
                self._ready.on_writable(self._flush_outbox)  # `_flush_outbox` calls back later
                return None
            received = self._ready.read_nowait(most)
            if received is None:
                return None
            data = self._decrypt_slices(received, limit)
        if self._pacer is not None and len(data):
            self._pacer.on_received(len(data))
        return data

    def _decrypt_slices(self, received: Buffer, limit: int) -> memoryview | None:
        if len(received) <= WRITE_SLICE:
            self._feed(received)
            return self._decrypt(limit)
        filled = 0
        view = memoryview(received)
        for start in range(0, len(view), WRITE_SLICE):
            self._feed(view[start : start + WRITE_SLICE])
            if self._ended is False and self._whole > 0:
                filled = self._decrypt_into(_scratch.view, filled, BUFFER_SIZE)
        return _scratch.view[:filled] if filled else self._decrypt(limit)

    def make_pump(
        self,
        src: NonblockingStream,
        dst: NonblockingStream,
        ended: Callable[[Pump, Exception | None], None],
        /,
    ) -> Pump | None:
        below = self._ready
        if not isinstance(below, SocketStream):
            return None
        if src is self and isinstance(dst, SocketStream):
            return DecryptPump(self, below, dst, ended)
        if dst is self and isinstance(src, SocketStream):
            return EncryptPump(src, self, below, ended)
        return None

    def is_plain(self) -> bool:
        return not (
            self._whole > 0
            or self._more
            or self._ended is not False
            or self._plain
            or self._outgoing.pending
            or self._pacer is not None
            or self._closed
        )

    def decrypt_now(self, data: memoryview, /) -> memoryview | None:
        return self._decrypt_slices(data, BUFFER_SIZE)

    def takes_plain(self) -> bool:
        return not (
            self._outbox
            or self._outgoing.pending
            or self._pacer is not None
            or self._eof_sent
            or self._broken
            or self._closed
        )

    def encrypt_now(self, data: memoryview, /) -> bytes:
        self._encrypt(data)
        return self._outgoing.read()

    def store_output(self, records: memoryview, /) -> None:
        self._outbox = records

    def write_buffered(self, data: bytes, /) -> bool:
        if self._writing or len(data) > SMALL_READ or not self.takes_plain():
            return False
        records = self.encrypt_now(memoryview(data))
        if not self._ready.write_buffered(records):
            self._outbox = records
            if not self.flush_nowait():
                self._ready.on_writable(self._flush_outbox)
        return True

    def on_readable(self, callback: Callable[[], object] | None, /) -> None:
        self._on_readable = callback
        self._ready.on_readable(callback)
        if callback is not None and (self._plain or self._has_more()):
            asyncio.get_running_loop().call_soon(self._resume_reading)

    def on_broken(self, callback: Callable[[], object] | None, /) -> None:
        self._ready.on_broken(callback)

    def _resume_reading(self) -> None:
        """Report data buffered in the session: the transport below reports its own data only."""
        if self._on_readable is not None:
            self._on_readable()

    def write_nowait(self, data: Buffer, /) -> int:
        if self._eof_sent or self._broken or self._closed:
            raise self._check_write()
        if self._outbox and not self.flush_nowait():
            return 0
        if self._pacer is not None:
            return self._take_paced(self._pacer, memoryview(data))
        size = len(data)
        if size <= WRITE_SLICE:
            self._encrypt(memoryview(data))
            self._outbox = self._outgoing.read()
            taken = self._ready.write_nowait(self._outbox)
            self._outbox = b"" if taken == len(self._outbox) else memoryview(self._outbox)[taken:]
            return size
        view, taken = memoryview(data), 0
        while taken < size:
            piece = view[taken : taken + WRITE_SLICE]
            self._encrypt(piece)
            taken += len(piece)
            if not self.flush_nowait():
                break
        return taken

    def _take_paced(self, pace: Pacer, data: memoryview) -> int:
        if (delay := pace.write_delay()) > 0:
            asyncio.get_running_loop().call_later(delay, self._flush_outbox)
            return 0
        piece = data[: pace.cap_read(WRITE_SLICE)]
        self._encrypt(piece)
        pace.on_sent(len(piece))
        self.flush_nowait()
        return len(piece)

    def flush_nowait(self) -> bool:
        if not (self._outbox or self._outgoing.pending or self._eof_sent):
            return self._ready.flush_nowait()
        while True:
            if not self._outbox:
                if not self._outgoing.pending:
                    break
                answer = self._outgoing.read()
                if self._close_notify_sent:
                    break
                self._outbox = answer
            taken = self._ready.write_nowait(self._outbox)
            if taken < len(self._outbox):
                self._outbox = memoryview(self._outbox)[taken:]
                return False
            self._outbox = b""
        if self._eof_sent and not self._close_notify_sent:
            self._close_notify_sent = True
            self._ready.write_eof_nowait()
        return self._ready.flush_nowait()

    def write_eof_nowait(self) -> None:
        if self._closed:
            raise closed_error(self)
        if not self._eof_sent:
            self._send_close_notify()
            self.flush_nowait()

    def on_writable(self, callback: Callable[[], object] | None, /) -> None:
        self._on_writable = callback
        self._ready.on_writable(self._flush_outbox if callback is not None or self._drained else None)

    async def _flush(self) -> None:
        while not self.flush_nowait():
            waiter = asyncio.get_running_loop().create_future()
            self._drained.append(waiter)
            self._ready.on_writable(self._flush_outbox)
            try:
                await waiter
            finally:
                self._drained.remove(waiter)

    async def _answer(self) -> None:
        if not self._broken and not self.flush_nowait() and self._outgoing.pending > MAX_PENDING_OUTPUT:
            await self._flush()

    def _flush_outbox(self) -> None:
        """Flush when the transport is writable or closed, then wake waiting calls, which see any error themselves."""
        with contextlib.suppress(Exception):  # raised again in the waiting call
            if self.flush_nowait() and self._on_writable is None:
                self._ready.on_writable(None)
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(None)
        if self._on_writable is not None:
            self._on_writable()
        self._resume_reading()  # a read may be waiting until its answers are sent

    async def _end_writing(self) -> None:
        if not self._eof_sent:
            self._send_close_notify()
            await self._flush()


def open_session(
    inner: Stream, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
) -> TLSStream:
    """Make a TLS stream over a stream, with readiness callbacks if that one has them; no handshake yet."""
    make = NonblockingTLSStream if isinstance(inner, NonblockingStream) else TLSStream
    return make(inner, context, server_side=server_side, server_hostname=server_hostname)  # type: ignore[arg-type]  # `make` was chosen by isinstance

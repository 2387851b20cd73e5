"""TLS over a stream with readiness callbacks, which relays drive without a task."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from llama._core.meter import Pace
from llama._core.stream import CHUNK, Buffer, ReadyStream, Stream, closed
from llama.tcp._io.stream import SocketStream
from llama.tcp._relay.pump import Pump
from llama.tls._pump import SMALL, DecryptPump, EncryptPump, Session
from llama.tls._stream import OWED, SCRATCH, SLICE, TLSStream, _scratch


class ReadyTLSStream(TLSStream, Session):
    """A TLS session with readiness callbacks, over a stream that has them."""

    __slots__ = ("_drained", "_most", "_on_readable", "_on_writable", "_outbox", "_ready")

    def __init__(
        self,
        inner: ReadyStream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__(inner, context, server_side=server_side, server_hostname=server_hostname)
        self._ready = inner
        # A socket lends its own scratch buffer, distinct from the plaintext one, so large reads are safe.
        self._most = SCRATCH if isinstance(inner, SocketStream) else SLICE
        self._outbox: bytes | memoryview = b""
        self._drained: list[asyncio.Future[None]] = []
        self._on_readable: Callable[[], object] | None = None
        self._on_writable: Callable[[], object] | None = None

    @property
    def more(self) -> bool:
        return self._has_more() or self._ready.more or bool(self._plain)

    def read_nowait(self, limit: int = CHUNK, /) -> Buffer | None:
        if self._closed:
            raise closed(self)
        if self._plain:
            return self._take(limit)
        if self._pace is not None:
            if (delay := self._pace.read_delay()) > 0:
                asyncio.get_running_loop().call_later(delay, self._again)
                return None
            limit = self._pace.cap(limit)
        data = self._decrypt(limit) if self._whole > 0 or self._more or self._ended is not False else None
        most = self._most
        if limit < most:
            most = limit
        while data is None:
            if self._outgoing.pending and not self.flush_nowait() and self._outgoing.pending > SLICE:
                self._ready.on_writable(self._push)  # `_push` calls back later
                return None
            received = self._ready.read_nowait(most)
            if received is None:
                return None
            data = self._decrypt_slices(received, limit)
        if self._pace is not None and len(data):
            self._pace.received(len(data))
        return data

    def _decrypt_slices(self, received: Buffer, limit: int) -> memoryview | None:
        if len(received) <= SLICE:
            self._feed(received)
            return self._decrypt(limit)
        filled = 0
        view = memoryview(received)
        for start in range(0, len(view), SLICE):
            self._feed(view[start : start + SLICE])
            if self._ended is False and self._whole > 0:
                filled = self._decrypt_into(_scratch.view, filled, SCRATCH)
        return _scratch.view[:filled] if filled else self._decrypt(limit)

    def make_pump(
        self, src: ReadyStream, dst: ReadyStream, ended: Callable[[Pump, Exception | None], None], /
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
            or self._pace is not None
            or self._closed
        )

    def decrypt_now(self, data: memoryview, /) -> memoryview | None:
        return self._decrypt_slices(data, SCRATCH)

    def takes_plain(self) -> bool:
        return not (
            self._outbox
            or self._outgoing.pending
            or self._pace is not None
            or self._eof_sent
            or self._broken
            or self._closed
        )

    def encrypt_now(self, data: memoryview, /) -> bytes:
        self._encrypt(data)
        return self._outgoing.read()

    def keep(self, records: memoryview, /) -> None:
        self._outbox = records

    def write_soon(self, data: bytes, /) -> bool:
        if self._writing or len(data) > SMALL or not self.takes_plain():
            return False
        records = self.encrypt_now(memoryview(data))
        if not self._ready.write_soon(records):
            self._outbox = records
            if not self.flush_nowait():
                self._ready.on_writable(self._push)
        return True

    def on_readable(self, callback: Callable[[], object] | None, /) -> None:
        self._on_readable = callback
        self._ready.on_readable(callback)
        if callback is not None and (self._plain or self._has_more()):
            asyncio.get_running_loop().call_soon(self._again)

    def on_broken(self, callback: Callable[[], object] | None, /) -> None:
        self._ready.on_broken(callback)

    def _again(self) -> None:
        """Report data buffered in the session: the transport below reports its own data only."""
        if self._on_readable is not None:
            self._on_readable()

    def write_nowait(self, data: Buffer, /) -> int:
        if self._eof_sent or self._broken or self._closed:
            raise self._no_write()
        if self._outbox and not self.flush_nowait():
            return 0
        if self._pace is not None:
            return self._take_paced(self._pace, memoryview(data))
        size = len(data)
        if size <= SLICE:
            self._encrypt(memoryview(data))
            self._outbox = self._outgoing.read()
            taken = self._ready.write_nowait(self._outbox)
            self._outbox = b"" if taken == len(self._outbox) else memoryview(self._outbox)[taken:]
            return size
        view, taken = memoryview(data), 0
        while taken < size:
            piece = view[taken : taken + SLICE]
            self._encrypt(piece)
            taken += len(piece)
            if not self.flush_nowait():
                break
        return taken

    def _take_paced(self, pace: Pace, data: memoryview) -> int:
        if (delay := pace.write_delay()) > 0:
            asyncio.get_running_loop().call_later(delay, self._push)
            return 0
        piece = data[: pace.cap(SLICE)]
        self._encrypt(piece)
        pace.sent(len(piece))
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
                if self._fin:
                    break
                self._outbox = answer
            taken = self._ready.write_nowait(self._outbox)
            if taken < len(self._outbox):
                self._outbox = memoryview(self._outbox)[taken:]
                return False
            self._outbox = b""
        if self._eof_sent and not self._fin:
            self._fin = True
            self._ready.write_eof_nowait()
        return self._ready.flush_nowait()

    def write_eof_nowait(self) -> None:
        if self._closed:
            raise closed(self)
        if not self._eof_sent:
            self._say_goodbye()
            self.flush_nowait()

    def on_writable(self, callback: Callable[[], object] | None, /) -> None:
        self._on_writable = callback
        self._ready.on_writable(self._push if callback is not None or self._drained else None)

    async def _flush(self) -> None:
        while not self.flush_nowait():
            waiter = asyncio.get_running_loop().create_future()
            self._drained.append(waiter)
            self._ready.on_writable(self._push)
            try:
                await waiter
            finally:
                self._drained.remove(waiter)

    async def _answer(self) -> None:
        if not self._broken and not self.flush_nowait() and self._outgoing.pending > OWED:
            await self._flush()

    def _push(self) -> None:
        """Flush when the transport is writable or closed, then wake waiting calls, which see any error themselves."""
        with contextlib.suppress(Exception):  # raised again in the waiting call
            if self.flush_nowait() and self._on_writable is None:
                self._ready.on_writable(None)
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(None)
        if self._on_writable is not None:
            self._on_writable()
        self._again()  # a read may be waiting until its answers are sent

    async def _end_writing(self) -> None:
        if not self._eof_sent:
            self._say_goodbye()
            await self._flush()


def open_session(
    inner: Stream, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
) -> TLSStream:
    """Make a TLS stream over a stream, with readiness callbacks if that one has them; no handshake yet."""
    make = ReadyTLSStream if isinstance(inner, ReadyStream) else TLSStream
    return make(inner, context, server_side=server_side, server_hostname=server_hostname)  # type: ignore[arg-type]  # `make` was chosen by isinstance

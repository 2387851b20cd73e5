"""One HTTP/2 server connection: a reader, a writer, and a task for each request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from llama._core.errors import ProtocolError, TruncatedError
from llama._core.shutdown import Shutdown, detached_task
from llama._core.stream import Stream
from llama.http._h1.server_reader import STOPPING, TIMED_OUT, TaskInterrupt
from llama.http._h2.server_stream import H2ServerStream
from llama.http._h2.wire import frames
from llama.http._h2.wire.fields import RequestHead
from llama.http._h2.wire.frames import H2Error
from llama.http._h2.wire.protocol import H2Protocol
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._h2.writer import H2Writer
from llama.http._messages.message import RequestHandler
from llama.http._progress_timer import ProgressTimer
from llama.http._server_settings import ServerSettings

log = logging.getLogger("llama.server")
READ_SIZE = 65_536
GOAWAY_TIMEOUT = 1.0  # seconds for an idle client to answer GOAWAY, and for handlers to end by themselves


class H2Connection:
    """Serves one connection until it ends. The caller keeps ownership of the stream."""

    def __init__(self, stream: Stream, inner: RequestHandler, settings: ServerSettings, scheme: str) -> None:
        self.inner = inner
        self.settings = settings
        self.scheme = scheme
        self.extensions = stream.extensions
        self.protocol = H2Protocol(self, settings.h2)
        patience = settings.write_timeout if settings.write_timeout is not None else settings.h2.stall_timeout
        self.writer = H2Writer(stream, self.protocol, patience, broken=self._broken, stalled=self._stalled)
        self._stream = stream
        self._interrupts = TaskInterrupt()
        self._deadline = ProgressTimer(lambda: self._interrupts.interrupt(TIMED_OUT))
        self._tasks: set[asyncio.Task[None]] = set()
        self._exchanges: set[H2ServerStream] = set()
        self._count = 0
        self._ending = False
        self._clock = ""

    def __repr__(self) -> str:
        return repr(self._stream)

    async def run(self) -> None:
        """Serve until either side closes the connection."""
        ignore_stop = _on_stop(self.drain)
        writer = self._spawn(self.writer.run(), "write an HTTP/2 connection")
        try:
            await self._read()
        except H2Error as error:
            log.info("%s: %s", self._stream, error)
        except (
            TruncatedError
        ):  # many clients omit close_notify, which is harmless while no request is in progress
            if self._exchanges:
                log.info("%s: client closed the connection without close_notify", self._stream)
        except asyncio.CancelledError:
            if not self._interrupts.consume():
                raise
        finally:
            ignore_stop()
            self._ending = True
            self._deadline.close()
            self._leave()
            try:
                await self._settle(writer)
            finally:
                self._cancel()

    async def _settle(self, writer: asyncio.Task[None]) -> None:
        """Wait for the handlers, which were cancelled or got an error, then send GOAWAY and end the writer."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOAWAY_TIMEOUT)
            self._cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if not self.protocol.failed and not self.writer.is_broken:
            self.protocol.goaway(frames.NO_ERROR, self.protocol.highest)
        await self.writer.finish(writer)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _leave(self) -> None:
        """Reset all streams: the connection can carry no more responses."""
        for exchange in tuple(self._exchanges):
            self.protocol.reset(exchange.stream, frames.CANCEL)
            exchange.reset(frames.CANCEL, True)

    def _spawn(self, coroutine: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        try:
            return Shutdown.current().spawn(coroutine, name=name)
        except RuntimeError:  # called without a server
            return detached_task(coroutine)

    # reading

    async def _read(self) -> None:
        engine, stream, link = self.protocol, self._stream, self.writer
        self._start_timeout("first")
        while True:
            data = await stream.read(READ_SIZE)
            if self._interrupts.reason and await self._interrupts.flush_pending():
                return
            if not data:
                if self.settings.half_close:
                    await self._finish_all()
                return
            try:
                engine.receive(data)
            finally:
                if engine.pending:
                    link.flush()
            if engine.is_within_head:
                self._start_timeout("head")
            elif self._tasks:
                self._start_timeout("")
            elif engine.is_drained and not engine.streams:
                return
            elif self._clock == "head":
                self._start_timeout("idle")

    def _start_timeout(self, what: str) -> None:
        """Start the timeout for `what`, unless it is already running."""
        if what == self._clock:
            return
        self._clock = what
        settings = self.settings
        seconds = {
            "first": settings.first_byte_timeout,
            "head": settings.head_timeout,
            "idle": settings.idle_timeout,
        }
        self._deadline.stop()
        self._deadline.start(GOAWAY_TIMEOUT if what == "leaving" else seconds.get(what))

    async def _finish_all(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    # events from the engine

    def request(self, stream: H2Stream, head: RequestHead, ended: bool, /) -> None:
        """A request arrived: start a task that responds to it."""
        exchange = H2ServerStream(self, stream, head, ended=ended)
        stream.events = exchange
        self._start(exchange, exchange.run())
        self._count += 1
        if self._count == self.settings.max_requests:
            self.drain()

    def refused(self, stream: H2Stream, error: Exception, ended: bool, /) -> None:
        """A request arrived whose head exceeds a limit."""
        exchange = H2ServerStream(self, stream, RequestHead.unreadable(), ended=ended)
        stream.events = exchange
        assert isinstance(error, ProtocolError)
        log.info("%s: %d: %s", self._stream, error.status, error)
        self._start(exchange, exchange.refuse(error))

    def _start(self, exchange: H2ServerStream, coroutine: Coroutine[object, object, None]) -> None:
        task = exchange.task = self._spawn(coroutine, "answer an HTTP/2 request")
        self._tasks.add(task)
        self._exchanges.add(exchange)
        task.add_done_callback(lambda _: self._done(exchange))

    def _done(self, exchange: H2ServerStream) -> None:
        if exchange.task is not None:
            self._tasks.discard(exchange.task)
        self._exchanges.discard(exchange)
        exchange.finish()
        if exchange.is_reset:
            self.protocol.lingering -= 1
        if self._tasks or self._ending:
            return
        if not self.protocol.is_draining:
            self._start_timeout("idle")
        elif self.protocol.is_drained:
            self._interrupts.interrupt(STOPPING)
        else:
            self._start_timeout("leaving")

    def on_stream_closed(self, exchange: H2ServerStream) -> None:
        """A stream was reset: cancel its handler, which counts against the stream limit until it has ended."""
        self.protocol.lingering += 1
        if exchange.task is not None:
            exchange.task.cancel()

    def settings_changed(self) -> None:
        """The client's SETTINGS arrived: the send windows of streams may have grown."""
        self.writer.on_settings()

    def window(self) -> None:
        """The connection's send window has grown."""
        self.writer.flush()

    def goaway(self, last: int, code: int, text: bytes, /) -> None:
        """The client sent GOAWAY: it opens no more streams, and those it has opened still get responses."""
        if code != frames.NO_ERROR:
            log.info("%s: client sent GOAWAY: %s %r", self._stream, frames.code_name(code), text)

    def pong(self, payload: bytes, /) -> None: ...

    # the end

    def drain(self) -> None:
        """Accept no more streams and end after the last response."""
        self.protocol.drain()
        self.writer.flush()
        if not self._tasks:
            self._start_timeout("leaving")

    def _broken(self) -> None:
        """Writing has failed."""
        if not self._ending:
            self._interrupts.interrupt(TIMED_OUT)

    def _stalled(self, stream: H2Stream) -> None:
        """The client gave a stream no send window within the timeout."""
        log.info("%s: reset %s: the client gave it no window within the write timeout", self._stream, stream)
        self.protocol.reset(stream, frames.CANCEL)
        stream.events.reset(frames.CANCEL, False)
        self.writer.flush()


def _on_stop(callback: Callable[[], object]) -> Callable[[], None]:
    try:
        return Shutdown.current().on_stop(callback)
    except RuntimeError:  # called without a server
        return _noop


def _noop() -> None:
    return None

"""One HTTP/2 client connection: as many concurrent exchanges as the server's SETTINGS allow."""

from __future__ import annotations

import asyncio
import logging

from llama._core.errors import LlamaError
from llama._core.shutdown import Shutdown
from llama._core.stream import Stream
from llama.http._client_settings import ClientSettings
from llama.http._h1.client import ClientTimeouts
from llama.http._h1.extended_connect import needs_extended_connect, without_upgrade
from llama.http._h2.client_stream import H2ClientStream, NoExtendedConnect, UnprocessedError
from llama.http._h2.messages import fields_of_request
from llama.http._h2.wire import frames
from llama.http._h2.wire.fields import RequestHead
from llama.http._h2.wire.frames import H2Error, code_name
from llama.http._h2.wire.protocol import H2Protocol
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._h2.writer import H2Writer
from llama.http._limits import H2Limits
from llama.http._messages.message import Request, Response
from llama.http._messages.origin import Origin

log = logging.getLogger("llama.client")
READ_SIZE = 65_536
INITIAL_WINDOW = 1 << 18
MAX_WINDOW = 1 << 22
WINDOW_BUDGET = 1 << 26
MAX_STREAM_ID = (1 << 31) - 1000  # highest stream id before the connection is replaced


class H2Client:
    """A connection to an origin that carries many exchanges. It owns its stream.

    `on_available` is called when it can carry another request, `on_closed` when it accepts no more requests.
    """

    def __init__(
        self,
        stream: Stream,
        origin: Origin,
        settings: ClientSettings,
        timers: ClientTimeouts,
        tasks: Shutdown,
    ) -> None:
        self.stream = stream
        self.origin = origin
        self.tasks = tasks
        self.body_timeout = settings.body_timeout
        self.reused = False
        """Whether an exchange has already ended on it."""
        self.is_draining = False
        """Whether it accepts no more requests."""
        self.settings_received = False
        self._greeting = asyncio.Event()
        """Set once the server's first SETTINGS arrived, or the connection was lost."""
        self._settings = settings
        self._timers = timers
        limits = settings.limits
        self.protocol = H2Protocol(
            self,
            H2Limits(
                max_header_list_size=limits.max_head, max_headers=limits.max_headers,
                max_path=limits.max_start_line, initial_window=INITIAL_WINDOW,
                max_window=MAX_WINDOW, window_budget=WINDOW_BUDGET,
                max_header_block=limits.max_head + limits.max_head // 2, max_control_frames=10_000,
                control_frames_per_second=1000.0, stall_timeout=None, settings_timeout=settings.write_timeout,
            ),
            client=True,
        )  # fmt: skip
        self.writer = H2Writer(
            stream, self.protocol, settings.write_timeout, broken=self._broken, stalled=self._stalled,
            tunnels_may_stall=True,
        )  # fmt: skip
        self._exchanges: set[H2ClientStream] = set()
        self._is_gone = self._is_closing = False
        self._writer = tasks.spawn(self.writer.run(), name="write an HTTP/2 connection")
        self._reader = tasks.spawn(self._read(), name="read an HTTP/2 connection")

    def on_available(self) -> None:
        """The connection can carry another request."""

    def on_closed(self) -> None:
        """The connection accepts no more requests."""

    @property
    def has_room(self) -> bool:
        """Whether another request can be sent now."""
        engine = self.protocol
        if not self.settings_received:  # before the server's SETTINGS, its limit is unknown: allow one
            return not (self.is_draining or self._exchanges or self.reused)
        return not self.is_draining and len(engine.streams) < engine.max_streams

    @property
    def is_idle(self) -> bool:
        """Whether it carries no exchange."""
        return not self._exchanges

    def is_reusable(self) -> bool:
        """Whether it can be reused: its reader notices when the server closes it."""
        return not self.is_draining

    # exchanges

    async def send(self, request: Request) -> Response:
        """Send a request and return its response once the head has arrived; the body may still be incoming.

        Raises Unprocessed if the server refused the request and NoAnswer if the connection ended before the
        response. Errors raised by the request's body propagate unchanged.
        """
        if self.is_draining:
            raise UnprocessedError(f"{self.origin} takes no more requests on this connection")
        if request.upgrade_protocol:
            if needs_extended_connect(request):
                await self._check_upgrade(request.upgrade_protocol)
            else:
                request = without_upgrade(request)
        fields, framing = fields_of_request(request, self.origin.http_scheme, self.origin.authority)
        exchange = H2ClientStream(self, request)
        is_tunnel = request.method == "CONNECT" or bool(request.upgrade_protocol)
        exchange.open(fields, end=not framing and not is_tunnel)
        self._exchanges.add(exchange)
        if self.protocol.highest >= MAX_STREAM_ID:
            self.is_draining = True
        try:
            if framing:
                await exchange.send_body(framing)
            if self._timers.head is None:
                return await exchange.wait_response()
            return await self._answer_in_time(exchange)
        except BaseException:
            exchange.reset_stream(frames.CANCEL)
            await exchange.wait_upload()
            raise

    async def _check_upgrade(self, protocol: str) -> None:
        """Wait for the server's first SETTINGS. Raises NoExtendedConnect if they do not allow it (RFC 8441)."""
        try:
            async with asyncio.timeout(self._settings.response_header_timeout):
                await self._greeting.wait()
            if self.is_draining:
                raise UnprocessedError(f"{self.origin} takes no more requests on this connection")
            if not self.protocol.extended_connect:
                raise NoExtendedConnect(self.origin, protocol)
        except BaseException as error:
            if not self._is_gone:
                self.on_available()  # no stream was opened
            if isinstance(error, TimeoutError):
                seconds = self._settings.response_header_timeout
                raise TimeoutError(f"no SETTINGS from {self.origin} within {seconds} s") from None
            raise

    async def _answer_in_time(self, exchange: H2ClientStream) -> Response:
        deadlines = self._timers.head
        assert deadlines is not None
        while True:
            waits = exchange.upload_waits
            call = deadlines.enter()
            try:
                return await exchange.wait_response()
            except asyncio.CancelledError:
                if not call.consume_cancellation():
                    raise
                if not waits:
                    seconds = self._settings.response_header_timeout
                    raise TimeoutError(f"no response from {self.origin} within {seconds} s") from None
            finally:
                deadlines.exit(call)

    def on_stream_closed(self, exchange: H2ClientStream, /) -> None:
        """An exchange has ended."""
        self._exchanges.discard(exchange)
        self.reused = True
        if self.is_draining and not self._exchanges:
            self._close_soon()
        elif not self._is_gone:
            self.on_available()

    # reading

    async def _read(self) -> None:
        engine, stream, link = self.protocol, self.stream, self.writer
        error: Exception | None = None
        try:
            while data := await stream.read(READ_SIZE):
                try:
                    engine.receive(data)
                finally:
                    if engine.pending:
                        link.flush()
        except H2Error as problem:
            log.info("%s: %s", self.origin, problem)
            error = problem
        except (LlamaError, OSError) as problem:
            error = problem
        finally:
            self._is_closing = True
            self._on_connection_lost(error)
            await self._end()

    async def _end(self) -> None:
        try:
            await self.writer.finish(self._writer)
            await self.stream.aclose()
        except (LlamaError, OSError) as error:
            log.debug("closing %r: %s", self.stream, error)
        finally:
            self.stream.abort()

    def _on_connection_lost(self, error: Exception | None) -> None:
        self.is_draining = True
        self._greeting.set()
        if self.writer.timeout_error is not None:
            error = TimeoutError(f"{self.origin}: {self.writer.timeout_error}")
        for exchange in tuple(self._exchanges):
            exchange.on_connection_lost(error)
        self._send_goaway()

    def _send_goaway(self) -> None:
        if not self._is_gone:
            self._is_gone = True
            self.on_closed()

    # events from the engine

    def request(self, stream: H2Stream, head: RequestHead, ended: bool, /) -> None: ...

    def refused(self, stream: H2Stream, error: Exception, ended: bool, /) -> None: ...

    def settings_changed(self) -> None:
        """The server's SETTINGS arrived or changed."""
        self.settings_received = True
        self._greeting.set()
        self.writer.on_settings()
        if not self._is_gone:
            self.on_available()

    def window(self) -> None:
        """The connection's send window has grown."""
        self.writer.flush()

    def goaway(self, last: int, code: int, text: bytes, /) -> None:
        """The server sent GOAWAY: it accepts no new requests and still answers those it has accepted."""
        self.is_draining = True
        if code != frames.NO_ERROR:
            log.info("%s sent GOAWAY: %s %r", self.origin, code_name(code), text)
        self._send_goaway()
        if not self._exchanges:
            self._close_soon()

    def pong(self, payload: bytes, /) -> None: ...

    # the end

    def _broken(self) -> None:
        """Writing has failed. Keep reading, because responses may still arrive, unless a timeout caused it."""
        self.is_draining = True
        if self.writer.timeout_error is not None and not self._is_closing:
            self._is_closing = True
            self._reader.cancel()

    def _stalled(self, stream: H2Stream) -> None:
        """The server gave a stream no send window within the write timeout."""
        seconds = self._settings.write_timeout
        for exchange in tuple(self._exchanges):
            if exchange.stream is stream:
                exchange.fail(TimeoutError(f"{self.origin} took nothing of a request for {seconds} s"))

    def _close_soon(self) -> None:
        self.is_draining = True
        self._send_goaway()
        if not self._is_closing:
            self._is_closing = True
            if not self.protocol.failed:
                self.protocol.goaway(frames.NO_ERROR, 0)
            self._reader.cancel()

    def discard(self) -> None:
        """Abort the connection immediately."""
        self.stream.abort()
        self._on_connection_lost(None)
        if not self._is_closing:
            self._is_closing = True
            self._reader.cancel()

    async def aclose(self) -> None:
        """Close the connection with GOAWAY."""
        self._close_soon()
        await asyncio.wait((self._reader,))

"""One HTTP/2 client connection: as many concurrent exchanges as the server's SETTINGS allow."""

from __future__ import annotations

import asyncio
import logging

from llama._core.errors import LlamaError
from llama._core.shutdown import Shutdown
from llama._core.stream import Stream
from llama.http._client_settings import ClientSettings
from llama.http._h1.client import Timers
from llama.http._h1.extended_connect import needs_extended_connect, without_upgrade
from llama.http._h2.client_stream import ClientExchange, NoExtendedConnect, Unprocessed
from llama.http._h2.messages import fields_of_request
from llama.http._h2.wire import frames
from llama.http._h2.wire.fields import RequestHead
from llama.http._h2.wire.frames import H2Error, code_name
from llama.http._h2.wire.protocol import Engine
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._h2.writer import Link
from llama.http._limits import H2Limits
from llama.http._messages.message import Request, Response
from llama.http._messages.origin import Origin

log = logging.getLogger("llama.client")
READ = 65_536
WINDOW = 1 << 18
MAX_WINDOW = 1 << 22
GROWTH = 1 << 26
LAST = (1 << 31) - 1000  # highest stream id before the connection is replaced


class H2Client:
    """A connection to an origin that carries many exchanges. It owns its stream.

    `freed` is called when it can carry another request, `gone` when it accepts no more requests.
    """

    def __init__(
        self, stream: Stream, origin: Origin, settings: ClientSettings, timers: Timers, tasks: Shutdown
    ) -> None:
        self.stream = stream
        self.origin = origin
        self.tasks = tasks
        self.body_timeout = settings.body_timeout
        self.reused = False
        """Whether an exchange has already ended on it."""
        self.going = False
        """Whether it accepts no more requests."""
        self.is_greeted = False
        self._greeting = asyncio.Event()
        """Set once the server's first SETTINGS arrived, or the connection was lost."""
        self._settings = settings
        self._timers = timers
        limits = settings.limits
        self.engine = Engine(
            self,
            H2Limits(
                header_list=limits.head, fields=limits.fields, path=limits.line, window=WINDOW,
                max_window=MAX_WINDOW, growth=GROWTH, block=limits.head + limits.head // 2, noise=10_000,
                noise_per_second=1000.0, stall=None, settings_timeout=settings.write_timeout,
            ),
            client=True,
        )  # fmt: skip
        self.link = Link(
            stream, self.engine, settings.write_timeout, broken=self._broken, stalled=self._stalled,
            tunnels_may_stall=True,
        )  # fmt: skip
        self._exchanges: set[ClientExchange] = set()
        self._is_gone = self._is_closing = False
        self._writer = tasks.spawn(self.link.run(), name="write an HTTP/2 connection")
        self._reader = tasks.spawn(self._read(), name="read an HTTP/2 connection")

    def freed(self) -> None:
        """The connection can carry another request."""

    def gone(self) -> None:
        """The connection accepts no more requests."""

    @property
    def has_room(self) -> bool:
        """Whether another request can be sent now."""
        engine = self.engine
        if not self.is_greeted:  # before the server's SETTINGS, its limit is unknown: allow one
            return not (self.going or self._exchanges or self.reused)
        return not self.going and len(engine.streams) < engine.max_streams

    @property
    def is_idle(self) -> bool:
        """Whether it carries no exchange."""
        return not self._exchanges

    def is_quiet(self) -> bool:
        """Whether it can be reused: its reader notices when the server closes it."""
        return not self.going

    # exchanges

    async def send(self, request: Request) -> Response:
        """Send a request and return its response once the head has arrived; the body may still be incoming.

        Raises Unprocessed if the server refused the request and NoAnswer if the connection ended before the
        response. Errors raised by the request's body propagate unchanged.
        """
        if self.going:
            raise Unprocessed(f"{self.origin} takes no more requests on this connection")
        if request.protocol:
            if needs_extended_connect(request):
                await self._check_upgrade(request.protocol)
            else:
                request = without_upgrade(request)
        fields, framing = fields_of_request(request, self.origin.http_scheme, self.origin.authority)
        exchange = ClientExchange(self, request)
        is_tunnel = request.method == "CONNECT" or bool(request.protocol)
        exchange.open(fields, end=not framing and not is_tunnel)
        self._exchanges.add(exchange)
        if self.engine.highest >= LAST:
            self.going = True
        try:
            if framing:
                await exchange.send_body(framing)
            if self._timers.head is None:
                return await exchange.answer()
            return await self._answer_in_time(exchange)
        except BaseException:
            exchange.break_off(frames.CANCEL)
            await exchange.settled()
            raise

    async def _check_upgrade(self, protocol: str) -> None:
        """Wait for the server's first SETTINGS. Raises NoExtendedConnect if they do not allow it (RFC 8441)."""
        try:
            async with asyncio.timeout(self._settings.head_timeout):
                await self._greeting.wait()
            if self.going:
                raise Unprocessed(f"{self.origin} takes no more requests on this connection")
            if not self.engine.extended_connect:
                raise NoExtendedConnect(self.origin, protocol)
        except BaseException as error:
            if not self._is_gone:
                self.freed()  # no stream was opened
            if isinstance(error, TimeoutError):
                seconds = self._settings.head_timeout
                raise TimeoutError(f"no SETTINGS from {self.origin} within {seconds} s") from None
            raise

    async def _answer_in_time(self, exchange: ClientExchange) -> Response:
        deadlines = self._timers.head
        assert deadlines is not None
        while True:
            waits = exchange.upload_waits
            call = deadlines.begin()
            try:
                return await exchange.answer()
            except asyncio.CancelledError:
                if not call.is_over():
                    raise
                if not waits:
                    seconds = self._settings.head_timeout
                    raise TimeoutError(f"no response from {self.origin} within {seconds} s") from None
            finally:
                deadlines.end(call)

    def left(self, exchange: ClientExchange, /) -> None:
        """An exchange has ended."""
        self._exchanges.discard(exchange)
        self.reused = True
        if self.going and not self._exchanges:
            self._close_soon()
        elif not self._is_gone:
            self.freed()

    # reading

    async def _read(self) -> None:
        engine, stream, link = self.engine, self.stream, self.link
        error: Exception | None = None
        try:
            while data := await stream.read(READ):
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
            self._lost(error)
            await self._end()

    async def _end(self) -> None:
        try:
            await self.link.finish(self._writer)
            await self.stream.aclose()
        except (LlamaError, OSError) as error:
            log.debug("closing %r: %s", self.stream, error)
        finally:
            self.stream.abort()

    def _lost(self, error: Exception | None) -> None:
        self.going = True
        self._greeting.set()
        if self.link.late is not None:
            error = TimeoutError(f"{self.origin}: {self.link.late}")
        for exchange in tuple(self._exchanges):
            exchange.lost(error)
        self._leave()

    def _leave(self) -> None:
        if not self._is_gone:
            self._is_gone = True
            self.gone()

    # events from the engine

    def request(self, stream: H2Stream, head: RequestHead, ended: bool, /) -> None: ...

    def refused(self, stream: H2Stream, error: Exception, ended: bool, /) -> None: ...

    def settings_changed(self) -> None:
        """The server's SETTINGS arrived or changed."""
        self.is_greeted = True
        self._greeting.set()
        self.link.windows()
        if not self._is_gone:
            self.freed()

    def window(self) -> None:
        """The connection's send window has grown."""
        self.link.flush()

    def goaway(self, last: int, code: int, text: bytes, /) -> None:
        """The server sent GOAWAY: it accepts no new requests and still answers those it has accepted."""
        self.going = True
        if code != frames.NO_ERROR:
            log.info("%s sent GOAWAY: %s %r", self.origin, code_name(code), text)
        self._leave()
        if not self._exchanges:
            self._close_soon()

    def pong(self, payload: bytes, /) -> None: ...

    # the end

    def _broken(self) -> None:
        """Writing has failed. Keep reading, because responses may still arrive, unless a timeout caused it."""
        self.going = True
        if self.link.late is not None and not self._is_closing:
            self._is_closing = True
            self._reader.cancel()

    def _stalled(self, stream: H2Stream) -> None:
        """The server gave a stream no send window within the write timeout."""
        seconds = self._settings.write_timeout
        for exchange in tuple(self._exchanges):
            if exchange.stream is stream:
                exchange.fail(TimeoutError(f"{self.origin} took nothing of a request for {seconds} s"))

    def _close_soon(self) -> None:
        self.going = True
        self._leave()
        if not self._is_closing:
            self._is_closing = True
            if not self.engine.failed:
                self.engine.goaway(frames.NO_ERROR, 0)
            self._reader.cancel()

    def discard(self) -> None:
        """Abort the connection immediately."""
        self.stream.abort()
        self._lost(None)
        if not self._is_closing:
            self._is_closing = True
            self._reader.cancel()

    async def aclose(self) -> None:
        """Close the connection with GOAWAY."""
        self._close_soon()
        await asyncio.wait((self._reader,))

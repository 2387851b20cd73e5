"""One exchange of an HTTP/2 server: a stream, the request on it, and the task that responds."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from llama._core.errors import LlamaError, ProtocolError, TruncatedError
from llama._core.extensions import Extensions
from llama._core.server import should_close_gracefully
from llama.http._h1.request_body import DRAIN_BYTES, DRAIN_SECONDS
from llama.http._h2.body import H2Body
from llama.http._h2.messages import fields_of_response, fields_of_trailers, fields_of_upgrade, request_from
from llama.http._h2.tunnel import H2Tunnel, reset_error
from llama.http._h2.wire import frames
from llama.http._h2.wire.fields import RequestHead, ResponseHead, response_fields
from llama.http._h2.wire.frames import code_name
from llama.http._h2.wire.states import CLOSED, HALF_CLOSED_LOCAL
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._h2.writer import H2Writer
from llama.http._messages.body import EMPTY, Body
from llama.http._messages.date import date_field
from llama.http._messages.error_response import error_response, log_and_render_error
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._responder import answer
from llama.http._server_settings import ServerSettings

log = logging.getLogger("llama.server")
_BROKEN = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, TruncatedError)


class ServerConnection(Protocol):
    """The connection that a stream belongs to."""

    inner: RequestHandler
    settings: ServerSettings
    scheme: str
    extensions: Extensions
    writer: H2Writer

    def on_stream_closed(self, exchange: H2ServerStream, /) -> None:
        """The stream was reset: the response is no longer needed."""
        ...

    def drain(self) -> None:
        """Accept no more requests."""
        ...


class H2ServerStream:
    """The server side of one stream: calls the handler and sends its response. The engine calls its event methods."""

    __slots__ = (
        "_body",
        "_connection",
        "_expects",
        "_head",
        "_response_started",
        "_tunnel",
        "is_reset",
        "stream",
        "task",
        "writer",
    )

    def __init__(
        self, connection: ServerConnection, stream: H2Stream, head: RequestHead, *, ended: bool
    ) -> None:
        self.stream = stream
        self.writer = connection.writer
        self.is_reset = False
        """Whether the stream was reset or the connection was lost, so that no response can be sent."""
        self.task: asyncio.Task[None] | None = None
        self._connection = connection
        self._head = head
        self._response_started = False
        self._tunnel: H2Tunnel | None = None
        self._body: H2Body | None = None
        if not ended:
            self._body = H2Body(self, head.length, connection.settings.body_timeout, _timeout_error)
        self._expects = not ended and "expect" in head.headers._keys

    # events from the engine

    def response(self, head: ResponseHead, ended: bool, /) -> None: ...

    def interim(self, head: ResponseHead, /) -> None: ...

    def data(self, data: bytes, ended: bool, /) -> None:
        """Bytes of the request's body arrived."""
        body = self._body
        if body is not None:
            self._expects = False  # the client did not wait for 100 (Continue)
            if data:
                body.feed(data)
            if ended:
                body.finish()

    def trailers(self, headers: Headers, /) -> None:
        """The request's body ended with trailers."""
        if self._body is not None:
            self._body.finish(headers)

    def reset(self, code: int, by_peer: bool, /) -> None:
        """The stream was reset."""
        self.writer.stream_reset(self.stream)
        if self._body is not None:
            self._body.fail(self._on_reset(code))
        if self._tunnel is None and not self.is_reset:
            self.is_reset = True
            self._connection.on_stream_closed(self)

    def reset_stream(self, code: int, /) -> None:
        """Reset the stream."""
        self.writer.protocol.reset(self.stream, code)
        self.writer.flush()

    def half_closed(self) -> None:
        """Do nothing: `finish` frees the stream of a tunnel."""

    async def wait_upload(self) -> None:
        """Return at once: a server's exchange has no other task."""

    def window(self) -> None:
        """The stream's send window has grown."""
        self.writer.window(self.stream)

    def _on_reset(self, code: int) -> Exception:
        if self._tunnel is not None:
            return reset_error()
        return TruncatedError(f"{self._connection} reset {self.stream}: {code_name(code)}", status=400)

    # calls from the request's body

    def on_read(self) -> None:
        """Send 100 (Continue) to a client that waits for it."""
        if self._expects:
            self._expects = False
            if not self._response_started and self.stream.state < CLOSED:
                self.writer.send_headers(self.stream, [(":status", "100")], end=False)

    def release_credit(self, count: int) -> None:
        """Return flow-control credit for the bytes that were read."""
        engine = self.writer.protocol
        engine.consumed(self.stream, count)
        if engine.pending:
            self.writer.flush()

    def on_discard(self) -> None:
        """Do nothing: `finish` resets the stream after the response if the client is still sending."""

    # responding

    async def run(self) -> None:
        """Call the handler and send its response; log errors."""
        try:
            await self._handle()
            asked = (
                self._tunnel is None and not self._expects
            )  # a client that waits for 100 (Continue) sends no body
            if asked and self.stream.state == HALF_CLOSED_LOCAL and self._body is not None:
                await self._drain(self._body)
        except asyncio.CancelledError:
            if not self.is_reset:
                raise
        except (LlamaError, OSError) as error:
            log.log(self._log_level(error), "%s: %s: %s", self._connection, self.stream, error)
        except Exception:
            log.exception("%s: %s failed", self._connection, self.stream)

    def _log_level(self, error: Exception) -> int:
        """Return the log level of an error: a reset tunnel is as common as a reset connection."""
        if self.is_reset:
            return logging.DEBUG
        return logging.INFO if self._tunnel is not None and isinstance(error, _BROKEN) else logging.WARNING

    async def _drain(self, body: H2Body) -> None:
        """Read the unread rest of the body, up to a size and a time.

        Some clients read the response only after they have sent the whole body.
        """
        size = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while size <= DRAIN_BYTES and (part := await body.read_chunk()):
                    size += len(part)
        except TimeoutError:
            pass

    def finish(self) -> None:
        """Free the stream. If the client is still sending, reset it with NO_ERROR (RFC 9113 section 8.1)."""
        if self._body is not None:
            self._body.detach()
        stream = self.stream
        if stream.state < CLOSED:
            code = frames.NO_ERROR if stream.state == HALF_CLOSED_LOCAL else frames.INTERNAL_ERROR
            self.reset_stream(code)

    def _request(self) -> Request:
        connection = self._connection
        is_connect = self._head.method == "CONNECT"
        body: Body = EMPTY if self._body is None or is_connect else self._body
        return request_from(
            self._head, body, "2", connection.scheme, connection.extensions, self._send_informational
        )

    async def _handle(self) -> None:
        request = self._request()
        connection = self._connection
        response = await answer(connection.inner, request, connection.settings, connection)
        try:
            if response.upgrade is not None:
                await self._switch(request, response)
            else:
                await self._send(request, response)
        finally:
            await response.aclose()

    def _error_response(self, error: BaseException, request: Request) -> Response:
        return log_and_render_error(error, self._connection.settings.error_handler, request, self._connection)

    async def _send(self, request: Request, response: Response) -> None:
        try:
            self._check(response)
            fields, framing = fields_of_response(self._head.method, response, date_field())
        except (ValueError, LlamaError) as error:
            await self._send_error_response(request, error)
            return
        self._response_started = True
        if "connection" in response.headers._keys and "close" in response.headers.tokens("connection"):
            self._connection.drain()
        data = response._body.buffered
        stream, link = self.stream, self.writer
        if not framing or (data is not None and not data):
            trailers = fields_of_trailers(response) if framing or self._head.method != "HEAD" else []
            link.send_headers(stream, fields, end=not trailers)
            if trailers:
                link.send_headers(stream, trailers, end=True)
        elif data is not None and response._trailers is None:
            link.send_headers(stream, fields, end=False)
            await link.send(stream, data, end=True)
        else:
            link.send_headers(stream, fields, end=False)
            await self._stream_body(response, framing)

    def _check(self, response: Response) -> None:
        if self._head.method == "CONNECT" and 200 <= response.status < 300:
            raise ProtocolError("the handler answered CONNECT with 2xx but no upgrade=", status=501)

    async def _send_error_response(self, request: Request, error: Exception) -> None:
        """Send an error page in place of a response that cannot be sent."""
        page = self._error_response(error, request)
        try:
            fields, _ = fields_of_response(self._head.method, page, ())
            data = b"" if self._head.method == "HEAD" else await page._body.read()
        except (ValueError, LlamaError):  # the page cannot be sent either
            log.exception("%s: the error page cannot be sent", self._connection)
            fields, data = [(":status", "500")], b""
        finally:
            await page.aclose()
        self._response_started = True
        self.writer.send_headers(self.stream, fields, end=not data)
        if data:
            await self.writer.send(self.stream, data, end=True)

    async def _stream_body(self, response: Response, framing: int) -> None:
        """Send a body chunk by chunk. Reset the stream if the body fails or does not match its Content-Length."""
        body, link, stream = response._body, self.writer, self.stream
        left = framing
        chunk = body.read_chunk_nowait()
        while True:
            if not chunk:
                try:
                    chunk = await body.read_chunk()
                except Exception as error:
                    self._on_write_error(error)
                    return
                if not chunk:
                    break
            left -= len(chunk)
            if framing > 0 and left < 0:
                self._on_write_error(
                    ProtocolError(f"the body is longer than its Content-Length of {framing}")
                )
                return
            if body.ended and (framing < 0 or not left) and not (response._trailers or body.trailers):
                await link.send(stream, chunk, end=True)
                return
            await link.send(stream, chunk, end=False)
            chunk = body.read_chunk_nowait()
        if framing > 0 and left:
            self._on_write_error(
                ProtocolError(f"the body ended {left} bytes before its Content-Length of {framing}")
            )
            return
        trailers = fields_of_trailers(response)
        if trailers:
            link.send_headers(stream, trailers, end=True)
        else:
            await link.send(stream, b"", end=True)

    def _on_write_error(self, error: Exception) -> None:
        trace = None if isinstance(error, LlamaError | OSError | TimeoutError) else error
        extra = {"error.type": type(error).__name__}
        log.warning("%s: response body failed: %s", self._connection, error, exc_info=trace, extra=extra)
        self.reset_stream(frames.INTERNAL_ERROR)

    async def _switch(self, request: Request, response: Response) -> None:
        """Run the upgrade's handler on a tunnel over the stream, in this task."""
        upgrade = response.upgrade
        if upgrade is None or self._head.method != "CONNECT":
            await self._send_error_response(
                request,
                ProtocolError(
                    "the handler answered with upgrade= but the request asked for no upgrade", status=500
                ),
            )
            return
        try:
            fields = fields_of_upgrade("CONNECT", response, date_field())
        except ValueError as error:
            await self._send_error_response(request, error)
            return
        body = self._body
        if body is None:  # the client has already ended its side
            self._body = body = H2Body(self, None, None, _timeout_error)
            body.finish()
        body.without_timeout()
        self._response_started = True
        self._tunnel = tunnel = H2Tunnel(self, body, request.upgrade_protocol or "tunnel")
        tunnel.extensions = request.extensions
        self.writer.send_headers(self.stream, fields, end=False)
        try:
            await upgrade(tunnel)
            await tunnel.aclose()
        except Exception as error:
            if should_close_gracefully(error):
                await tunnel.aclose()
            raise
        finally:
            tunnel.abort()

    async def refuse(self, error: ProtocolError) -> None:
        """Respond to a request whose head exceeds a limit."""
        response = error_response(error, self._connection.settings.error_handler, None)
        try:
            data = await response.body.read()
            fields, _ = fields_of_response("GET", response, date_field())
            self.writer.send_headers(self.stream, fields, end=False)
            self._response_started = True
            await self.writer.send(self.stream, data, end=True)
        finally:
            await response.aclose()

    async def _send_informational(self, status: int, headers: Headers) -> None:
        if self._response_started or self.stream.state >= CLOSED:
            return
        if status == 100:
            self._expects = False
        self.writer.send_headers(self.stream, response_fields(status, headers), end=False)


def _timeout_error(seconds: float) -> Exception:
    return ProtocolError(f"no body bytes from the client for {seconds} seconds", status=408)

"""The server side of one HTTP/1.1 connection.

One coroutine serves the connection, without a task or timer for each request, which would dominate the cost of small
requests. Timers and disconnects interrupt it: `TaskInterrupt` cancels the connection's own task and records the reason,
so that a caught CancelledError is known to be a timeout, a disconnect, or a cancellation from outside, which is always
raised again.

Two rules prevent request smuggling and mixed-up responses. After a malformed head, or a request body that could not be
drained, the connection closes, because the start of the next request is unknown. A response that fails after its head
was sent aborts the connection, so that the client cannot take a truncated body for a complete one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llama._core.errors import LlamaError, ProtocolError, StreamClosedError
from llama._core.shutdown import Shutdown, detached_task
from llama._core.stream import Stream
from llama.http._h1.disconnect_watch import current_watch_timer
from llama.http._h1.request_body import RequestBody
from llama.http._h1.request_head_reader import RequestHeadReader
from llama.http._h1.server_reader import CLIENT_GONE, TIMED_OUT, H1Reader, TaskInterrupt
from llama.http._h1.server_writer import COALESCE_LIMIT, H1Writer, encode_switch
from llama.http._h1.wire.body import decoder
from llama.http._h1.wire.encode import encode_response, response_framing
from llama.http._h1.wire.framing import CHUNKED, UNTIL_CLOSE
from llama.http._h1.wire.head import RequestHead
from llama.http._messages.body import EMPTY, BytesBody
from llama.http._messages.date import date_line
from llama.http._messages.dropped_response import close_responses_in_traceback
from llama.http._messages.error_response import error_response, log_and_render_error
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._progress_timer import ProgressTimer
from llama.http._server_settings import ServerSettings

log = logging.getLogger("llama.server")


class ClientGone(Exception):
    """The client disconnected, so no response can be sent."""


class H1Connection:
    """Serves one connection until it ends. The caller keeps ownership of the stream."""

    def __init__(self, stream: Stream, inner: RequestHandler, settings: ServerSettings, scheme: str) -> None:
        self._stream = stream
        self._inner = inner
        self._settings = settings
        self._scheme = scheme
        self._extensions = stream.extensions
        self._interrupts = TaskInterrupt()
        self._deadline = ProgressTimer(lambda: self._interrupts.interrupt(TIMED_OUT))
        self._input = H1Reader(
            stream,
            current_watch_timer(),
            lambda: self._interrupts.interrupt(CLIENT_GONE),
            half_close=settings.half_close,
        )
        self._output = H1Writer(stream, settings.write_timeout, self._write_late)
        self._interim: asyncio.Task[None] | None = None
        self._reader = RequestHeadReader(self._input, self._interrupts, self._deadline, settings)
        self._body: RequestBody | None = None
        self._head: RequestHead | None = None
        self._response_started = False

    async def run(self) -> None:
        """Serve requests in order until either side ends the connection."""
        ignore_stop = _on_stop(self._reader.stop)
        try:
            while await self._serve_one():
                pass
        except ClientGone:
            self._stream.abort()
        except StreamClosedError:
            if not self._output.broken:
                raise
        except asyncio.CancelledError:
            if not self._interrupts.consume():
                raise
            self._stream.abort()
        finally:
            ignore_stop()
            if self._interim is not None:
                self._interim.cancel()
            self._input.detach()
            self._deadline.close()
            self._output.close()

    async def _serve_one(self) -> bool:
        """Serve one request; return whether the connection can be reused."""
        try:
            head = await self._reader.head()
        except ProtocolError as error:
            await self._refuse(error)
            return False
        return head is not None and await self._handle(head)

    def _request(self, head: RequestHead) -> Request:
        request = Request.__new__(Request)
        request.method = head.method
        request.headers = headers = head.headers
        request.version = head.version
        request.scheme = head.scheme or self._scheme
        request.path = head.path
        request.upgrade_protocol = head.upgrade_protocol
        request.is_absolute_form = head.is_absolute_form
        request._trailers = request._extensions = request._client = None
        request._connection_extensions = self._extensions
        request._send_informational = self._send_informational
        if head.authority is not None and headers.get("host") != head.authority:
            request.authority = head.authority  # RFC 9112 section 3.2.2: the target wins
        request._body = EMPTY if self._body is None else self._body
        return request

    # the response

    async def _handle(self, head: RequestHead) -> bool:
        self._head = head
        self._response_started = False
        if head.length:
            self._body = self._request_body(head)
            self._input.watch_reset()
        else:
            self._body = None
            self._input.watch_disconnect()
        request = self._request(head)
        if self._settings.handler_timeout is not None:
            self._deadline.start(self._settings.handler_timeout)
        try:
            response = await self._inner(request)
            if not isinstance(response, Response):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
                raise TypeError(f"expected the handler to return a Response, got {response!r}")
        except (asyncio.CancelledError, Exception) as error:
            response = await self._on_error(error, request)
        finally:
            if self._settings.handler_timeout is not None:
                self._deadline.stop()
        try:
            if self._interim is not None:
                await self._end_interim()
            if response.upgrade is not None:
                return await self._switch(head, request, response)
            return await self._send(head, request, response)
        finally:
            if response._on_close is not None or type(response._body) is not BytesBody:
                await response.aclose()
            if self._body is not None:
                self._body.detach()
            self._input.unwatch_disconnect()

    def _request_body(self, head: RequestHead) -> RequestBody:
        length = None if head.length == CHUNKED else head.length
        bytes_of = decoder(head.length, self._settings.limits)
        return RequestBody(self, bytes_of, length, expects_continue=head.expects_continue)

    async def _on_error(self, error: BaseException, request: Request) -> Response:
        """Return the response to an exception of the handler.

        Raises ClientGone after a disconnect, and a CancelledError that came from outside.
        """
        is_cancelled = isinstance(error, asyncio.CancelledError)
        reason = self._interrupts.consume() if is_cancelled else ""
        await close_responses_in_traceback(error)
        if is_cancelled:
            if not reason:
                raise error
            if reason != TIMED_OUT:
                raise ClientGone from None
            error = TimeoutError(
                f"no response from the handler within {self._settings.handler_timeout} seconds"
            )
        return self._error_response(error, request)

    async def _send(self, head: RequestHead, request: Request, response: Response) -> bool:
        try:
            raw, framing, keep = self._encode(head, response)
        except (ValueError, LlamaError) as error:
            await response.aclose()
            return await self._send_error_response(head, request, error)
        self._response_started = True
        data = response._body.buffered
        if not framing:
            await self._output.write(raw)
        elif data is None:
            if not await self._output.stream_body(raw, framing, response):
                self._stream.abort()
                return False
        elif len(data) <= COALESCE_LIMIT:
            whole = raw + data
            if not keep or not self._output.write_buffered(whole):
                await self._output.write(whole)
        else:
            await self._output.write_both(raw, data)
        if self._body is not None and not self._body.ended:
            self._input.unwatch_disconnect()
            keep = keep and await self._body.drain()
        return keep and not (self._interrupts.reason and await self._interrupts.flush_pending())

    def _encode(self, head: RequestHead, response: Response) -> tuple[bytes, int, bool]:
        status, headers, length = response.status, response.headers, response._body.length
        if head.method == "CONNECT" and 200 <= status < 300:
            raise ProtocolError("the handler answered CONNECT with 2xx but no upgrade=", status=501)
        if status < 200:
            raise ValueError(f"expected a final status, 200 or above, got {status}")
        framing = response_framing(head.method, status, head.version, headers, length)
        keep = framing != UNTIL_CLOSE and self._may_keep_alive(head, headers)
        if head.method == "CONNECT" and (status != 407 or self._input.rest):
            keep = False  # the client may have sent bytes for the tunnel: they must not be read as requests
        extra = "" if "date" in headers._keys else date_line()
        if not keep:
            extra += "Connection: close\r\n"
        elif head.version == "1.0":
            extra += "Connection: keep-alive\r\n"
        raw = encode_response(head.method, status, response.reason, headers, framing, extra, length)
        return raw, framing, keep

    def _may_keep_alive(self, head: RequestHead, headers: Headers) -> bool:
        if not head.keep_alive or self._reader.stopping or self._input.ended:
            return False
        if self._reader.count == self._settings.max_requests:
            return False
        if "connection" in headers._keys and "close" in headers.tokens("connection"):
            return False
        return self._body is None or self._body.ended or self._body.may_be_drained

    # upgrades

    async def _switch(self, head: RequestHead, request: Request, response: Response) -> bool:
        """Send 101, or 200 for CONNECT, then run the upgrade with the stream in this task."""
        upgrade = response.upgrade
        asked = head.method == "CONNECT" or head.upgrade_protocol
        problem = (
            "" if asked else "the handler set upgrade=, but the request is neither CONNECT nor an Upgrade"
        )
        if self._body is not None and not await self._body.drain():
            problem = "the handler set upgrade=, but did not read the body of the request"
        if problem or upgrade is None:
            return await self._send_error_response(head, request, ProtocolError(problem, status=500))
        raw = encode_switch("" if head.method == "CONNECT" else head.upgrade_protocol, response)
        self._response_started = True
        await self._output.write(raw)
        self._input.detach()
        self._deadline.close()
        if await self._interrupts.flush_pending():
            raise ClientGone
        if self._input.rest:
            self._stream.unread(self._input.rest)
            self._input.rest = b""
        await upgrade(self._stream)
        return False

    # errors

    def _error_response(self, error: BaseException, request: Request) -> Response:
        return log_and_render_error(error, self._settings.error_handler, request, self._stream)

    async def _send_error_response(self, head: RequestHead, request: Request, error: Exception) -> bool:
        """Send an error page in place of a response that cannot be encoded."""
        page = self._error_response(error, request)
        try:
            self._encode(head, page)
        except (ValueError, LlamaError):  # the page cannot be encoded either
            await page.aclose()
            log.exception("%s: the error page cannot be sent", self._stream)
            page = Response(500)
        try:
            return await self._send(head, request, page)
        finally:
            await page.aclose()

    async def _refuse(self, error: ProtocolError) -> None:
        """Answer a malformed request, then close: the start of the next request is unknown."""
        log.info("%s: %d: %s", self._stream, error.status, error)
        response = error_response(error, self._settings.error_handler, None)
        try:
            data = await response.body.read()
            extra = f"{date_line()}Connection: close\r\n"
            raw = encode_response("GET", response.status, "", response.headers, len(data), extra)
            await self._output.write_both(raw, data)
        finally:
            await response.aclose()

    # called by the request and its body

    async def read_body(self) -> bytes:
        """Return the next bytes of the request's body; ProtocolError (408) after `body_timeout`."""
        if self._input.rest or self._settings.body_timeout is None:
            return await self._input.read()
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                return await self._input.read()
        except TimeoutError:
            seconds = self._settings.body_timeout
            raise ProtocolError(f"the body made no progress for {seconds} seconds", status=408) from None

    async def read_ahead(self) -> None:
        """Wait for bytes of the request's body, which the next `read_body` returns."""
        self._input.rest = await self._input.read()

    def read_body_nowait(self) -> bytes:
        """Return the bytes that have already been read, or b""."""
        data, self._input.rest = self._input.rest, b""
        return data

    async def send_continue(self) -> None:
        """Send 100 (Continue), unless the final response has begun."""
        if not self._response_started:
            await self._write_interim(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_ended(self, rest: bytes) -> None:
        """Keep `rest`, the start of the next request, and watch for a disconnect: the request is complete."""
        self._input.rest = rest
        self._input.watch_disconnect()

    async def _send_informational(self, status: int, headers: Headers) -> None:
        head = self._head
        if head is None or head.version == "1.0" or self._response_started:
            return
        if status == 100 and self._body is not None:
            self._body.send_continue_once()
        await self._write_interim(encode_response(head.method, status, "", headers, 0))

    async def _write_interim(self, data: bytes) -> None:
        """Write an informational response completely, even if the caller is cancelled: another response follows it."""
        if self._interim is not None:
            await self._end_interim()
        if self._response_started or self._output.write_buffered(data):
            return
        self._interim = task = detached_task(self._output.write(data))
        await asyncio.wait((task,))
        task.result()

    async def _end_interim(self) -> None:
        """Wait until the informational response is written: a stream has one writer at a time."""
        while (task := self._interim) is not None and not task.done():
            await asyncio.wait((task,))
        self._interim = None

    def _write_late(self) -> None:
        if self._interim is not None and not self._interim.done():
            self._output.broken = True
            self._stream.abort()
        else:
            self._interrupts.interrupt(TIMED_OUT)


def _on_stop(callback: Callable[[], object]) -> Callable[[], None]:
    try:
        return Shutdown.current().on_stop(callback)
    except RuntimeError:  # called directly, without a server
        return _noop


def _noop() -> None:
    return None

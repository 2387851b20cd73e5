"""One exchange of an HTTP/3 server, from the head of the request to the end of the response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llama._core.errors import LlamaError, ProtocolError
from llama._core.extensions import Extensions
from llama.http._h3.fields import Fields, decode_request, encode_head, encode_response, encode_trailers
from llama.http._h3.stream import (
    H3_INTERNAL_ERROR,
    H3_MESSAGE_ERROR,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    WRITE_SLICE,
    H3Body,
    H3Stream,
)
from llama.http._h3.tunnel import H3Tunnel
from llama.http._messages.body import EMPTY
from llama.http._messages.error_response import error_response, log_and_render_error
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._responder import answer
from llama.http._server_settings import ServerSettings

log = logging.getLogger("llama.server")


class H3ServerStream:
    """Responds to one request. The caller runs it in a task, which is cancelled when the client resets the stream."""

    __slots__ = (
        "_channel",
        "_drain",
        "_expects",
        "_extensions",
        "_inner",
        "_response_started",
        "_settings",
        "_where",
    )

    def __init__(
        self,
        channel: H3Stream,
        inner: RequestHandler,
        settings: ServerSettings,
        extensions: Extensions,
        where: str,
        drain: Callable[[], None],
    ) -> None:
        """`drain` makes the connection accept no more requests."""
        self._channel = channel
        self._inner = inner
        self._settings = settings
        self._extensions = extensions
        self._where = where
        self._drain = drain
        self._response_started = self._expects = False

    async def run(self) -> None:
        """Call the handler, send its response and close the stream; log errors."""
        channel = self._channel
        code = H3_NO_ERROR
        try:
            request = self._request()
            if isinstance(request, Response):
                await self._send_now("GET", request)
            else:
                await self._exchange(request)
        except asyncio.CancelledError:
            code = H3_REQUEST_CANCELLED
            if channel.error is None and not channel.sent_end:
                raise
        except (LlamaError, OSError) as error:
            code = H3_INTERNAL_ERROR
            level = logging.DEBUG if channel.error is not None else logging.WARNING
            log.log(level, "%s: exchange failed: %s", self._where, error)
        except Exception:
            code = H3_INTERNAL_ERROR
            log.exception("%s: exchange failed", self._where)
        finally:
            channel.task = None
            channel.close(code if channel.sent_end else code or H3_INTERNAL_ERROR)

    def _request(self) -> Request | Response:
        channel = self._channel
        try:
            request, channel.declared = decode_request(
                channel.fields or [], self._settings.limits, self._extensions, self._send_informational
            )
            if channel.ended and channel.declared not in (None, channel.received):
                raise ProtocolError(f"the body does not have the {channel.declared} bytes it declared")
        except LlamaError as error:
            if getattr(error, "status", 400) in (414, 431, 501):
                return error_response(error, self._settings.error_handler, None)
            channel.abort(H3_MESSAGE_ERROR)
            raise
        if channel.ended and not (channel.unread or channel.trailers):
            request._body = EMPTY
        else:
            self._expects = not channel.received and "expect" in request.headers._keys
            request._body = H3Body(channel, self._settings.body_timeout, wanted=self._wanted)
        return request

    def _wanted(self) -> None:
        """Send 100 (Continue) to a client that waits for it."""
        if self._expects and not self._response_started and not self._is_gone:
            self._channel.send_fields(encode_head(100, Headers()))
        self._expects = False

    @property
    def _is_gone(self) -> bool:
        channel = self._channel
        return channel.error is not None or channel.stopped or channel.sent_end

    async def _exchange(self, request: Request) -> None:
        response = await answer(self._inner, request, self._settings, self._where)
        try:
            if response.upgrade is None:
                await self._send(request, response)
            elif request.method == "CONNECT":
                await self._switch(response)
            else:
                await self._send_page(
                    request,
                    ProtocolError(
                        "the handler answered with upgrade= but the request is not CONNECT", status=500
                    ),
                )
        finally:
            await response.aclose()

    async def _send_informational(self, status: int, headers: Headers) -> None:
        if self._response_started or self._is_gone:
            return
        if status == 100:
            self._expects = False
        self._channel.send_fields(encode_head(status, headers))

    async def _send(self, request: Request, response: Response) -> None:
        try:
            if request.method == "CONNECT" and 200 <= response.status < 300:
                raise ProtocolError("the handler answered CONNECT with 2xx but no upgrade=", status=501)
            fields, framing = encode_response(request.method, response)
        except (ValueError, LlamaError) as error:
            await self._send_page(request, error)
            return
        await self._send_encoded(request.method, response, fields, framing)

    async def _send_page(self, request: Request, error: Exception) -> None:
        """Answer with an error page instead of a response that cannot be sent."""
        page = log_and_render_error(error, self._settings.error_handler, request, self._where)
        try:
            await self._send_now(request.method, page)
        except ValueError:  # the page cannot be sent either
            log.exception("%s: the error page cannot be sent", self._where)
            await self._send_now(request.method, Response(500))
        finally:
            await page.aclose()

    async def _send_now(self, method: str, response: Response) -> None:
        fields, framing = encode_response(method, response)
        await self._send_encoded(method, response, fields, framing)

    async def _send_encoded(self, method: str, response: Response, fields: Fields, framing: int) -> None:
        channel = self._channel
        self._response_started = True
        if "connection" in response.headers._keys and "close" in response.headers.tokens("connection"):
            self._drain()
        data = response._body.buffered
        if not framing or (data is not None and not data):
            trailers = response.trailers if framing or method != "HEAD" else None
            channel.send_fields(fields, end=not trailers)
            if trailers:
                channel.send_fields(encode_trailers(trailers), end=True)
        elif data is not None and response._trailers is None:
            channel.send_fields(fields)
            await self._timed(data, end=True)
        else:
            channel.send_fields(fields)
            await self._stream_body(response, framing)

    async def _stream_body(self, response: Response, framing: int) -> None:
        """Send a body chunk by chunk. Reset the stream if the body fails or does not match its Content-Length."""
        body = response._body
        left = framing
        while True:
            try:
                chunk = await body.read_chunk()
            except Exception as error:
                self._broke(error)
                return
            if not chunk:
                break
            left -= len(chunk)
            if framing > 0 and left < 0:
                self._broke(ProtocolError(f"the body is longer than its Content-Length of {framing}"))
                return
            await self._timed(chunk, end=False)
        if framing > 0 and left:
            self._broke(ProtocolError(f"the body ended {left} bytes before its Content-Length of {framing}"))
            return
        trailers = response.trailers
        if trailers:
            self._channel.send_fields(encode_trailers(trailers), end=True)
        else:
            await self._channel.send(b"", end=True)

    def _broke(self, error: Exception) -> None:
        trace = None if isinstance(error, LlamaError | OSError | TimeoutError) else error
        extra = {"error.type": type(error).__name__}
        log.warning("%s: response body failed: %s", self._where, error, exc_info=trace, extra=extra)
        self._channel.carrier.flush()  # a reset discards what has not been sent
        self._channel.abort(H3_INTERNAL_ERROR)

    async def _timed(self, data: bytes, *, end: bool) -> None:
        seconds = self._settings.write_timeout
        if seconds is None:
            await self._channel.send(data, end=end)
            return
        for start in range(0, len(data), WRITE_SLICE):
            async with asyncio.timeout(seconds):
                await self._channel.send(
                    data[start : start + WRITE_SLICE], end=end and start + WRITE_SLICE >= len(data)
                )

    async def _switch(self, response: Response) -> None:
        """Accept CONNECT and run the upgrade's handler on a tunnel over the stream (RFC 9114 section 4.4)."""
        upgrade = response.upgrade
        self._response_started = True
        self._channel.task = None  # the handler gets an error from the tunnel when it is reset
        status = response.status if 200 <= response.status < 300 else 200
        response.headers.discard("content-length")
        self._channel.send_fields(encode_head(status, response.headers))
        stream = H3Tunnel(self._channel)
        stream.extensions = self._extensions.fork()
        try:
            if upgrade is not None:
                await upgrade(stream)
            await stream.aclose()
        finally:
            stream.abort()

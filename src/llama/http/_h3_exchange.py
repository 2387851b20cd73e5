"""One exchange of an HTTP/3 server: from the head of a request to the end of its response."""

from __future__ import annotations

import asyncio
import logging

from llama._errors import LlamaError, ProtocolError
from llama._extensions import Extensions
from llama.http._body import EMPTY
from llama.http._dropped import close_dropped
from llama.http._error_page import answer_error, error_response
from llama.http._h3_channel import (
    H3_INTERNAL_ERROR,
    H3_MESSAGE_ERROR,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    Channel,
    ChannelBody,
)
from llama.http._h3_fields import encode_head, encode_response, encode_trailers, request_of
from llama.http._h3_tunnel import ChannelStream
from llama.http._headers import Headers
from llama.http._message import Exchange, Request, Response
from llama.http._settings import Settings

log = logging.getLogger("llama.server")


class H3Exchange:
    """Answers one request; its caller runs it in a task, which the client's leaving cancels."""

    __slots__ = ("_answered", "_channel", "_extensions", "_inner", "_settings", "_where")

    def __init__(
        self, channel: Channel, inner: Exchange, settings: Settings, extensions: Extensions, where: str
    ) -> None:
        self._channel = channel
        self._inner = inner
        self._settings = settings
        self._extensions = extensions
        self._where = where
        self._answered = False

    async def run(self) -> None:
        """Answer, and end the stream."""
        channel = self._channel
        code = H3_NO_ERROR
        try:
            request = self._request()
            if isinstance(request, Response):
                await self._send("GET", request)
            else:
                await self._exchange(request)
        except asyncio.CancelledError:
            code = H3_REQUEST_CANCELLED
            if channel.error is None and not channel.sent_end:
                raise
        except (LlamaError, OSError) as error:
            code = H3_INTERNAL_ERROR
            log.info("%s: an exchange broke off: %s", self._where, error)
        finally:
            channel.task = None
            channel.close(code if channel.sent_end else code or H3_INTERNAL_ERROR)

    def _request(self) -> Request | Response:
        channel = self._channel
        try:
            request, channel.declared = request_of(
                channel.fields or [], self._settings.limits, self._extensions, self._inform
            )
            if channel.ended and channel.declared not in (None, channel.received):
                raise ProtocolError(f"the body does not have the {channel.declared} bytes it declared")
        except LlamaError as error:
            if getattr(error, "status", 400) in (414, 431):
                return error_response(error, self._settings.error_page, None)
            channel.abort(H3_MESSAGE_ERROR)
            raise
        request._body = (
            EMPTY
            if channel.ended and not channel.unread
            else ChannelBody(channel, self._settings.body_timeout)
        )
        return request

    async def _exchange(self, request: Request) -> None:
        response = await self._answer(request)
        try:
            if response.upgrade is not None and request.method == "CONNECT":
                await self._switch(response)
            else:
                await self._send(request.method, self._checked(request, response))
        finally:
            await response.aclose()

    def _checked(self, request: Request, response: Response) -> Response:
        problem = ""
        if response.upgrade is not None:
            problem = "an upgrade was answered that HTTP/3 does not have"
        elif request.method == "CONNECT" and 200 <= response.status < 300:
            problem = "a CONNECT request was answered without a tunnel"
        elif not 200 <= response.status <= 599:
            problem = f"{response.status} is no final status"
        return self._page(ProtocolError(problem, status=501), request) if problem else response

    async def _answer(self, request: Request) -> Response:
        seconds = self._settings.handler_timeout
        try:
            if seconds is None:
                return await self._inner(request)
            clock = asyncio.timeout(seconds)
            try:
                async with clock:
                    return await self._inner(request)
            except TimeoutError:
                if not clock.expired():
                    raise
                raise TimeoutError(f"no answer within {seconds:g} seconds") from None
        except BaseException as error:
            await close_dropped(error)
            if not isinstance(error, Exception):
                raise
            return self._page(error, request)

    def _page(self, error: BaseException, request: Request) -> Response:
        return answer_error(error, self._settings.error_page, request, self._where)

    async def _inform(self, status: int, headers: Headers) -> None:
        if not self._answered:
            self._channel.send_fields(encode_head(status, headers))

    async def _send(self, method: str, response: Response) -> None:
        fields, length = encode_response(method, response)
        self._answered = True
        self._channel.send_fields(fields, end=not length)
        if length:
            await self._send_body(response)

    async def _send_body(self, response: Response) -> None:
        body, channel = response._body, self._channel
        if body.data is not None:
            await self._timed(body.data, end=True)
            return
        sent = 0
        while chunk := await body.chunk():
            sent += len(chunk)
            await self._timed(chunk, end=False)
        if body.length is not None and sent != body.length:
            raise ProtocolError(f"the body had {sent} bytes, not the {body.length} it declared", status=502)
        trailers = response.trailers
        if trailers:
            channel.send_fields(encode_trailers(trailers), end=True)
        else:
            await channel.send(b"", end=True)

    async def _timed(self, data: bytes, *, end: bool) -> None:
        seconds = self._settings.write_timeout
        if seconds is None:
            await self._channel.send(data, end=end)
            return
        async with asyncio.timeout(seconds):
            await self._channel.send(data, end=end)

    async def _switch(self, response: Response) -> None:
        """Answer CONNECT, and hand over the stream (RFC 9114 section 4.4)."""
        upgrade = response.upgrade
        self._answered = True
        self._channel.task = None  # whoever uses the tunnel sees by itself when it breaks
        status = response.status if 200 <= response.status < 300 else 200
        self._channel.send_fields(encode_head(status, response.headers))
        stream = ChannelStream(self._channel)
        stream.extensions = self._extensions.fork()
        try:
            if upgrade is not None:
                await upgrade(stream)
            await stream.aclose()
        finally:
            stream.abort()

"""One HTTP request from an ASGI server to a request handler."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable

from llama._asgi.to_asgi.request import ReceivedBody, first_message, headers_of, request_of
from llama._asgi.types import Event, Receive, Scope, Send
from llama._core.errors import LlamaError, ProtocolError
from llama._core.shutdown import detached_task
from llama.http import Body, Headers, Request, RequestHandler, Response
from llama.http._h1.wire.encode import response_framing
from llama.http._h1.wire.framing import content_length
from llama.http._messages.body import EMPTY, BytesBody
from llama.http._messages.dropped_response import close_responses_in_traceback
from llama.http._messages.error_response import ErrorHandler, log_and_render_error
from llama.layers._shared_timeout import DeadlineScope

CLIENT_GONE = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})


class ClientLeft(Exception):
    """The client disconnected before the response was sent."""


class ASGIRequest:
    """Calls the request handler and sends its response. A client that disconnects cancels both."""

    def __init__(
        self, exchange: RequestHandler, scope: Scope, receive: Receive, send: Send, error_page: ErrorHandler
    ) -> None:
        self._exchange = exchange
        self._scope = scope
        self._receive = receive
        self._send = send
        self._error_page = error_page
        self._extensions: Container[str] = scope.get("extensions") or ()
        self._bound = DeadlineScope()
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False
        self._started = False

    async def run(self) -> None:
        """Run until the response is sent or the client has disconnected."""
        try:
            await self._run()
        except ClientLeft:
            return
        except asyncio.CancelledError:
            if not self._bound.consume_cancellation():
                raise
        finally:
            self._bound.exit()
            if self._watcher is not None:
                self._watcher.cancel()
                await asyncio.wait([self._watcher])

    async def _run(self) -> None:
        request = await self._request()
        if request is None:
            return
        response = await self._answer(request)
        try:
            if not self._gone:
                await self._respond(request, response)
        finally:
            await response.aclose()

    # the request

    async def _request(self) -> Request | None:
        headers = headers_of(self._scope)
        first = await first_message(self._receive, headers)
        body: Body
        if first is None:
            body = ReceivedBody(self._take, content_length(headers), self._watch)
        elif first["type"] == "http.disconnect":
            return None
        elif first.get("more_body", False):
            body = ReceivedBody(self._take, None, self._watch, bytes(first.get("body", b"")))
        else:
            data = bytes(first.get("body", b""))
            body = BytesBody(data) if data else EMPTY
            self._watch()
        return request_of(self._scope, self._scope["method"], headers, body, self._inform)

    async def _take(self) -> Event:
        message = await self._receive()
        self._gone = self._gone or message["type"] == "http.disconnect"
        return message

    def _watch(self) -> None:
        """Wait for the disconnect: after the end of the request no other message can follow."""
        self._watcher = detached_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._bound.expire()

    async def _inform(self, status: int, headers: Headers) -> None:
        if status == 103 and "http.response.early_hint" in self._extensions and not self._started:
            links = [link.encode("latin-1") for link in headers.get_all("link")]
            await self._send({"type": "http.response.early_hint", "links": links})

    # the response

    async def _answer(self, request: Request) -> Response:
        try:
            response = await self._exchange(request)
            if not isinstance(response, Response):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all check
                raise TypeError(f"the exchange returned {response!r}, not a Response")
            if response.upgrade is None:
                return response
            await response.aclose()
            raise ProtocolError("the handler answered a request without Upgrade with an upgrade", status=502)
        except BaseException as error:
            await close_responses_in_traceback(error)
            if not isinstance(
                error, LlamaError | OSError
            ):  # includes TimeoutError; the server reports other exceptions
                raise
            return log_and_render_error(error, self._error_page, request, "to_asgi()")

    async def _respond(self, request: Request, response: Response) -> None:
        try:
            framing = _framing(request, response)
        except LlamaError as error:
            await response.aclose()
            response = log_and_render_error(error, self._error_page, request, "to_asgi()")
            framing = _framing(request, response)
        with_trailers = framing < 0 and "http.response.trailers" in self._extensions
        start: Event = {
            "type": "http.response.start",
            "status": response.status,
            "headers": _fields(response, request.method, framing),
        }
        if with_trailers:
            start["trailers"] = True
        self._started = True
        await self._put(start)
        await self._send_body(response._body, framing)
        if with_trailers:
            trailers = encoded(response.trailers or ())
            await self._put({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})

    async def _send_body(self, body: Body, framing: int) -> None:
        """Send the body; an error of the body is raised, so that the server aborts the truncated response."""
        last = b""
        if body.buffered is not None and framing:
            last = body.buffered
        elif framing:
            while part := await body.read_chunk():
                await self._put({"type": "http.response.body", "body": part, "more_body": True})
        await self._put({"type": "http.response.body", "body": last, "more_body": False})

    async def _put(self, message: Event) -> None:
        try:
            await self._send(message)
        except OSError as error:  # raised by some servers' send once the client has disconnected
            raise ClientLeft from error


def _framing(request: Request, response: Response) -> int:
    return response_framing(request.method, response.status, "1.1", response.headers, response._body.length)


def _fields(response: Response, method: str, framing: int) -> list[tuple[bytes, bytes]]:
    """Return the fields to send, in lower case as ASGI requires; of the framing fields only Content-Length is kept."""
    headers, status = response.headers, response.status
    bodiless = status < 200 or status == 204
    fields = encoded(headers)
    if bodiless:
        return [pair for pair in fields if pair[0] != b"content-length"]
    length = response._body.length if method == "HEAD" else framing
    known = length is not None and (length > 0 or (length == 0 and method != "HEAD"))
    if known and status != 304 and "content-length" not in headers:
        fields.append((b"content-length", str(length).encode()))
    return fields


def encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return ASGI fields: in lower case, without hop-by-hop fields."""
    return [
        (key.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers
        if (key := name.lower()) not in CLIENT_GONE
    ]

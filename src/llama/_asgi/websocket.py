"""One WebSocket of an ASGI application."""

from __future__ import annotations

import asyncio
import logging

from llama._asgi.response_sender import ResponseSender
from llama._asgi.types import Application, ASGIProtocolError, Event, Scope
from llama._core.errors import LlamaError, StreamBusyError, StreamClosedError
from llama._core.shutdown import Shutdown
from llama._core.stream import Stream
from llama.http import Request, Response
from llama.ws import WebSocket
from llama.ws._handshake import EXTENSIONS, SUBPROTOCOL, accept_deflate, check_request
from llama.ws._server import close_on_stop
from llama.ws._settings import Settings
from llama.ws._wire import ABNORMAL, INTERNAL_ERROR, NORMAL, Frames

log = logging.getLogger("llama.server")


class WebSocketConnection:
    """Calls the application for one WebSocket request."""

    def __init__(self, application: Application, scope: Scope, request: Request, max_message: int) -> None:
        self._application = application
        self._scope = scope
        self._request = request
        self._answer = ResponseSender(request, "websocket.http.response")
        self._settings = Settings("asgi", max_message)
        self._opened: asyncio.Future[WebSocket] = asyncio.get_running_loop().create_future()
        self._accepted: Response | None = None
        self._subprotocol: str | None = None
        self._told = False  # whether the application has received websocket.connect
        self._closed = False  # by the application

    async def response(self) -> Response:
        """Start the application and return its response: 101 with the connection's handler, or a denial."""
        self._fields = check_request(self._request)
        agreed, deflate = accept_deflate(self._request.headers)
        if agreed:
            self._fields.append((EXTENSIONS, agreed))
        self._frames = Frames(is_client=False, deflate=deflate, max_size=self._settings.max_size)
        Shutdown.current().spawn(self._run(), name=f"asgi websocket {self._scope['path']}")
        try:
            response = await self._answer.response
        except BaseException:
            self._disconnect_event()
            raise
        response.on_close(self._disconnect_event)
        return response

    async def _run(self) -> None:
        error: Exception | None = None
        try:
            await self._application(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            error = LlamaError("the application was cancelled", status=503)
            raise
        except Exception as raised:
            error = raised
        finally:
            self._answer.finish(error)
            if self._accepted is not None:
                await self._end(error)

    async def _end(self, error: Exception | None) -> None:
        if error is not None and not (isinstance(error, OSError) and self._is_disconnected()):
            log.error("%s failed within its WebSocket", self._scope["path"], exc_info=error)
        try:
            socket = await asyncio.shield(self._opened)
        except StreamClosedError:
            return
        await socket.close(NORMAL if error is None else INTERNAL_ERROR)

    def _is_disconnected(self) -> bool:
        if not self._opened.done():
            return False
        return self._opened.exception() is not None or not self._opened.result().is_open

    # called by the application

    async def _receive(self) -> Event:
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        try:
            socket = await asyncio.shield(self._opened)
        except StreamClosedError:
            return {"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""}
        try:
            data = await socket.receive()
        except StreamBusyError:
            raise
        except (LlamaError, OSError):
            code = socket.close_code or ABNORMAL
            return {"type": "websocket.disconnect", "code": code, "reason": socket.close_reason}
        kind = "text" if isinstance(data, str) else "bytes"
        return {"type": "websocket.receive", kind: data}

    async def _send(self, message: Event) -> None:
        kind: str = message["type"]
        if kind == "websocket.accept" and not self._answer.response.done():
            self._accept(message)
        elif kind == "websocket.close" and not self._answer.response.done():
            self._closed = True
            self._answer.response.set_result(Response(403))
        elif kind.startswith("websocket.http.response."):
            await self._answer.send(message)
        elif self._closed or self._accepted is None or kind not in ("websocket.send", "websocket.close"):
            raise ASGIProtocolError(kind, "out of turn")
        elif kind == "websocket.send":
            text = message.get("text")
            socket = await asyncio.shield(self._opened)
            await socket.send(text if text is not None else bytes(message.get("bytes") or b""))
        else:
            await self._close(message.get("code", NORMAL), message.get("reason") or "")

    def _accept(self, message: Event) -> None:
        fields = self._fields
        self._subprotocol = message.get("subprotocol")
        if self._subprotocol:
            fields.append((SUBPROTOCOL, self._subprotocol))
        for name, value in message.get("headers", ()):
            fields.append((bytes(name).decode("latin-1"), bytes(value).decode("latin-1")))
        self._accepted = Response(101, fields, upgrade=self._serve)
        self._answer.response.set_result(self._accepted)

    async def _close(self, code: int, reason: str) -> None:
        self._closed = True
        try:
            socket = await asyncio.shield(self._opened)
        except StreamClosedError:
            return
        if socket.is_open:
            await socket.close(code, reason)

    # called by the connection

    async def _serve(self, stream: Stream) -> None:
        """Run until either side has closed."""
        assert self._accepted is not None  # this is the upgrade of that response
        socket = WebSocket(
            stream, self._frames, self._settings, self._request, self._accepted, self._subprotocol
        )
        self._opened.set_result(socket)
        forget = close_on_stop(socket)
        try:
            await socket.wait_closed()
        finally:
            forget()
            await socket.aclose()

    def _disconnect_event(self) -> None:
        """Handle a response that was closed before its upgrade began."""
        if not self._opened.done():
            self._opened.set_exception(StreamClosedError("the client disconnected"))
            self._opened.exception()

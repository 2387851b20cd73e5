"""One WebSocket of an ASGI application, by the sans-I/O protocol of `websockets` (RFC 6455, 7692)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
from collections import deque

from websockets.datastructures import Headers as WebSocketHeaders
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from llama._asgi._answer import Answer
from llama._asgi._types import Application, Event, OutOfTurn, Scope
from llama._errors import Closed, LlamaError, ProtocolError
from llama._shutdown import Shutdown
from llama._stream import Stream
from llama.http import Request, Response

log = logging.getLogger("llama.server")
WAITING = 16
CLOSING = 1.0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketCall:
    """Calls the application for one request for a WebSocket."""

    def __init__(self, application: Application, scope: Scope, request: Request, max_message: int) -> None:
        self._application = application
        self._scope = scope
        self._request = request
        self._answer = Answer(request, "websocket.http.response")
        self._protocol = ServerProtocol(state=State.OPEN, max_size=max_message)
        self._events: deque[Event] = deque([{"type": "websocket.connect"}])
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._opened: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        self._accepted = False
        self._closed = False
        self._disconnect: Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._parts: list[bytes] = []
        self._text = False

    async def response(self) -> Response:
        """Start the application; the answer is 101 with what runs the connection, or a denial."""
        handshake = _handshake(self._protocol, self._request)
        self._handshake = handshake
        Shutdown.current().spawn(self._run(), name=f"asgi websocket {self._scope['path']}")
        try:
            response = await self._answer.response
        except BaseException:
            await self._gone(1006)
            raise
        response.on_close(lambda: self._gone(1006))
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
            self._answer.end(error)
            if self._accepted:
                if error is not None and not (self._closed and isinstance(error, OSError)):
                    log.error("%s failed within its WebSocket", self._scope["path"], exc_info=error)
                await self._close(1000 if error is None else 1011, "")

    # what the application calls

    async def _receive(self) -> Event:
        async with self._changed:
            while not self._events and self._disconnect is None:
                await self._changed.wait()
            self._changed.notify_all()
            if self._events:
                return self._events.popleft()
            return self._disconnect or {}

    async def _send(self, message: Event) -> None:
        kind: str = message["type"]
        if kind == "websocket.accept" and not self._answer.response.done():
            self._accept(message)
        elif kind == "websocket.close" and not self._answer.response.done():
            self._closed = True
            self._answer.response.set_result(Response(403))
        elif kind.startswith("websocket.http.response."):
            await self._answer.send(message)
        elif self._closed or not self._accepted:
            if kind == "websocket.send" and self._disconnect is not None:
                raise Closed("the client has left")
            raise OutOfTurn(kind, "out of turn")
        elif kind == "websocket.send":
            await self._send_message(message)
        elif kind == "websocket.close":
            await self._close(message.get("code", 1000), message.get("reason") or "")
        else:
            raise OutOfTurn(kind, "out of turn")

    def _accept(self, message: Event) -> None:
        headers = self._handshake
        if subprotocol := message.get("subprotocol"):
            headers.append(("Sec-WebSocket-Protocol", subprotocol))
        for name, value in message.get("headers", ()):
            headers.append((bytes(name).decode("latin-1"), bytes(value).decode("latin-1")))
        self._accepted = True
        self._answer.response.set_result(Response(101, headers, upgrade=self._serve))

    async def _send_message(self, message: Event) -> None:
        text, data = message.get("text"), message.get("bytes")
        if text is not None:
            self._protocol.send_text(text.encode())
        else:
            self._protocol.send_binary(bytes(data or b""))
        await self._flush()

    async def _close(self, code: int, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            await self._flush()
            stream = self._opened.result()
            self._timer = asyncio.get_running_loop().call_later(CLOSING, stream.abort)
        async with self._changed:
            self._events.clear()
            self._changed.notify_all()

    async def _flush(self) -> None:
        stream = await asyncio.shield(self._opened)
        async with self._writing:
            if data := b"".join(self._protocol.data_to_send()):
                await stream.write(data)

    # what the connection does

    async def _serve(self, stream: Stream) -> None:
        """Read until either side has closed."""
        self._opened.set_result(stream)
        protocol = self._protocol
        try:
            while data := await stream.read():
                protocol.receive_data(data)
                for event in protocol.events_received():
                    if isinstance(event, Frame):
                        await self._take(event)
                await self._flush()
                if protocol.close_rcvd is not None:
                    break
                if protocol.state is not State.OPEN and not self._closed:
                    await self._discard(stream)
                    break
        except (OSError, LlamaError) as error:
            log.debug("%s: %s", stream, error)
        finally:
            await self._gone(1006)

    async def _discard(self, stream: Stream) -> None:
        """This side has failed the connection: let the peer see why before it ends."""
        try:
            async with asyncio.timeout(CLOSING):
                while await stream.read():
                    pass
        except TimeoutError:
            pass

    async def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text = frame.opcode is Opcode.TEXT
            self._parts = []
        elif frame.opcode is not Opcode.CONT:
            return
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        data = b"".join(self._parts)
        self._parts = []
        event: Event = {"type": "websocket.receive"}
        if self._text:
            try:
                event["text"] = data.decode()
            except UnicodeDecodeError:
                self._protocol.fail(1007, "text that is not UTF-8")
                return
        else:
            event["bytes"] = data
        await self._deliver(event)

    async def _deliver(self, event: Event) -> None:
        async with self._changed:
            while len(self._events) >= WAITING and not self._closed:
                await self._changed.wait()
            if not self._closed:
                self._events.append(event)
            self._changed.notify_all()

    async def _gone(self, code: int) -> None:
        """The connection is over: what the application reads next is the disconnect."""
        if self._disconnect is not None:
            return
        received = self._protocol.close_rcvd
        reason = received.reason if received is not None else ""
        if received is not None:
            code = int(received.code)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        async with self._changed:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._changed.notify_all()
        if not self._opened.done():
            self._opened.set_exception(Closed("the client has left"))
            self._opened.exception()


def _handshake(protocol: ServerProtocol, request: Request) -> list[tuple[str, str]]:
    """Check the request (RFC 6455 section 4.2.1); the fields to accept it with. ProtocolError where it is wrong."""
    headers = request.headers
    if headers.get_all("sec-websocket-version") != ["13"]:
        raise ProtocolError("Sec-WebSocket-Version is not 13", status=426)
    fields: list[tuple[str, str]] = []
    if request.method != "CONNECT":
        if request.method != "GET":
            raise ProtocolError("a WebSocket is asked for by GET", status=405)
        key = headers.get_all("sec-websocket-key")
        if len(key) != 1 or not _is_key(key[0]):
            raise ProtocolError("a malformed Sec-WebSocket-Key")
        digest = hashlib.sha1(key[0].encode() + _GUID, usedforsecurity=False).digest()
        fields.append(("Sec-WebSocket-Accept", base64.b64encode(digest).decode()))
    offers = WebSocketHeaders(
        [("Sec-WebSocket-Extensions", o) for o in headers.get_all("sec-websocket-extensions")]
    )
    protocol.available_extensions = enable_server_permessage_deflate(None)
    try:
        accepted, protocol.extensions = protocol.process_extensions(offers)
    except InvalidHandshake as error:
        raise ProtocolError(f"malformed Sec-WebSocket-Extensions: {error}") from None
    if accepted is not None:
        fields.append(("Sec-WebSocket-Extensions", accepted))
    return fields


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode(), validate=True)) == 16
    except (binascii.Error, ValueError):
        return False

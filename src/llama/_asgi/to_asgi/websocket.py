"""One WebSocket from an ASGI server, passed to a request handler as an upgrade request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets

from llama._asgi.to_asgi.http import CLIENT_GONE, encoded
from llama._asgi.to_asgi.message_stream import BROKEN, MessageStream
from llama._asgi.to_asgi.request import headers_of, request_of
from llama._asgi.types import Receive, Scope, Send
from llama._core.errors import LlamaError, ProtocolError
from llama._core.service import Service
from llama._core.stream import Stream
from llama.http import Headers, Request, RequestHandler, Response
from llama.http._messages.body import EMPTY
from llama.http._messages.error_response import ErrorHandler, log_and_render_error
from llama.layers._shared_timeout import DeadlineScope

CLOSE_TIMEOUT = 1.0
log = logging.getLogger("llama.server")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HANDSHAKE_HEADERS = (
    "sec-websocket-key",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-version",
)


class ASGIWebSocket:
    """Requests a WebSocket from the request handler, and relays between it and the server's client."""

    def __init__(
        self,
        exchange: RequestHandler,
        scope: Scope,
        receive: Receive,
        send: Send,
        error_page: ErrorHandler,
        max_message: int,
    ) -> None:
        self._exchange = exchange
        self._scope = scope
        self._receive = receive
        self._send = send
        self._error_page = error_page
        self._stream = MessageStream(receive, send, max_message, self._ending)
        self._key = base64.b64encode(secrets.token_bytes(16)).decode()
        self._bound = DeadlineScope()
        self._carrying = False
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Relay until either side has closed."""
        if (await self._receive())["type"] != "websocket.connect":
            return
        try:
            response = await self._answer()
            if response is not None:
                await self._respond(response)
        finally:
            self._bound.exit()
            await self._stream.wait_done()

    async def _answer(self) -> Response | None:
        """Return the handler's response; None if the client disconnected first."""
        waiting = self._stream.listening()
        waiting.add_done_callback(self._left)
        request = self._request()
        try:
            response = await self._exchange(request)
            if response.upgrade is not None:
                await self._check(response)
            return response
        except asyncio.CancelledError:
            if not self._bound.consume_cancellation():
                raise
            return None
        except (LlamaError, OSError) as error:
            return log_and_render_error(error, self._error_page, request, "to_asgi()")
        finally:
            waiting.remove_done_callback(self._left)

    def _left(self, waiting: asyncio.Task[object]) -> None:
        """Wait for a message before the response: it can only be a disconnect."""
        if not waiting.cancelled():
            self._bound.expire()

    def _ending(self) -> None:
        """Wait a limited time for the peer's part of the closing handshake."""
        if self._carrying:
            self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._bound.expire)

    def _request(self) -> Request:
        headers = headers_of(self._scope)
        headers.discard(*CLIENT_GONE, *_HANDSHAKE_HEADERS)
        if "sec-websocket-protocol" not in headers and (offered := self._scope.get("subprotocols")):
            headers.add("Sec-WebSocket-Protocol", ", ".join(offered))
        headers.add("Sec-WebSocket-Version", "13")
        headers.add("Sec-WebSocket-Key", self._key)
        request = request_of(self._scope, "GET", headers, EMPTY)
        request.upgrade_protocol = "websocket"
        self._stream.extensions = request.extensions.fork()
        return request

    async def _check(self, response: Response) -> None:
        """Raise ProtocolError unless the response accepts this handshake (RFC 6455 section 4.1)."""
        digest = hashlib.sha1(self._key.encode() + _GUID, usedforsecurity=False).digest()
        accept = response.headers.get("sec-websocket-accept")
        problem = ""
        if response.status == 101 and accept != base64.b64encode(digest).decode():
            problem = f"Sec-WebSocket-Accept is {accept!r}"
        elif "sec-websocket-extensions" in response.headers:
            problem = "the response accepts a WebSocket extension that was not offered"
        if problem:
            await response.aclose()
            raise ProtocolError(problem, status=502)

    async def _respond(self, response: Response) -> None:
        try:
            if response.upgrade is not None:
                await self._accept(response.headers)
                await self._carry(response.upgrade)
            elif "websocket.http.response" in (self._scope.get("extensions") or {}):
                await self._deny(response)
            else:
                await self._send({"type": "websocket.close", "code": 1000, "reason": ""})
        except OSError as error:
            log.debug("%s: %s", self._stream, error)  # as below
        finally:
            await response.aclose()

    async def _accept(self, headers: Headers) -> None:
        more = headers.copy()
        more.discard(*_HANDSHAKE_HEADERS, "sec-websocket-protocol", "content-length")
        protocol = headers.get("sec-websocket-protocol")
        await self._send({"type": "websocket.accept", "subprotocol": protocol, "headers": encoded(more)})

    async def _deny(self, response: Response) -> None:
        kind = "websocket.http.response"
        headers = encoded(response.headers)
        await self._send({"type": f"{kind}.start", "status": response.status, "headers": headers})
        while part := await response.body.read_chunk():
            await self._send({"type": f"{kind}.body", "body": part, "more_body": True})
        await self._send({"type": f"{kind}.body", "body": b"", "more_body": False})

    async def _carry(self, upgrade: Service[Stream, None]) -> None:
        self._carrying = True
        try:
            await upgrade(self._stream)
        except asyncio.CancelledError:
            if not self._bound.consume_cancellation():
                raise
        except (LlamaError, OSError) as error:
            log.debug("%s: %s", self._stream, error)
        finally:
            self._carrying = False
            if self._timer is not None:
                self._timer.cancel()
            try:
                await self._stream.send_close(BROKEN)
            except OSError as error:
                log.debug(
                    "%s: %s", self._stream, error
                )  # raised by some servers' send once the client has disconnected

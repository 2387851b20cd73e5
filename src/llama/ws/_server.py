"""The WebSocket server: the layer that turns a WebSocket handler into a request handler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from llama._core.errors import ConfigError, LlamaError, ProtocolError, RefusedError
from llama._core.loggers import logger
from llama._core.service import Layer, Service
from llama._core.shutdown import Shutdown
from llama._core.stack import layer_factory, named_layer
from llama._core.stream import Stream
from llama.http import Request, Response
from llama.ws._handshake import (
    EXTENSIONS,
    SUBPROTOCOL,
    VERSION,
    accept_deflate,
    asks_for_websocket,
    check_request,
    offered_subprotocols,
)
from llama.ws._settings import MAX_SIZE, Settings
from llama.ws._websocket import WebSocket
from llama.ws._wire import GOING_AWAY, INTERNAL_ERROR, Frames

log = logger("server")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class WebSocketServer:
    """Accepts WebSockets and passes them to a service."""

    inner: Service[WebSocket, None]
    subprotocols: tuple[str, ...]
    origins: frozenset[str | None] | None
    settings: Settings

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "ws.server()"

    async def __call__(self, request: Request, /) -> Response:
        if not asks_for_websocket(request):
            return upgrade_required()
        try:
            fields = check_request(request)
            agreed, deflate = accept_deflate(request.headers) if self.settings.compression else ("", None)
        except ProtocolError as error:
            if error.status == 426:
                return upgrade_required()
            raise
        self._check_origin(request)
        subprotocol = self._choose(request)
        if agreed:
            fields.append((EXTENSIONS, agreed))
        if subprotocol is not None:
            fields.append((SUBPROTOCOL, subprotocol))
        frames = Frames(is_client=False, deflate=deflate, max_size=self.settings.max_size)
        response = Response(101, fields)
        response.upgrade = partial(self._run, request, response, subprotocol, frames)
        return response

    def _check_origin(self, request: Request) -> None:
        """Check the Origin: browsers let any page open a WebSocket to any server (RFC 6455 section 10.2)."""
        if self.origins is None:
            return
        origins = request.headers.get_all("origin")
        if len(origins) > 1:
            raise ProtocolError(f"{len(origins)} Origin fields")
        origin = origins[0].lower() if origins else None
        if origin not in self.origins:
            raise RefusedError(
                f"the origin {origin!r} may not open this WebSocket" if origin else "no Origin field"
            )

    def _choose(self, request: Request) -> str | None:
        offered = offered_subprotocols(request.headers)
        return next((each for each in self.subprotocols if each in offered), None)

    async def _run(
        self, request: Request, response: Response, subprotocol: str | None, frames: Frames, stream: Stream
    ) -> None:
        socket = WebSocket(stream, frames, self.settings, request, response, subprotocol)
        forget = close_on_stop(socket)
        try:
            await self.inner(socket)
            await socket.close()
        except Exception as error:
            _note(socket, error)
            await socket.close(INTERNAL_ERROR)
        finally:
            forget()
            await socket.aclose()


def _note(socket: WebSocket, error: Exception) -> None:
    """Log once why a handler failed; a peer that disconnected is not a failure."""
    if not isinstance(error, LlamaError | OSError):
        log.error("%r failed", socket, exc_info=error, extra={"error.type": type(error).__name__})
    elif socket.is_open:
        log.warning("%r: %s", socket, error, extra={"error.type": type(error).__name__})
    else:
        log.info("%s", error)


def close_on_stop(socket: WebSocket) -> Callable[[], None]:
    """Close with 1001 when the server begins to stop; return a function that cancels this."""
    try:
        shutdown = Shutdown.current()
    except RuntimeError:  # no server runs this connection
        return lambda: None
    return shutdown.on_stop(
        lambda: shutdown.spawn(socket.close(GOING_AWAY, "the server is going away"), name="close a WebSocket")
    )


def upgrade_required() -> Response:
    """The response to a request without a WebSocket handshake, or for another version."""
    headers = {"Upgrade": "websocket", VERSION: "13", "Content-Type": "text/plain"}
    return Response(426, headers, b"426 Upgrade Required: this is a WebSocket\n")


@layer_factory("ws.server")
def server(
    *,
    subprotocols: Sequence[str] = (),
    origins: Iterable[str | None] | None = None,
    max_size: int = MAX_SIZE,
    compression: bool = True,
    ping_interval: float | None = None,
    ping_timeout: float | None = None,
) -> Layer[WebSocket, None, Request, Response]:
    """Accept WebSockets (RFC 6455) and call a handler with each: `async def chat(socket: WebSocket) -> None`.

    The first of `subprotocols` that the client offers is selected. `origins` lists the allowed Origin values,
    such as `https://example.com`, and None for clients that send no Origin; by default all are allowed. A message
    of more than `max_size` bytes closes the WebSocket with 1009. `compression` accepts permessage-deflate
    (RFC 7692).

    After `ping_interval` seconds without data the client is pinged; after `ping_timeout` more seconds (by default
    the interval) without data the connection is closed. A server that stops closes with 1001, a handler that
    returns with 1000, one that raises with 1011; a client that disconnects is not a failure of the handler.

    Other requests get 426, bad handshakes 400 and refused origins 403.

        stack(http.server(), ws.server(origins=["https://example.com"]), chat)
    """
    if isinstance(origins, str) or isinstance(subprotocols, str):
        raise ConfigError("ws.server(): expected lists for origins and subprotocols")
    settings = Settings("ws.server", max_size, compression, ping_interval, ping_timeout)
    allowed = (
        None if origins is None else frozenset(None if each is None else each.lower() for each in origins)
    )

    def build(inner: Service[WebSocket, None]) -> Service[Request, Response]:
        return WebSocketServer(inner, tuple(subprotocols), allowed, settings)

    return named_layer("ws.server()", build, input_type=Request, inner_type=WebSocket)

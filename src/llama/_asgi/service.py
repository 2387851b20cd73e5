"""The request handler that calls an ASGI application.

It counts its entries because one handler may be part of several servers: the application's lifespan runs once, from the
first entry to the last exit. A handler that no server has entered serves requests all the same, with an empty state.
Each request runs as a task of its own and not as a plain call, because an ASGI application sends its response while it
runs and may continue after it, whereas a request handler returns its Response as soon as the head is known.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar

from llama._asgi.http import HTTPConnection
from llama._asgi.lifespan import Lifespan
from llama._asgi.scope import http_scope, websocket_scope
from llama._asgi.types import Application
from llama._asgi.websocket import WebSocketConnection
from llama._core.stack import display_name, layer_factory
from llama.http import Request, RequestHandler, Response


class ASGIService:
    """Answers requests with an ASGI application; as a context manager it runs the application's lifespan."""

    __input_type__: ClassVar[type] = Request

    def __init__(self, application: Application, root_path: str, max_message: int) -> None:
        self._application = application
        self._root_path = root_path
        self._max_message = max_message
        self._lifespan: Lifespan | None = None
        self._entered = 0

    def __repr__(self) -> str:
        return f"asgi({display_name(self._application)})"

    async def __aenter__(self) -> ASGIService:
        if not self._entered:
            lifespan = Lifespan(self._application)
            await lifespan.start()
            self._lifespan = lifespan
        self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        lifespan = self._lifespan
        if not self._entered and lifespan is not None:
            self._lifespan = None
            await lifespan.stop()

    async def __call__(self, request: Request, /) -> Response:
        state: dict[str, Any] = self._lifespan.state if self._lifespan is not None else {}
        if request.upgrade_protocol == "websocket":
            scope = websocket_scope(request, state, self._root_path)
            return await WebSocketConnection(self._application, scope, request, self._max_message).response()
        scope = http_scope(request, state, self._root_path)
        return await HTTPConnection(self._application, scope, request).response()


@layer_factory("asgi", "service")
def asgi(application: Application, *, root_path: str = "", max_message: int = 1 << 24) -> RequestHandler:
    """Answer requests with an ASGI 3 application: `stack(http.server(), asgi(app))`.

    Supports HTTP and WebSocket, with the extensions for TLS, trailers, early hints and denial responses. The
    application's lifespan runs while the stack is served; an application without lifespan support is served without
    it, one that fails to start keeps the server from starting. `root_path` is the path that it is mounted at.
    `max_message` limits a WebSocket message, in bytes. When a client disconnects, the application receives
    `http.disconnect`, and `send` raises an OSError.
    """
    return ASGIService(application, root_path, max_message)

"""The exchange that an ASGI application is."""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar

from llama._asgi._http import HttpCall
from llama._asgi._lifespan import Lifespan
from llama._asgi._scope import http_scope, websocket_scope
from llama._asgi._types import Application
from llama._asgi._websocket import WebSocketCall
from llama._stack import factory, name_of
from llama.http import Exchange, Request, Response


class AsgiExchange:
    """Answers requests by an ASGI application; as a context manager it runs the application's lifespan."""

    __takes__: ClassVar[type] = Request

    def __init__(self, application: Application, root_path: str, max_message: int) -> None:
        self._application = application
        self._root_path = root_path
        self._max_message = max_message
        self._lifespan: Lifespan | None = None
        self._entered = 0

    def __repr__(self) -> str:
        return f"asgi({name_of(self._application)})"

    async def __aenter__(self) -> AsgiExchange:
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
        if request.protocol == "websocket":
            scope = websocket_scope(request, state, self._root_path)
            return await WebSocketCall(self._application, scope, request, self._max_message).response()
        scope = http_scope(request, state, self._root_path)
        return await HttpCall(self._application, scope, request).response()


@factory("asgi", "service")
def asgi(application: Application, *, root_path: str = "", max_message: int = 1 << 24) -> Exchange:
    """Answer requests by an ASGI 3 application: `stack(http.server(), asgi(app))`.

    HTTP and WebSocket, with the extensions for TLS, trailers, early hints and denial responses. The application's
    lifespan runs while the stack is served; one that does not support it is left alone, one that fails to start
    keeps the server from starting. `root_path` is where it is mounted. `max_message` bounds a WebSocket message,
    in bytes. A client that leaves is told by `http.disconnect`; what is sent to it then raises an OSError.
    """
    return AsgiExchange(application, root_path, max_message)

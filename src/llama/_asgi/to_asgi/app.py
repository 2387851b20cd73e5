"""A request handler as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from types import TracebackType

from llama._asgi.to_asgi.http import ASGIRequest
from llama._asgi.to_asgi.websocket import ASGIWebSocket
from llama._asgi.types import Receive, Scope, Send
from llama._core.resources import enter_resources
from llama._core.shutdown import Shutdown
from llama._core.stack import check_accepts, describe
from llama.http import Request, RequestHandler
from llama.http._messages.error_response import ErrorHandler, named_page, plain_text_error


class LoopResources:
    """The resources and the tasks of the request handler in one event loop."""

    def __init__(self, exchange: RequestHandler) -> None:
        self.loop = asyncio.get_running_loop()
        self.shutdown = Shutdown()
        self._exchange = exchange
        self._exits = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._open = False

    async def open(self) -> None:
        """Enter the resources of the request handler. Idempotent; concurrent calls wait for the first."""
        async with self._opening:
            if not self._open:
                with self.shutdown.as_current():
                    await enter_resources(self._exits, self._exchange)
                self._open = True

    async def close(self) -> None:
        """Wait for the tasks, then exit the resources."""
        async with self._opening:
            try:
                await self.shutdown.aclose()
            finally:
                await self._exits.aclose()

    async def close_with_the_loop(self) -> None:
        """Close everything with the loop: asyncio closes the remaining async generators when a loop ends."""
        keeper = self._until_closed()
        await anext(keeper)
        _lifetimes[self] = keeper

    async def _until_closed(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            _lifetimes.pop(self, None)
            await self.close()


_lifetimes: dict[LoopResources, AsyncGenerator[None]] = {}


class ToAsgi:
    """An ASGI application around a request handler; as a context manager it opens the handler's resources."""

    def __init__(self, exchange: RequestHandler, error_page: ErrorHandler, max_message: int) -> None:
        self._exchange = exchange
        self._error_page = error_page
        self._max_message = max_message
        self._entered = 0
        self._opened: LoopResources | None = None

    def __repr__(self) -> str:
        return f"to_asgi({describe(self._exchange)})"

    async def __aenter__(self) -> ToAsgi:
        self._entered += 1
        try:
            await self._running().open()
        except BaseException:
            self._entered -= 1
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered and self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.close()

    def _running(self) -> LoopResources:
        if self._opened is None or self._opened.loop is not asyncio.get_running_loop():
            self._opened = LoopResources(self._exchange)
        return self._opened

    async def _shutdown(self) -> Shutdown:
        """Return this loop's resources; opens them until the loop ends if no lifespan has."""
        known, opened = self._opened, self._running()
        if opened is not known:
            await opened.close_with_the_loop()
        await opened.open()
        return opened.shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        with (await self._shutdown()).as_current():
            if scope["type"] == "http":
                await ASGIRequest(self._exchange, scope, receive, send, self._error_page).run()
            elif scope["type"] == "websocket":
                page, limit = self._error_page, self._max_message
                await ASGIWebSocket(self._exchange, scope, receive, send, page, limit).run()
            else:
                raise ValueError(f"{self!r} does not serve {scope['type']!r}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.__aenter__()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error) or type(error).__name__})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self.__aexit__(None, None, None)
        except Exception as error:
            await send({"type": "lifespan.shutdown.failed", "message": str(error) or type(error).__name__})
            raise
        await send({"type": "lifespan.shutdown.complete"})


def to_asgi(
    exchange: RequestHandler,
    *,
    error_page: ErrorHandler = plain_text_error,
    proxy_name: str = "llama",
    max_message: int = 1 << 24,
) -> ToAsgi:
    """Make a request handler an ASGI 3 application, for any ASGI server or framework.

    `app.mount("/api", to_asgi(http.reverse_proxy("http://127.0.0.1:8000")))`: the handler sees the path below the
    mount point. Bodies stream in both directions. WebSockets work if the handler responds with an upgrade. A client
    that disconnects cancels the handler. Trailers and early hints (103) are sent if the server supports these
    extensions. `max_message` limits a WebSocket message, in bytes.

    The lifespan opens the handler's resources, such as a connection pool. Without a lifespan, as in an application
    that is mounted in another one, the first request opens them, and they close with the loop. To control this, use
    `async with to_asgi(...) as app:` in the lifespan of the outer application.

    LlamaError, TimeoutError and OSError become responses made by `error_handler`, with `proxy_name` as this proxy's
    name in Proxy-Status; other exceptions are raised to the server or framework. An error after the response has
    begun is raised too, so that the server aborts the response.
    """
    check_accepts(exchange, Request, "to_asgi()")
    return ToAsgi(exchange, named_page(error_page, proxy_name, "to_asgi"), max_message)

"""An exchange as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from types import TracebackType

from llama._asgi._to_asgi_http import HttpAsked
from llama._asgi._to_asgi_websocket import WebSocketAsked
from llama._asgi._types import Receive, Scope, Send
from llama._resources import enter
from llama._shutdown import Shutdown
from llama._stack import check_takes, describe
from llama.http import Exchange, Request
from llama.http._error_page import ErrorPage, named_page, plain_page


class Opened:
    """What the exchange holds open in one event loop, and the owner of its tasks."""

    def __init__(self, exchange: Exchange) -> None:
        self.loop = asyncio.get_running_loop()
        self.shutdown = Shutdown()
        self._exchange = exchange
        self._exits = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._open = False

    async def open(self) -> None:
        """Enter what the exchange owns. Again does nothing, but waits for it."""
        async with self._opening:
            if not self._open:
                with self.shutdown.as_current():
                    await enter(self._exits, self._exchange)
                self._open = True

    async def close(self) -> None:
        """Wait for its tasks, and leave what was entered."""
        async with self._opening:
            try:
                await self.shutdown.aclose()
            finally:
                await self._exits.aclose()

    async def close_with_the_loop(self) -> None:
        """asyncio closes the generators that are left when a loop ends: have one that closes all this."""
        keeper = self._until_closed()
        await anext(keeper)
        _keepers[self] = keeper

    async def _until_closed(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            _keepers.pop(self, None)
            await self.close()


_keepers: dict[Opened, AsyncGenerator[None]] = {}


class ToAsgi:
    """An ASGI application that answers by an exchange; as a context manager it opens what that one owns."""

    def __init__(self, exchange: Exchange, error_page: ErrorPage, max_message: int) -> None:
        self._exchange = exchange
        self._error_page = error_page
        self._max_message = max_message
        self._entered = 0
        self._opened: Opened | None = None

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

    def _running(self) -> Opened:
        if self._opened is None or self._opened.loop is not asyncio.get_running_loop():
            self._opened = Opened(self._exchange)
        return self._opened

    async def _shutdown(self) -> Shutdown:
        """The owner of this loop's tasks; opens what nobody has opened, until the loop ends."""
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
                await HttpAsked(self._exchange, scope, receive, send, self._error_page).run()
            elif scope["type"] == "websocket":
                page, limit = self._error_page, self._max_message
                await WebSocketAsked(self._exchange, scope, receive, send, page, limit).run()
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
    exchange: Exchange,
    *,
    error_page: ErrorPage = plain_page,
    proxy_name: str = "llama",
    max_message: int = 1 << 24,
) -> ToAsgi:
    """Make an exchange an ASGI 3 application, for any ASGI server and inside of any ASGI framework.

    `app.mount("/api", to_asgi(http.reverse_proxy("http://127.0.0.1:8000")))`: the exchange sees the path below the
    place where it is mounted. Bodies stream both ways, WebSockets pass where the exchange answers them by an
    upgrade, a client that leaves cancels the exchange; trailers and early hints (103) pass where the server has
    the extensions. `max_message` bounds a WebSocket message, in bytes.

    What the exchange owns, such as a pool of connections, is opened by the lifespan; where nobody passes that on, as
    for an application mounted in another, by the first request, until the loop ends. `async with to_asgi(...) as
    app:`, in the lifespan of the application around it, does it in good order.

    Errors of llama's, timeouts and those of the operating system become responses by `error_page`, in which
    `proxy_name` names this proxy in Proxy-Status; others are raised, for the server or framework to show. An error
    within a response is raised too: the server then breaks it off.
    """
    check_takes(exchange, Request, "to_asgi()")
    return ToAsgi(exchange, named_page(error_page, proxy_name, "to_asgi"), max_message)

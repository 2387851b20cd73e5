"""The layer that looks into WebSockets which an exchange passes on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from websockets.extensions.permessage_deflate import PerMessageDeflate

from llama._errors import ProtocolError
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama._stream import Handler, Stream
from llama.http import Exchange, Request, Response
from llama.ws._conversation import Conversation, Hook, Watcher
from llama.ws._end import End
from llama.ws._handshake import (
    ACCEPT,
    EXTENSIONS,
    KEY,
    accept_deflate,
    accept_of,
    accepted_deflate,
    accepted_subprotocol,
    asks_for_websocket,
    check_request,
    check_response,
    offer_deflate,
    offered_subprotocols,
)
from llama.ws._relay import Hooks, relay
from llama.ws._server import upgrade_required
from llama.ws._settings import MAX_SIZE, Settings
from llama.ws._upgraded import opened
from llama.ws._wire import Frames


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a client has asked for."""

    agreed: str
    deflate: PerMessageDeflate | None
    subprotocols: list[str]
    key: str | None


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Inspect:
    """Shows hooks what passes over WebSockets."""

    inner: Exchange
    hooks: Hooks
    settings: Settings

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "ws.inspect()"

    async def __call__(self, request: Request, /) -> Response:
        if not asks_for_websocket(request):
            return await self.inner(request)
        try:
            offer = self._offer(request)
        except ProtocolError as error:
            if error.status == 426:
                return upgrade_required()
            raise
        response = await self.inner(request)
        if response.upgrade is None:
            return response
        try:
            self._answer(request, response, response.upgrade, offer)
        except BaseException:
            await response.aclose()
            raise
        return response

    def _offer(self, request: Request) -> _Offer:
        """Check what a client asks, and ask the server for what both can do.

        Nothing but a WebSocket may come of it, nor a frame that only both ends understand.
        """
        check_request(request)
        agreed, deflate = accept_deflate(request.headers)
        if not self.settings.compression:
            agreed, deflate = "", None
        request.protocol = "websocket"
        if "upgrade" in request.headers:
            request.headers["Upgrade"] = "websocket"
        request.headers.discard(EXTENSIONS)
        if deflate is not None:
            request.headers[EXTENSIONS] = offer_deflate()
        key = request.headers.get(KEY)
        return _Offer(agreed, deflate, offered_subprotocols(request.headers), key)

    def _answer(self, request: Request, response: Response, upgrade: Handler, offer: _Offer) -> None:
        """Check what the server answered, and answer the client for it."""
        headers = response.headers
        if offer.key is not None:
            if response.status == 101:
                check_response(response, offer.key)
            else:  # from HTTP/2 or 3, which have no key (RFC 8441)
                headers[ACCEPT] = accept_of(offer.key)
        deflate = accepted_deflate(headers, offered=offer.deflate is not None)
        subprotocol = accepted_subprotocol(headers, offer.subprotocols)
        headers.discard(EXTENSIONS)
        if deflate is not None:  # where the server compresses nothing, this proxy does not either
            headers[EXTENSIONS] = offer.agreed
        of_client = Frames(
            is_client=False,
            deflate=None if deflate is None else offer.deflate,
            max_size=self.settings.max_size,
        )
        of_server = Frames(is_client=True, deflate=deflate, max_size=self.settings.max_size)
        response.upgrade = partial(self._carry, request, subprotocol, upgrade, of_client, of_server)

    async def _carry(
        self,
        request: Request,
        subprotocol: str | None,
        upgrade: Handler,
        of_client: Frames,
        of_server: Frames,
        stream: Stream,
    ) -> None:
        async with opened(upgrade) as upstream:
            client, server = End(stream, of_client), End(upstream, of_server)
            conversation = Conversation(request, subprotocol, client, server)
            await relay(conversation, client, server, self.hooks)


@factory("ws.inspect")
def inspect(
    on_message: Hook,
    *,
    on_open: Watcher | None = None,
    on_close: Watcher | None = None,
    max_size: int = MAX_SIZE,
    compression: bool = True,
) -> Middleware[Request, Response]:
    """Show a hook each message of the WebSockets that the exchange within passes on, such as a proxy.

    `on_message` is called with a `Message`, whole and inflated, in the order in which they come from each side; it
    returns the one to pass on, changed or not, or None to drop it. It may be async: its side waits meanwhile. By
    `message.conversation` it sends messages of its own or closes. `on_open` and `on_close` are called with the
    conversation. Pings, pongs and closes are passed on; where a side waits to be read, the other waits to be
    written to.

    A message of more than `max_size` bytes, or what is no WebSocket, closes both sides with the code that says so;
    a hook that raises does with 1011, and is logged. One that waits is cancelled when the side whose message it has
    breaks off, and a second after that has ended. `compression` is agreed on with each side; other extensions
    are declined, for nobody here would understand them. Other requests pass untouched.

        def shout(message: ws.Message) -> ws.Message:
            message.data = message.data.upper()
            return message

        stack(http.server(), ws.inspect(shout), http.reverse_proxy("http://127.0.0.1:8000"))
    """
    hooks = Hooks(on_message, on_open, on_close)
    settings = Settings("ws.inspect", max_size, compression)

    def build(inner: Exchange) -> Exchange:
        return Inspect(inner, hooks, settings)

    return named_layer("ws.inspect()", build, takes=Request, gives=Request)

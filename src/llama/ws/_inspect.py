"""The layer that inspects the WebSockets which a request handler forwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from websockets.extensions.permessage_deflate import PerMessageDeflate

from llama._core.errors import ProtocolError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama._core.stream import ConnectionHandler, Stream
from llama.http import Request, RequestHandler, Response
from llama.ws._framed_endpoint import FramedEndpoint
from llama.ws._handshake import (
    ACCEPT,
    EXTENSIONS,
    KEY,
    accept_deflate,
    accept_key,
    accepted_deflate,
    accepted_subprotocol,
    asks_for_websocket,
    check_request,
    check_response,
    offer_deflate,
    offered_subprotocols,
)
from llama.ws._relay import Hooks, relay
from llama.ws._relayed_websocket import Hook, LifecycleHook, RelayedWebSocket
from llama.ws._server import upgrade_required
from llama.ws._settings import MAX_SIZE, Settings
from llama.ws._upgrade_stream import upgrade_stream
from llama.ws._wire import Frames


@dataclass(frozen=True, slots=True)
class _Negotiation:
    """A client's checked handshake."""

    agreed: str
    deflate: PerMessageDeflate | None
    subprotocols: list[str]
    key: str | None


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Inspect:
    """Calls hooks with the messages of WebSockets."""

    inner: RequestHandler
    hooks: Hooks
    settings: Settings

    __input_type__: ClassVar[type] = Request

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

    def _offer(self, request: Request) -> _Negotiation:
        """Check a client's handshake, and offer the server only features that this layer understands.

        Other protocols and unknown extensions are removed: their frames could not be inspected.
        """
        check_request(request)
        agreed, deflate = accept_deflate(request.headers)
        if not self.settings.compression:
            agreed, deflate = "", None
        request.upgrade_protocol = "websocket"
        if "upgrade" in request.headers:
            request.headers["Upgrade"] = "websocket"
        request.headers.discard(EXTENSIONS)
        if deflate is not None:
            request.headers[EXTENSIONS] = offer_deflate()
        key = request.headers.get(KEY)
        return _Negotiation(agreed, deflate, offered_subprotocols(request.headers), key)

    def _answer(
        self, request: Request, response: Response, upgrade: ConnectionHandler, offer: _Negotiation
    ) -> None:
        """Check the server's response, and build the response to the client."""
        headers = response.headers
        if offer.key is not None:
            if response.status == 101:
                check_response(response, offer.key)
            else:  # from HTTP/2 or 3, which have no key (RFC 8441)
                headers[ACCEPT] = accept_key(offer.key)
        deflate = accepted_deflate(headers, offered=offer.deflate is not None)
        subprotocol = accepted_subprotocol(headers, offer.subprotocols)
        headers.discard(EXTENSIONS)
        if deflate is not None:  # compress towards the client only if the server compresses
            headers[EXTENSIONS] = offer.agreed
        of_client = Frames(
            is_client=False,
            deflate=None if deflate is None else offer.deflate,
            max_size=self.settings.max_size,
        )
        of_server = Frames(is_client=True, deflate=deflate, max_size=self.settings.max_size)
        response.upgrade = partial(self._relay, request, subprotocol, upgrade, of_client, of_server)

    async def _relay(
        self,
        request: Request,
        subprotocol: str | None,
        upgrade: ConnectionHandler,
        of_client: Frames,
        of_server: Frames,
        stream: Stream,
    ) -> None:
        async with upgrade_stream(upgrade) as upstream:
            client, server = FramedEndpoint(stream, of_client), FramedEndpoint(upstream, of_server)
            conversation = RelayedWebSocket(request, subprotocol, client, server)
            await relay(conversation, client, server, self.hooks)


@layer_factory("ws.inspect")
def inspect(
    on_message: Hook,
    *,
    on_open: LifecycleHook | None = None,
    on_close: LifecycleHook | None = None,
    max_size: int = MAX_SIZE,
    compression: bool = True,
) -> Middleware[Request, Response]:
    """Call a hook with each message of the WebSockets that the inner request handler, such as a proxy, forwards.

    `on_message` is called with each `Message`, complete and inflated, in the order of arrival from each side; it
    returns the message to forward, changed or not, or None to drop it. It may be async: its direction waits
    meanwhile. It can send messages or close with `message.conversation`. `on_open` and `on_close` are called with
    the conversation. Pings, pongs and closes are forwarded. Backpressure passes from each side to the other.

    A message of more than `max_size` bytes and a protocol error close both sides with the matching code; a hook
    that raises closes both with 1011, and the error is logged. An async hook is cancelled when the sender of its
    message resets the connection, and one second after the sender's end of stream. `compression` is negotiated
    with each side separately; other extensions are declined, because this layer does not implement them. Other
    requests pass unchanged.

        def shout(message: ws.Message) -> ws.Message:
            message.data = message.data.upper()
            return message

        stack(http.server(), ws.inspect(shout), http.reverse_proxy("http://127.0.0.1:8000"))
    """
    hooks = Hooks(on_message, on_open, on_close)
    settings = Settings("ws.inspect", max_size, compression)

    def build(inner: RequestHandler) -> RequestHandler:
        return Inspect(inner, hooks, settings)

    return named_layer("ws.inspect()", build, input_type=Request, inner_type=Request)

"""The WebSocket client."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from llama._core.errors import ConfigError, RefusedError, UnreachableError
from llama._core.stack import check_accepts
from llama._core.target import Connector
from llama.http import Request, RequestHandler, Response
from llama.http import client as http_client
from llama.http._messages.message import HeaderSource
from llama.ws._handshake import (
    EXTENSIONS,
    KEY,
    SUBPROTOCOL,
    VERSION,
    accepted_deflate,
    accepted_subprotocol,
    check_response,
    new_key,
    offer_deflate,
)
from llama.ws._settings import MAX_SIZE, Settings
from llama.ws._upgrade_stream import upgrade_stream
from llama.ws._websocket import WebSocket
from llama.ws._wire import INTERNAL_ERROR, Frames

_URL = re.compile(r"(ws|http)(s?)(://[^/?#@\\\s]+(?:[/?][^#\s]*)?)", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MAX_ERROR_BODY = (401, 403, 407)


@asynccontextmanager
async def connect(
    url: str,
    *,
    connect: Connector | None = None,
    tls: Connector | None = None,
    client: RequestHandler | None = None,
    subprotocols: Sequence[str] = (),
    headers: HeaderSource = (),
    max_size: int = MAX_SIZE,
    compression: bool = True,
    ping_interval: float | None = None,
    ping_timeout: float | None = None,
) -> AsyncGenerator[WebSocket]:
    """Open the WebSocket of a URL, `ws://HOST[:PORT]/PATH` or `wss://...`, until the block ends.

    `connect` reaches the server, by default `tcp.connect()`, and `tls` one of wss, by default
    `tls.connect(connect)`. Instead of both, `client` may be a request handler: an `http.client`, or one in
    this process. `headers` are additional request fields. The other parameters are those of `ws.server`.

    Leaving the block closes the WebSocket with 1000, or with 1011 if the block raises. Raises RefusedError if the
    server responds with 401, 403 or 407, UnreachableError for other responses and if the server cannot be reached,
    ProtocolError for a bad handshake.

        async with ws.connect("ws://127.0.0.1:8080/chat") as socket:
            await socket.send("hello")
            print(await socket.receive())
    """
    settings = Settings("ws.connect", max_size, compression, ping_interval, ping_timeout)
    if client is not None and (connect is not None or tls is not None):
        raise ConfigError("ws.connect(): give client, or connect and tls")
    request = _request(url, headers, subprotocols, compression=compression)
    async with AsyncExitStack() as exits:
        if client is None:
            client = await exits.enter_async_context(http_client(connect, tls=tls))
        check_accepts(client, Request, "ws.connect(client=)")
        socket = await _open(client, request, subprotocols, settings, exits)
        try:
            yield socket
            await socket.close()
        except Exception:
            await socket.close(INTERNAL_ERROR)
            raise
        finally:
            await socket.aclose()


async def _open(
    client: RequestHandler,
    request: Request,
    subprotocols: Sequence[str],
    settings: Settings,
    exits: AsyncExitStack,
) -> WebSocket:
    response = await client(request)
    exits.push_async_callback(response.aclose)
    if response.upgrade is None:
        raise _refusal(request.url, response)
    check_response(response, request.headers[KEY])
    deflate = accepted_deflate(response.headers, offered=settings.compression)
    subprotocol = accepted_subprotocol(response.headers, subprotocols)
    stream = await exits.enter_async_context(upgrade_stream(response.upgrade))
    frames = Frames(is_client=True, deflate=deflate, max_size=settings.max_size)
    return WebSocket(stream, frames, settings, request, response, subprotocol)


def _request(url: str, headers: HeaderSource, subprotocols: Sequence[str], *, compression: bool) -> Request:
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigError(f"{url!r} is no WebSocket: expected ws://HOST[:PORT]/PATH or wss://...")
    if isinstance(subprotocols, str) or not all(_TOKEN.fullmatch(each) for each in subprotocols):
        raise ConfigError(f"ws.connect(subprotocols={subprotocols!r}): expected a list of names")
    request = Request("GET", f"http{match[2].lower()}{match[3]}", headers)
    request.upgrade_protocol = "websocket"
    request.headers["Upgrade"] = "websocket"
    request.headers[VERSION] = "13"
    request.headers[KEY] = new_key()
    if compression:
        request.headers[EXTENSIONS] = offer_deflate()
    if subprotocols:
        request.headers[SUBPROTOCOL] = ", ".join(subprotocols)
    return request


def _refusal(url: str, response: Response) -> RefusedError | UnreachableError:
    text = f"{url}: the server answered {response.status} and opened no WebSocket"
    if response.status in _MAX_ERROR_BODY:
        return RefusedError(text, status=response.status)
    return UnreachableError(text)

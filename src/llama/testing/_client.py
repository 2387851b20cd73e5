"""A client for request handlers and connection handlers, without sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from llama._core.errors import LlamaError
from llama._core.extensions import Extensions
from llama._core.resources import enter_resources
from llama._core.server import PeerAddress
from llama._core.shutdown import Shutdown
from llama._core.stack import check_service, input_type_of
from llama._core.stream import ConnectionHandler, Stream
from llama._core.target import Target
from llama.http import Headers, Request, RequestHandler, Response
from llama.http import client as http_client
from llama.http._messages.body import Content
from llama.http._messages.message import HeaderSource
from llama.testing._connect import CLIENT, Pair, serve_stream
from llama.testing._memory import memory_pair

HOST = "testserver"


@dataclass
class Informational:
    """An informational response (1xx)."""

    status: int
    headers: Headers


class TestClient:
    """Sends requests, and closes their responses when the client's block ends."""

    __test__ = False  # not a test class for pytest

    def __init__(self, exchange: RequestHandler, peer: PeerAddress | None) -> None:
        self._exchange = exchange
        self._known = Extensions() if peer is None else Extensions(peer)
        self._responses: list[Response] = []
        self.informational: list[Informational] = []
        """The received informational responses, in order."""

    async def send(self, request: Request) -> Response:
        """Send a Request unchanged; a relative URL is sent to `testserver`."""
        if "host" not in request.headers:
            request.headers.insert(0, "Host", HOST)
        request.scheme = request.scheme or "http"
        request._connection_extensions = request._connection_extensions or self._known
        request._send_informational = self._inform
        response = await self._exchange(request)
        self._responses.append(response)
        return response

    async def request(
        self, method: str, url: str, headers: HeaderSource = (), body: Content = b""
    ) -> Response:
        """Build a request and send it."""
        return await self.send(Request(method, url, headers, body))

    async def get(self, url: str, headers: HeaderSource = ()) -> Response:
        """GET."""
        return await self.request("GET", url, headers)

    async def head(self, url: str, headers: HeaderSource = ()) -> Response:
        """HEAD."""
        return await self.request("HEAD", url, headers)

    async def post(self, url: str, body: Content = b"", headers: HeaderSource = ()) -> Response:
        """POST."""
        return await self.request("POST", url, headers, body)

    async def put(self, url: str, body: Content = b"", headers: HeaderSource = ()) -> Response:
        """PUT."""
        return await self.request("PUT", url, headers, body)

    async def delete(self, url: str, headers: HeaderSource = ()) -> Response:
        """DELETE."""
        return await self.request("DELETE", url, headers)

    @asynccontextmanager
    async def upgrade(
        self, protocol: str, url: str, headers: HeaderSource = ()
    ) -> AsyncGenerator[tuple[Response, Stream]]:
        """Upgrade to another protocol, such as websocket, or to a CONNECT tunnel (with an empty protocol).

        Returns the response and the upgraded stream; raises LlamaError if the response is not an upgrade.
        """
        request = Request("GET" if protocol else "CONNECT", url, headers)
        request.upgrade_protocol = protocol
        response = await self.send(request)
        upgrade = response.upgrade
        if upgrade is None:
            raise LlamaError(
                f"expected an upgrade to {protocol or 'a tunnel'}, got {response!r}", status=response.status
            )
        ours, theirs = memory_pair()
        bugs: list[Exception] = []
        async with Shutdown() as shutdown:
            shutdown.spawn(serve_stream(upgrade, theirs, bugs), name="upgrade")
            try:
                yield response, ours
                await ours.aclose()
            finally:
                ours.abort()
        if bugs:
            raise bugs[0]

    async def _inform(self, status: int, headers: Headers) -> None:
        self.informational.append(Informational(status, headers))

    async def aclose(self) -> None:
        """Close all responses."""
        while self._responses:
            await self._responses.pop().aclose()


@asynccontextmanager
async def client(
    service: RequestHandler | ConnectionHandler,
    *,
    peer: PeerAddress | None = CLIENT,
    pair: Pair = memory_pair,
) -> AsyncGenerator[TestClient]:
    """Send requests to a request handler, or to a connection handler that serves HTTP, in memory.

    `async with testing.client(stack(http.basic_auth(users), app)) as client:` calls a request handler directly and
    raises its exceptions. With `http.server()` in the stack, it is a connection handler: requests go over streams
    made by `pair`, and it responds as a real server does. The service's resources are entered. Responses are closed
    when the block ends. `peer` is the client's address.
    """
    check_service(service)
    async with AsyncExitStack() as exits:
        await enter_resources(exits, service)
        bugs: list[Exception] = []
        async with AsyncExitStack() as inner:
            if input_type_of(service) is Stream:
                shutdown = await inner.enter_async_context(Shutdown())
                within = _ServedInProcess(cast("ConnectionHandler", service), peer, pair, shutdown, bugs)
                exchange: RequestHandler = await inner.enter_async_context(http_client(within))
            else:
                exchange = cast("RequestHandler", service)
            made = TestClient(exchange, peer)
            inner.push_async_callback(made.aclose)
            yield made
        if bugs:
            raise bugs[0]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class _ServedInProcess:
    """A connector that connects every target to one handler."""

    handler: ConnectionHandler
    peer: PeerAddress | None
    pair: Pair
    shutdown: Shutdown
    bugs: list[Exception]

    def __repr__(self) -> str:
        return "testing.client()"

    async def __call__(self, target: Target, /) -> Stream:
        ours, theirs = self.pair()
        if self.peer is not None:
            theirs.extensions.set(self.peer)
        self.shutdown.spawn(serve_stream(self.handler, theirs, self.bugs), name="handler")
        return ours

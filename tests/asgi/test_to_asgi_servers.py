"""A llama proxy inside of Starlette applications, under real servers and with real clients."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llama import asgi, http, serve, stack, to_asgi
from llama.http import Request, Response

pytest.importorskip("starlette")
pytest.importorskip("httpx2")
pytest.importorskip("uvicorn")

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

PARTS = 64
CHUNK = bytes(65536)


class Behind:
    """The upstream: tells what it was asked, echoes, streams, hangs."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        match request.path.partition("?")[0]:
            case "/echo":
                return Response(body=request.body)
            case "/hang":
                self.begun.set()
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self.cancelled.set()
            case "/long":
                return Response(body=self.parts())
            case "/cut":
                return Response(body=self.cut())
            case _:
                pass
        text = f"{request.path} {request.headers.get('x-forwarded-for')} {request.headers.get('via')}"
        return Response(body=text)

    async def parts(self) -> AsyncIterator[bytes]:
        for _ in range(PARTS):
            yield CHUNK

    async def cut(self) -> AsyncIterator[bytes]:
        yield b"some"
        raise OSError("the disk is gone")


async def chat(scope: Any, receive: Any, send: Any) -> None:
    socket = WebSocket(scope, receive, send)
    if scope["path"] == "/denied":
        await socket.close()
        return
    await socket.accept(subprotocol=next(iter(scope["subprotocols"]), None))
    async for text in socket.iter_text():
        if text == "bye":
            await socket.close(4000, "as you said")
            return
        await socket.send_text(text.upper())


@asynccontextmanager
async def upstream() -> AsyncGenerator[tuple[str, Behind]]:
    behind = Behind()
    web = http.route(("/chat", asgi(chat)), ("/denied", asgi(chat)), default=behind)
    async with serve(stack(http.server(), web), listen="127.0.0.1:0", grace=1) as server:
        yield f"http://{server.address}", behind


def mounted(to: str, **fields: Any) -> Starlette:
    return Starlette(routes=[Mount("/api", to_asgi(http.reverse_proxy(to)))], **fields)


async def tag(request: StarletteRequest, call_next: RequestResponseEndpoint) -> StarletteResponse:
    response = await call_next(request)
    response.headers["x-tag"] = "seen"
    return response


class Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def under_uvicorn(app: Any, **options: Any) -> AsyncGenerator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=2, **options)
        server = Uvicorn(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([listener]))
            await server.up.wait()
            try:
                yield f"127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True


@asynccontextmanager
async def under_llama(app: Any) -> AsyncGenerator[str]:
    async with serve(stack(http.server(), asgi(app)), listen="127.0.0.1:0", grace=2) as server:
        yield str(server.address)


SERVERS = [under_uvicorn, under_llama]


@pytest.mark.parametrize("under", SERVERS)
async def test_a_mounted_proxy_streams_both_ways(under: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        for number in range(200):
            yield b"%d" % number * 1000

    async with upstream() as (to, _), under(mounted(to)) as address, httpx2.AsyncClient() as client:
        answer = await client.get(f"http://{address}/api/a%20b?c=d")
        assert (answer.status_code, answer.text) == (200, "/a%20b?c=d 127.0.0.1 1.1 llama")
        answer = await client.post(f"http://{address}/api/echo", content=body())
        assert answer.content == b"".join(b"%d" % number * 1000 for number in range(200))
        answer = await client.post(f"http://{address}/api/echo", content=b"x" * 100_000)
        assert answer.content == b"x" * 100_000
        answer = await client.get(f"http://{address}/api/long")
        assert len(answer.content) == PARTS * len(CHUNK)
        assert (await client.get(f"http://{address}/other")).status_code == 404
        assert (await client.head(f"http://{address}/api/a")).status_code == 200


@pytest.mark.parametrize("under", SERVERS)
async def test_a_client_that_leaves_cancels_the_request_behind(under: Any) -> None:
    async with upstream() as (to, behind), under(mounted(to)) as address:
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"GET /api/hang HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(behind.begun.wait(), 10)
        writer.transport.abort()
        await asyncio.wait_for(behind.cancelled.wait(), 10)
        _ = reader


@pytest.mark.parametrize("under", SERVERS)
async def test_a_response_that_breaks_off_is_seen_to(under: Any) -> None:
    async with upstream() as (to, _), under(mounted(to)) as address, httpx2.AsyncClient() as client:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await client.get(f"http://{address}/api/cut")


@pytest.mark.parametrize("under", SERVERS)
async def test_an_upstream_that_is_gone_is_502(under: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        to = f"http://127.0.0.1:{taken.getsockname()[1]}"
    async with under(mounted(to)) as address, httpx2.AsyncClient() as client:
        assert (await client.get(f"http://{address}/api/a")).status_code == 502


@pytest.mark.parametrize("under", SERVERS)
async def test_websockets_pass(under: Any) -> None:
    async with upstream() as (to, _), under(mounted(to)) as address:
        async with connect(f"ws://{address}/api/chat", subprotocols=[Subprotocol("one")]) as client:
            assert client.subprotocol == "one"
            for number in range(100):
                await client.send(f"hello {number}")
                assert await client.recv() == f"HELLO {number}"
            await client.send("x" * 500_000)
            assert await client.recv() == "X" * 500_000
            await client.send("bye")
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "as you said")
        with pytest.raises(InvalidStatus) as denied:
            await connect(f"ws://{address}/api/denied")
        assert denied.value.response.status_code == 403


async def test_starlettes_middleware_goes_around_it() -> None:
    async with upstream() as (to, _):
        app = mounted(to, middleware=[Middleware(BaseHTTPMiddleware, dispatch=tag)])
        async with under_uvicorn(app) as address, httpx2.AsyncClient() as client:
            answer = await client.post(f"http://{address}/api/echo", content=b"hello")
            assert (answer.headers["x-tag"], answer.content) == ("seen", b"hello")


async def test_a_lifespan_holds_it_open_and_a_root_path_comes_before_the_mount() -> None:
    async with upstream() as (to, _):
        api = to_asgi(http.reverse_proxy(to))

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncGenerator[None]:
            async with api:
                yield

        app = Starlette(routes=[Mount("/api", api)], lifespan=lifespan)
        async with under_uvicorn(app, root_path="/outer") as address, httpx2.AsyncClient() as client:
            assert (await client.get(f"http://{address}/api/a")).text.startswith("/a ")


@pytest.mark.parametrize("under", SERVERS)
async def test_an_exchange_is_a_whole_application(under: Any) -> None:
    async with upstream() as (to, _):
        app = to_asgi(stack(http.request_id(), http.reverse_proxy(to)))
        async with under(app) as address, httpx2.AsyncClient() as client:
            answer = await client.get(f"http://{address}/a")
            assert answer.text.startswith("/a ")


async def test_httpx_transport_calls_it_without_a_server() -> None:
    async with upstream() as (to, _):
        transport = httpx2.ASGITransport(app=mounted(to))
        async with httpx2.AsyncClient(transport=transport, base_url="http://a.example") as client:
            assert (await client.get("/api/a")).text == "/a 127.0.0.1 1.1 llama"
            assert (await client.post("/api/echo", content=b"hello")).content == b"hello"


def test_starlettes_test_client() -> None:
    async def hello(request: Request) -> Response:
        return Response(body=f"hello {request.path}")

    app = Starlette(routes=[Mount("/ws", to_asgi(asgi(chat))), Mount("/", to_asgi(hello))])
    for client in (TestClient(app), TestClient(app)):
        assert client.get("/a").text == "hello /a"
        with client.websocket_connect("/ws/chat") as session:
            session.send_text("hello")
            assert session.receive_text() == "HELLO"
    with TestClient(app) as client:
        assert client.get("/a").text == "hello /a"

"""Starlette and FastAPI applications, as their users write them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llama import asgi, stack
from llama._core.resources import find_resources
from llama.http import server
from tests.asgi.test_websocket import Socket
from tests.http.serving import client_of, get, last, talk

pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

done: list[str] = []


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, str], None]:
    done.append("started")
    yield {"database": "open"}
    done.append("stopped")


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.url} {request.client} {request.state.database}")


async def upload(request: Request) -> JSONResponse:
    task = BackgroundTask(done.append, "task")
    return JSONResponse({"bytes": len(await request.body())}, background=task)


async def numbers(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        for number in range(3):
            await asyncio.sleep(0)
            yield f"{number}\n"

    return StreamingResponse(parts())


async def shout(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


async def tag(request: Request, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-tag"] = "yes"
    return response


def application() -> Starlette:
    return Starlette(
        routes=[
            Route("/", home),
            Route("/upload", upload, methods=["POST"]),
            Route("/numbers", numbers),
            WebSocketRoute("/b", shout),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=tag), Middleware(GZipMiddleware)],
        lifespan=lifespan,
    )


def test_starlette_answers_streams_and_runs_background_tasks() -> None:
    async def main() -> list[bytes]:
        handler = stack(server(), asgi(application()))
        (exchange,) = find_resources(handler)
        async with exchange, client_of(handler) as client:
            await client.say(get() + get("/numbers"))
            body = b"12345"
            await client.say(last("/upload", "Content-Length: 5", method="POST") + body)
            return (await client.hear_end()).split(b"HTTP/1.1 200 OK\r\n")[1:]

    done.clear()
    home, numbers, upload = asyncio.run(main())
    assert home.endswith(b"http://a/ Address(host='192.0.2.1', port=5) open")
    assert b"2\r\n0\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\n" in numbers
    assert upload.endswith(b'{"bytes":5}')
    assert all(b"x-tag: yes\r\n" in response for response in (home, numbers, upload))
    assert done == ["started", "task", "stopped"]


def test_starlette_speaks_websocket() -> None:
    async def main() -> None:
        async with client_of(stack(server(), asgi(application()))) as client:
            socket = Socket(client)
            assert (await socket.open()).status_code == 101
            await socket.send("hello")
            assert await socket.receive() == "HELLO"
            socket.protocol.send_close(1000)
            await socket.flush()
            await socket.ended()

    asyncio.run(main())


def test_fastapi_answers() -> None:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()

    async def item(number: int, q: str = "") -> dict[str, object]:
        return {"number": number, "q": q}

    app.get("/items/{number}")(item)
    handler = stack(server(), asgi(app))
    assert talk(handler, last("/items/5?q=a%20b")).endswith(b'{"number":5,"q":"a b"}')
    assert talk(handler, last("/items/x")).startswith(b"HTTP/1.1 422 ")
    assert b'"openapi"' in talk(handler, last("/openapi.json"))

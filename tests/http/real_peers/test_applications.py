"""Starlette and FastAPI applications behind the reverse proxy, served by uvicorn and by `asgi`."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from llama import asgi, http, serve, stack
from tests.http.peers import DATA, curl, reverse

pytestmark = pytest.mark.peer
Application: TypeAlias = Callable[..., Any]


async def greet(name: str, loud: bool = False) -> dict[str, str]:
    return {"greeting": f"hello {name}".upper() if loud else f"hello {name}"}


async def greet_by_request(request: Request) -> Response:
    return JSONResponse(await greet(request.path_params["name"], "loud" in request.query_params))


async def length(request: Request) -> Response:
    return Response(str(sum([len(part) async for part in request.stream()])))


async def lines(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"line %d\n" % number

    return StreamingResponse(parts())


async def who(request: Request) -> Response:
    return JSONResponse([request.headers["x-forwarded-for"], request.headers["host"]])


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    while (message := await websocket.receive())["type"] == "websocket.receive":
        await websocket.send({**message, "type": "websocket.send"})


def starlette() -> Application:
    return Starlette(
        routes=[
            Route("/greet/{name}", greet_by_request),
            Route("/length", length, methods=["POST", "PUT"]),
            Route("/lines", lines),
            Route("/who", who),
            WebSocketRoute("/echo", echo),
        ]
    )


def fastapi() -> Application:
    application = FastAPI()
    application.add_api_route("/greet/{name}", greet)
    application.add_api_route("/length", length, methods=["POST", "PUT"])
    application.add_api_route("/lines", lines)
    application.add_api_route("/who", who)
    application.add_api_websocket_route("/echo", echo)
    return application


@asynccontextmanager
async def uvicorn(application: Application) -> AsyncGenerator[str]:
    """uvicorn in this loop."""
    module = pytest.importorskip("uvicorn")
    server = module.Server(module.Config(application, log_level="warning", ws="websockets-sansio"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            server.should_exit = True


@asynccontextmanager
async def llama(application: Application) -> AsyncGenerator[str]:
    async with serve(stack(http.server(), asgi(application)), listen="127.0.0.1:0") as origin:
        yield f"http://{origin.address}"


@pytest.mark.parametrize("served", [uvicorn, llama])
@pytest.mark.parametrize("make", [starlette, fastapi])
async def test_an_application_behind_the_reverse_proxy(
    make: Callable[[], Application], served: Callable[[Application], AbstractAsyncContextManager[str]]
) -> None:
    async with served(make()) as origin, reverse(origin) as url:
        assert (await curl(f"{url}/greet/john?loud=1")).out == b'{"greeting":"HELLO JOHN"}'
        assert (await curl(f"{url}/who")).out == f'["127.0.0.1","{url[7:]}"]'.encode()
        assert (await curl("--data-binary", "@-", f"{url}/length", stdin=DATA)).out == b"%d" % len(DATA)
        chunked = ("-H", "Transfer-Encoding: chunked", "-T", "-")
        assert (await curl(*chunked, f"{url}/length", stdin=DATA)).out == b"%d" % len(DATA)
        assert (await curl(f"{url}/lines")).out == b"".join(b"line %d\n" % each for each in range(100))
        assert (await curl("-o", os.devnull, "-w", "%{http_code}", f"{url}/none")).out == b"404"
        assert (await curl("-o", os.devnull, "-w", "%{http_code}", f"{url}/length")).out == b"405"
        async with connect(f"{url.replace('http', 'ws')}/echo", proxy=None) as websocket:
            for message in ("hi", b"\x00" * 100_000, "x" * 70_000):
                await websocket.send(message)
                assert await websocket.recv() == message

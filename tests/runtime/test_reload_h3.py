"""SIGHUP with connections of HTTP/3: their packets come to a socket that the next generation has too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

pytest.importorskip("qh3")

from llama.http import Request, RequestHandler, Response
from tests.http.h3.fixtures import client
from tests.runtime.conftest import Program, Start
from tests.tls.sessions import pair_files

SIZE = 1_000_000
SITE = """
from llama import http
from llama.http import Request, Response

built = 0

def build():
    global built
    built += 1
    name = str(built)

    async def site(request: Request) -> Response:
        return Response(200, {"x-generation": name}, request.body)

    return http.h3_server("127.0.0.1:0", site, os.environ["CERT"], os.environ["KEY"])

run(build, on_ready=ready, workers=WORKERS)
"""


def start(program: Start, workers: str) -> Program:
    cert, key = pair_files("localhost")
    return program(SITE, WORKERS=workers, CERT=cert, KEY=key)


async def test_exchanges_in_flight_survive_reloads(program: Start, workers: str) -> None:
    server = await asyncio.to_thread(start, program, workers)
    url = f"https://localhost:{await asyncio.to_thread(server.port)}/"
    go = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"begun"
        await go.wait()
        yield bytes(SIZE)

    async with AsyncExitStack() as clients:

        async def begin() -> Response:
            ask: RequestHandler = await clients.enter_async_context(client())
            response = await ask(Request("POST", url, body=parts()))
            assert await response.body.read_chunk() == b"begun"
            return response

        responses: list[Response] = []
        for generation in range(1, 4):
            responses += [await begin() for _ in range(6)]
            assert {each.headers["x-generation"] for each in responses[-6:]} == {str(generation)}
            if generation < 3:
                await asyncio.to_thread(server.reload)
        go.set()
        for response in responses:
            assert sum([len(part) async for part in response.body]) == SIZE
    await asyncio.to_thread(server.stop)

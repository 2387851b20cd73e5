"""`upstream_tls`: an upstream over TLS behind clients in the clear, and the other way round."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llama import ConnectionHandler, Stream, Target, http, mitm, serve, stack, tcp, tls, ws
from llama.http import Origin, Request, Response
from llama.testing._transcript import converse
from tests.mitm.worlds import HOST, To, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


async def say_back(socket: ws.WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


async def answer(request: Request) -> Response:
    if request.upgrade_protocol:
        return await stack(ws.server(), say_back)(request)
    return Response(body=f"{request.method} {request.scheme} {request.version}")


@asynccontextmanager
async def front_of(
    world: World, upstream: ConnectionHandler, *, over_tls: bool, **options: Any
) -> AsyncGenerator[Target]:
    site = stack(tls.server(*world.files()), upstream) if over_tls else upstream
    options = {"verify": world.site_pem, "upstream_tls": over_tls, **options}
    async with serve(site, listen="127.0.0.1:0") as served:
        door = tcp.forward(f"{HOST}:443", connect=To(served.port), relay=mitm.relay(world.ca, **options))
        async with serve(door, listen="127.0.0.1:0") as front:
            yield Target("127.0.0.1", front.port)


CLIENTS = ["http", "h2c", "https", "https over HTTP/1.1"]


def client_of(world: World, kind: str, front: Target) -> tuple[http.RequestHandler, str]:
    """A client that reaches HOST at the front, and its scheme."""
    to = To(front.port)
    secure = tls.connect(to, ca=world.pem)

    async def over_h1(target: Target) -> Stream:
        wanted = target.fork(target.extensions)
        wanted.extensions.set(tls.TLSParams(("http/1.1",)))
        return await secure(wanted)

    client = http.client(to, tls=over_h1 if "1.1" in kind else secure)

    async def ask(request: Request) -> Response:
        if kind == "h2c":
            request.extensions.set(Origin("h2c", Target(HOST, 80)))
        return await client(request)

    return ask, kind.split(" ", maxsplit=1)[0].replace("h2c", "http")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("over_tls", [True, False])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_requests_and_websockets_reach_it(world: World, kind: str, over_tls: bool, first: bool) -> None:
    site = stack(http.server(), answer)
    async with front_of(world, site, over_tls=over_tls, connect_upstream_first=first) as front:
        ask, scheme = client_of(world, kind, front)
        for method in ("GET", "POST"):
            response = await ask(
                Request(method, f"{scheme}://{HOST}/", body=b"x" if method == "POST" else b"")
            )
            heard = (await response.body.read()).decode().split()
            assert heard[:2] == [method, "https" if over_tls else "http"]
        async with ws.connect(f"{scheme.replace('http', 'ws')}://{HOST}/", client=ask) as socket:
            for message in ("hello", b"x" * 100_000):
                await socket.send(message)
                assert await socket.receive() == message


@pytest.mark.parametrize("over_tls", [True, False])
@pytest.mark.parametrize("secure", [True, False])
async def test_other_bytes_reach_it(world: World, secure: bool, over_tls: bool) -> None:
    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data)

    async with front_of(world, echo, over_tls=over_tls) as front:
        to = To(front.port)
        stream = await (tls.connect(to, ca=world.pem) if secure else to)(Target(HOST, 443))
        await converse(stream, ">> \0hello", "<< \0hello")
        await stream.aclose()


async def test_an_untrusted_upstream_gets_an_error_page(world: World) -> None:
    site = stack(http.server(), answer)
    async with (
        front_of(world, site, over_tls=True, verify=world.pem) as front,
        http.client(To(front.port)) as client,
    ):
        response = await client(Request("GET", f"http://{HOST}/"))
        assert response.status == 502
        assert b"certificate" in await response.body.read()

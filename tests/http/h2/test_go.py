"""Go's HTTP/2 against ours: its client at our server, its server behind our client and our reverse proxy."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import http, serve, stack, tcp, tls
from llama._core.errors import TruncatedError
from llama.http import Headers, Request, RequestHandler, Response
from llama.http._client.client import Client
from tests.http.h2.test_upstreams import running
from tests.http.peers import CLEAN
from tests.socks5.programs import installed
from tests.tls.sessions import ca_file, pair_files

pytestmark = [pytest.mark.peer, pytest.mark.llama_timeout(120)]
SOURCE = Path(__file__).parent / "go"
LIBRARIES = Path("/usr/share/gocode")  # where Debian has Go's own
SUM = hashlib.sha256(bytes(5_000_000)).hexdigest()
EXPECTED = f"""\
get hello HTTP/2.0 200
head  5
many 100
trailers 5000000 for {SUM[:8]}
early 103 </style.css>; rel=preload
final 204
ping pong part 0
cancelled begun 0
cancelled begun 1
cancelled begun 2
"""


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built."""
    go = installed("go")
    if not (LIBRARIES / "src/golang.org/x/net/http2").is_dir():
        pytest.skip("golang.org/x/net is not installed")
    folder = tmp_path_factory.mktemp("go")
    settings = {
        "GO111MODULE": "off",
        "GOPATH": os.pathsep.join([str(folder), str(LIBRARIES)]),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    command = [go, "build", "-o", str(folder / "peer"), "."]
    done = subprocess.run(
        command, cwd=SOURCE, env={**CLEAN, **settings}, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return folder / "peer"


def application() -> RequestHandler:
    """What Go's own server does, here."""
    cancelled: asyncio.Queue[str] = asyncio.Queue()

    async def slow(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"begun"
                await asyncio.Event().wait()
            finally:
                cancelled.put_nowait(request.path.rpartition("=")[2])

        return Response(200, body=body())

    async def trailers(request: Request) -> Response:
        total = hashlib.sha256()
        size = 0
        async for chunk in request.body:
            total.update(chunk)
            size += len(chunk)
        response = Response(200, body=[f"{size} {(request.trailers or Headers())['x-asked']}".encode()])
        response.trailers = Headers({"x-sum": total.hexdigest()})
        return response

    async def app(request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path == "/hello":
            return Response(200, {"X-Proto": f"HTTP/{request.version}"}, b"hello")
        if path == "/echo":
            return Response(200, body=request.body)
        if path == "/trailers":
            return await trailers(request)
        if path == "/early":
            await request.send_informational(103, {"Link": "</style.css>; rel=preload"})
            return Response(204)
        if path == "/slow":
            return await slow(request)
        return Response(200, body=await cancelled.get())

    return app


@asynccontextmanager
async def served(exchange: RequestHandler) -> AsyncGenerator[tuple[str, str]]:
    """Where an exchange is served in the clear and over TLS."""
    handler = stack(http.server(), exchange)
    async with serve(
        tcp.server("127.0.0.1:0", handler),
        tcp.server("127.0.0.1:0", stack(tls.server(*pair_files("localhost")), handler)),
    ) as server:
        clear, secure = server.addresses
        yield f"http://{clear}", f"https://localhost:{secure.rpartition(':')[2]}"


@asynccontextmanager
async def go_server(peer: Path) -> AsyncGenerator[tuple[str, str]]:
    """Where Go serves, likewise."""
    async with running(peer, "server", *pair_files("localhost")) as process:
        assert process.stdout is not None
        clear, secure = (await process.stdout.readline()).split()
        yield f"h2c://127.0.0.1:{int(clear)}", f"https://localhost:{int(secure)}"


async def told(peer: Path, url: str) -> str:
    """What Go's client says that it did."""
    async with asyncio.timeout(60), running(peer, "client", url, ca_file()) as process:
        out, _ = await process.communicate()
        return out.decode()


def ours() -> Client:
    return http.client(tls=tls.connect(ca=ca_file()))


@pytest.mark.parametrize("how", ["clear", "TLS"])
async def test_gos_client_at_our_server(peer: Path, how: str) -> None:
    async with served(application()) as (clear, secure):
        assert await told(peer, clear if how == "clear" else secure) == EXPECTED


@pytest.mark.parametrize("how", ["clear", "TLS"])
async def test_gos_client_and_server_through_our_reverse_proxy(peer: Path, how: str) -> None:
    async with (
        go_server(peer) as upstreams,
        ours() as client,
        served(http.reverse_proxy(upstreams[how == "TLS"], client=client)) as urls,
    ):
        assert await told(peer, urls[how == "TLS"]) == EXPECTED


@pytest.mark.parametrize("how", ["clear", "TLS"])
async def test_gos_server_behind_our_client(peer: Path, how: str) -> None:
    async with asyncio.timeout(60), go_server(peer) as urls, ours() as client:
        url = urls[how == "TLS"]
        for check in CHECKS:
            await check(client, url)


async def simple(client: RequestHandler, url: str) -> None:
    response = await client(Request("GET", f"{url}/hello"))
    assert (response.version, response.headers["x-proto"]) == ("2", "HTTP/2.0")
    assert await response.body.read() == b"hello"
    response = await client(Request("HEAD", f"{url}/hello"))
    assert (response.status, response.headers["content-length"], await response.body.read()) == (
        200,
        "5",
        b"",
    )


async def at_a_time(client: RequestHandler, url: str) -> None:
    async def one(number: int) -> bool:
        sent = bytes([number]) * number * 3000
        body = sent if number % 2 else [sent[at : at + 10_000] for at in range(0, len(sent), 10_000)]
        response = await client(Request("POST", f"{url}/echo", (), body))
        return await response.body.read() == sent

    assert all(await asyncio.gather(*[one(number) for number in range(120)]))


async def with_trailers(client: RequestHandler, url: str) -> None:
    announced = {"Trailer": "x-asked"}  # Go keeps no others
    request = Request("POST", f"{url}/trailers", announced, [bytes(100_000)] * 50)
    request.trailers = Headers({"x-asked": "for"})
    response = await client(request)
    assert await response.body.read() == b"5000000 for"
    assert (response.trailers or Headers())["x-sum"] == SUM


async def back_and_forth(client: RequestHandler, url: str) -> None:
    parts: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while part := await parts.get():
            yield part

    response = await client(Request("POST", f"{url}/echo", (), body()))
    for _ in range(5):
        parts.put_nowait(b"part")
        assert await response.body.read_chunk() == b"part"
    parts.put_nowait(b"")
    assert await response.body.read() == b""


async def given_up(client: RequestHandler, url: str) -> None:
    for number in range(3):
        response = await client(Request("GET", f"{url}/slow?n={number}"))
        assert await response.body.read_chunk() == b"begun"
        await response.aclose()
        assert await (await client(Request("GET", f"{url}/cancelled"))).body.read() == b"%d" % number


async def broken_off(client: RequestHandler, url: str) -> None:
    response = await client(Request("GET", f"{url}/panic"))
    with pytest.raises(TruncatedError):
        await response.body.read()
    assert await (await client(Request("GET", f"{url}/hello"))).body.read() == b"hello"


CHECKS: tuple[Callable[[RequestHandler, str], Awaitable[None]], ...] = (
    simple, at_a_time, with_trailers, back_and_forth, given_up, broken_off,
)  # fmt: skip

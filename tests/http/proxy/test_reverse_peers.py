"""The reverse proxy between real servers, such as nginx, and real clients, such as curl."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from llama import ConnectionHandler, Stream, http, serve, stack
from llama.http import Request, RequestHandler, Response
from tests.http.peers import CLEAN, DATA, curl, digested, reverse, site
from tests.pango.conftest import needs
from tests.pango.nginx import Nginx
from tests.socks5.programs import installed

pytestmark = pytest.mark.peer
Layer: TypeAlias = Callable[[RequestHandler], RequestHandler]


@asynccontextmanager
async def before(origin: ConnectionHandler, *layers: Layer) -> AsyncGenerator[str]:
    """Yield the URL of a reverse proxy in front of a handler."""
    async with (
        serve(origin, listen="127.0.0.1:0") as there,
        reverse(f"http://{there.address}", *layers) as url,
    ):
        yield url


def page(exchange: RequestHandler) -> ConnectionHandler:
    return stack(http.server(), exchange)


# nginx


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    server = Nginx(tmp_path)
    yield server
    server.stop()


@needs("nginx")
async def test_files_from_nginx_arrive_unchanged(nginx: Nginx, tmp_path: Path) -> None:
    (nginx.www / "file").write_bytes(DATA)
    async with reverse(nginx.web) as url:
        assert (await curl(f"{url}/file")).out == DATA
        assert (await curl("--http1.0", f"{url}/file")).out == DATA
        assert (await curl("-r", "100-199", f"{url}/file")).out == DATA[100:200]
        several = (await curl("-r", "0-1,100-101", f"{url}/file")).out
        assert several.count(b"Content-Range: ") == 2
        head = (await curl("-I", f"{url}/file", f"{url}/file")).out
        assert head.count(b"Content-Length: %d\r\n" % len(DATA)) == 2
        assert head.count(b"Via: 1.1 llama\r\n") == 2
        etag = tmp_path / "etag"
        await curl("--etag-save", etag, f"{url}/file")
        assert (await curl("--etag-compare", etag, "-w", "%{http_code}", f"{url}/file")).out == b"304"
        assert (await curl("-o", os.devnull, "-w", "%{http_code}", f"{url}/none")).out == b"404"


@needs("nginx")
@pytest.mark.parametrize(
    "framing", [(), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect: 100-continue")]
)
async def test_uploads_by_put_reach_nginx(nginx: Nginx, tmp_path: Path, framing: tuple[str, ...]) -> None:
    (tmp_path / "file").write_bytes(DATA)
    async with reverse(nginx.web) as url:
        done = await curl(*framing, "-T", tmp_path / "file", "-w", "%{http_code}", f"{url}/file")
        assert done.out == b"201", done.err
    assert (nginx.www / "file").read_bytes() == DATA


# curl in front


async def test_uploads_of_every_framing(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(DATA)
    async with before(page(site)) as url:
        assert (await curl("-T", upload, url)).out == digested("PUT", len(DATA), DATA)
        assert (await curl("--http1.0", "-T", upload, url)).out == digested("PUT", len(DATA), DATA)
        assert (await curl("--data-binary", "small", url)).out == digested("POST", 5, b"small")
        assert (await curl("-X", "DELETE", url)).out == digested("DELETE", None, b"")
        chunked = ("-H", "Transfer-Encoding: chunked", "-T", "-")
        assert (await curl(*chunked, url, stdin=DATA)).out == digested("PUT", "chunked", DATA)
        done = await curl("-v", "-H", "Expect: 100-continue", "--expect100-timeout", "15", "-T", upload, url)
        assert done.out == digested("PUT", len(DATA), DATA)
        assert done.err.count(b"< HTTP/1.1 100 Continue") == 1


async def test_a_rejected_body_is_not_sent(tmp_path: Path) -> None:
    async def refuse(request: Request) -> Response:
        return Response(413, body=b"too large")

    upload = tmp_path / "upload"
    upload.write_bytes(bytes(5_000_000))
    async with before(page(refuse)) as url:
        done = await curl(
            "-H",
            "Expect: 100-continue",
            "--expect100-timeout",
            "15",
            "-T",
            upload,
            "-w",
            " %{size_upload}",
            url,
        )
        assert done.out == b"too large 0"


async def test_downloads_of_every_framing() -> None:
    async with before(page(site)) as url:
        done = await curl("-i", f"{url}/hints")
        assert done.out.startswith(
            b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"
        )
        assert (await curl("--http1.0", f"{url}/hints")).out == b"hinted"
        assert (await curl("--compressed", f"{url}/packed")).out == DATA
        assert (await curl("--http1.0", f"{url}/chunks")).out == b"one two three"
        assert (await curl("-w", "%{http_code}", f"{url}/nothing")).out == b"204"
        assert (await curl("-L", f"{url}/moved")).out == b"hello"


async def test_connections_are_kept_on_both_sides() -> None:
    server = stack(http.server(), site)
    opened: list[Stream] = []

    async def count(stream: Stream) -> None:
        opened.append(stream)
        await server(stream)

    async with serve(count, listen="127.0.0.1:0") as origin, reverse(f"http://{origin.address}") as url:
        pages = [f"{url}/{page}" for page in ("hello", "chunks", "nothing", "x")]
        for _ in range(2):
            done = await curl("-v", *pages)
            assert done.err.count(b"Re-using existing") + done.err.count(b"Reusing existing") == 3
        assert len(opened) == 1
        done = await curl("-Z", "--parallel-immediate", "--parallel-max", "10", *[pages[0]] * 40)
        assert done.out == b"hello" * 40
        assert len(opened) <= 11


# streams


async def events_of(url: str, *options: str) -> AsyncGenerator[bytes]:
    """Yield the events that curl prints, as they arrive."""
    process = await asyncio.create_subprocess_exec(
        installed("curl"), "-qsSN", *options, url, stdout=asyncio.subprocess.PIPE, env=CLEAN
    )
    try:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.strip():
                yield line.strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        ((), ()),
        ((), ("--http1.0",)),
        ((http.compress(),), ("--compressed",)),
        ((http.map_body(bytes.upper),), ()),
    ],
    ids=["plain", "by HTTP/1.0", "compressed", "mapped"],
)
async def test_server_sent_events_arrive_one_by_one(
    layers: tuple[Layer, ...], options: tuple[str, ...]
) -> None:
    heard = asyncio.Event()

    async def events(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for number in range(5):
                heard.clear()
                yield b"DATA: %d\n\n" % number
                await heard.wait()

        return Response(200, {"Content-Type": "text/event-stream"}, body())

    count = 0
    async with asyncio.timeout(20), before(page(events), *layers) as url:
        async for event in events_of(url, *options):
            assert event == b"DATA: %d" % count
            count += 1
            heard.set()
    assert count == 5


async def test_a_client_that_disconnects_ends_the_stream() -> None:
    left = asyncio.Event()

    async def events(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                yield b"data: 1\n\n"
                await asyncio.Event().wait()
            finally:
                left.set()

        return Response(200, {"Content-Type": "text/event-stream"}, body())

    async with asyncio.timeout(20), before(page(events)) as url:
        reading = events_of(url)
        async for _ in reading:
            break
        await reading.aclose()
        await left.wait()


# upstreams that are slow, and that die


def dying(said: bytes, *, reset: bool) -> ConnectionHandler:
    """An upstream that sends this and closes the connection, with FIN or RST."""

    async def handler(stream: Stream) -> None:
        await stream.read()
        if said:
            await stream.write(said)
        if reset:
            stream.abort()

    return handler


HEAD = b"HTTP/1.1 200 OK\r\n"
CUT = {
    "length": HEAD + b"Content-Length: 10\r\n\r\nhello",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\na\r\nhello",
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
}


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_an_upstream_that_dies_at_once_is_502(reset: bool) -> None:
    for said in (b"", b"HTTP/1.1 200 OK\r\nContent-Le"):
        async with before(dying(said, reset=reset)) as url:
            assert (await curl("-w", "%{http_code}", "-o", os.devnull, url)).out == b"502"


@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_an_upstream_that_dies_during_a_response_truncates_it(cut: str, reset: bool) -> None:
    async with before(dying(CUT[cut], reset=reset)) as url:
        for options in ((), ("--http1.0",)):
            done = await curl(*options, url)
            assert done.code in (18, 52, 56), done  # partial, nothing, or failure in receiving


async def test_a_slow_upstream_is_504_after_the_timeout() -> None:
    asked, go = asyncio.Queue[None](), asyncio.Event()

    async def slow(request: Request) -> Response:
        asked.put_nowait(None)
        await go.wait()
        return Response(body=b"at last")

    async with serve(stack(http.server(), slow), listen="127.0.0.1:0") as origin:
        to = f"http://{origin.address}"
        hasty = http.reverse_proxy(to, client=http.client(response_header_timeout=0.05))
        async with serve(stack(http.server(), hasty), listen="127.0.0.1:0") as gate, reverse(to) as patient:
            done = await curl("-w", " %{http_code}", f"http://{gate.address}")
            assert done.out.endswith(b" 504")
            await asked.get()
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(curl(patient))
                await asked.get()
                go.set()
            assert waiting.result().out == b"at last"


# websockets


async def serve_echo(websocket: ServerConnection) -> None:
    """Echo messages; `leave` makes it close with a custom code."""
    async for message in websocket:
        if message == "leave":
            await websocket.close(4321, "as you wish")
        await websocket.send(message)


async def test_websockets_work_through_the_proxy() -> None:
    async with serve_websocket(
        serve_echo, "127.0.0.1", 0, subprotocols=[Subprotocol("chat")], max_size=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with reverse(f"http://127.0.0.1:{port}") as url:
            there = url.replace("http", "ws")
            for compression in ("deflate", None):
                async with connect(
                    there,
                    proxy=None,
                    subprotocols=[Subprotocol("chat")],
                    compression=compression,
                    max_size=None,
                ) as websocket:
                    assert websocket.subprotocol == "chat"
                    assert bool(websocket.protocol.extensions) == (compression is not None)
                    for message in ("hi", b"\x00" * 3_000_000, "x" * 100_000, ""):
                        await websocket.send(message)
                        assert await websocket.recv() == message
                    await (await websocket.ping())
                    await websocket.send("leave")
                    with pytest.raises(ConnectionClosed) as closed:
                        await websocket.recv()
                    assert closed.value.rcvd is not None
                    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")

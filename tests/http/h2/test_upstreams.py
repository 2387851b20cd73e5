"""Other people's HTTP/2 servers behind our client and reverse proxy, and gRPC from end to end."""

from __future__ import annotations

import asyncio
import getpass
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import http, serve, stack, tcp, tls
from llama.http import Request
from tests.http.grpc_peer_process import EXPECTED, PEER
from tests.http.peers import CLEAN
from tests.socks5.programs import installed
from tests.tls.sessions import pair_files

pytestmark = pytest.mark.peer


@asynccontextmanager
async def running(*command: str | Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=CLEAN,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.mark.parametrize("workers", [1, 5])
async def test_grpc_passes_through_the_reverse_proxy_in_all_four_kinds(workers: int) -> None:
    pytest.importorskip("grpc")
    async with asyncio.timeout(50), running(sys.executable, PEER, "serve") as server:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        proxy = stack(http.server(), http.reverse_proxy(f"h2c://127.0.0.1:{port}"))
        async with serve(tcp.server("127.0.0.1:0", proxy)) as front, asyncio.TaskGroup() as group:
            told = [group.create_task(call(front.addresses[0])) for _ in range(workers)]
        assert [each.result() for each in told] == [EXPECTED] * workers


@pytest.mark.llama_timeout(90)
async def test_grpc_behind_the_client_in_all_four_kinds() -> None:
    """What gRPC sends and hears, made by hand: the client alone is between."""
    pytest.importorskip("grpc")
    async with asyncio.timeout(60), running(sys.executable, PEER, "serve") as server, http.client() as client:
        assert server.stdout is not None
        url = f"h2c://127.0.0.1:{int(await server.stdout.readline())}/test.Peer"

        async def ask(kind: str, body: bytes | AsyncIterator[bytes]) -> http.Response:
            fields = {
                "te": "trailers",
                "content-type": "application/grpc",
                "x-asked": "1",
                "x-asked-bin": "AP8=",
            }
            response = await client(Request("POST", f"{url}/{kind}", fields, body))
            assert (response.status, response.headers["content-type"]) == (200, "application/grpc")
            return response

        response = await ask("unary", message(b"hello"))
        assert (response.headers["x-initial"], await messages(response)) == ("i", [b"HELLO"])
        trailers = response.trailers or http.Headers()
        assert [trailers[name] for name in ("grpc-status", "x-trailing", "x-trailing-bin")] == [
            "0",
            "1",
            "AP8",
        ]

        response = await ask("unary", message(b"fail"))
        failed = response.trailers or response.headers
        assert (await messages(response), failed["grpc-status"]) == ([], "5")
        assert failed["grpc-message"] == "no such thing: %C3%A4"

        parts = await messages(await ask("server", message(b"200")))
        assert (len(parts), sum(map(len, parts))) == (200, 490_000)

        async def many() -> AsyncIterator[bytes]:
            for _ in range(500):
                yield message(bytes(1000))

        assert await messages(await ask("client", many())) == [b"500000"]

        queue: asyncio.Queue[bytes] = asyncio.Queue()

        async def talk() -> AsyncIterator[bytes]:
            while part := await queue.get():
                yield message(part)

        queue.put_nowait(b"0a")
        response = await ask("both", talk())
        for number in range(5):
            if number:
                queue.put_nowait(b"%da" % number)
            assert await response.body.read_chunk() == message(b"a%d" % number)
        queue.put_nowait(b"")
        assert await response.body.read() == b""
        assert (response.trailers or http.Headers())["grpc-status"] == "0"


@pytest.mark.llama_timeout(90)
async def test_grpcs_client_at_our_server_in_all_four_kinds() -> None:
    pytest.importorskip("grpc")
    async with serve(tcp.server("127.0.0.1:0", stack(http.server(), grpc_app))) as server:
        assert await call(server.addresses[0]) == EXPECTED


async def grpc_app(request: Request) -> http.Response:
    """What the server in `grpc_peer.py` does, made by hand."""
    kind = request.path.rpartition("/")[2]
    response = http.Response(200, {"content-type": "application/grpc"})
    response.trailers = http.Headers({"grpc-status": "0"})
    if kind == "both":
        response.body = reversing(request)
        return response
    parts = await messages(request)
    if kind == "unary" and parts == [b"fail"]:
        response.trailers = http.Headers({"grpc-status": "5", "grpc-message": "no such thing: %C3%A4"})
    elif kind == "unary":
        response.headers["x-initial"] = "i"
        response.trailers["x-trailing"] = request.headers["x-asked"]
        response.trailers["x-trailing-bin"] = request.headers["x-asked-bin"]
        response.body = message(parts[0].upper())
    elif kind == "server":
        response.body = [message(b"%d" % number * 1000) for number in range(int(parts[0]))]
    else:
        response.body = message(b"%d" % sum(map(len, parts)))
    return response


async def reversing(request: Request) -> AsyncIterator[bytes]:
    """An answer to each message as it comes."""
    async for chunk in request.body:
        yield message(chunk[5:][::-1])


def message(data: bytes) -> bytes:
    """One message, framed: not compressed, its length before it."""
    return b"\0" + len(data).to_bytes(4, "big") + data


async def messages(whole: Request | http.Response) -> list[bytes]:
    """All messages of a body."""
    data = await whole.body.read(10_000_000)
    found: list[bytes] = []
    while data:
        size = 5 + int.from_bytes(data[1:5], "big")
        found.append(data[5:size])
        data = data[size:]
    return found


async def call(address: str) -> str:
    async with running(sys.executable, PEER, "call", address) as client:
        out, _ = await client.communicate()
        return out.decode()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


NGINX = """
user {user}; daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{}}
http {{
  access_log off; client_max_body_size 0;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 20;
  server {{
    listen 127.0.0.1:{port} http2;
    location / {{ root {folder}; }}
    location /put {{ dav_methods PUT; root {folder}; }}
  }}
  server {{
    listen 127.0.0.1:{secure} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{ root {folder}; }}
  }}
}}
"""


async def accepts(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return


@asynccontextmanager
async def nginx(folder: Path) -> AsyncGenerator[tuple[int, int]]:
    port, secure = free_port(), free_port()
    cert, key = pair_files("localhost")
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(user=getpass.getuser(), folder=folder, port=port, secure=secure, cert=cert, key=key)
    )
    (folder / "put").mkdir()
    async with running(installed("nginx"), "-c", config):
        await accepts(port)
        yield port, secure


async def test_nginx_behind_the_client(tmp_path: Path) -> None:
    data = bytes(range(256)) * 8000
    (tmp_path / "file").write_bytes(data)
    async with nginx(tmp_path) as (port, secure), http.client(tls=tls.connect(insecure=True)) as client:

        async def get(url: str) -> bool:
            response = await client(Request("GET", url))
            assert (response.status, response.version) == (200, "2")
            return await response.body.read(10_000_000) == data

        for base in (f"h2c://127.0.0.1:{port}", f"https://127.0.0.1:{secure}"):
            # nginx leaves a connection after 20 requests, so that others open
            assert all([await get(f"{base}/file") for _ in range(30)])
            assert all(await asyncio.gather(*[get(f"{base}/file") for _ in range(60)]))
        response = await client(Request("PUT", f"h2c://127.0.0.1:{port}/put/x", (), [data]))
        assert response.status == 201
        assert (tmp_path / "put/x").read_bytes() == data


HAPROXY = """
defaults
  mode http
  timeout client 20s
  timeout server 20s
  timeout connect 5s
frontend f
  bind 127.0.0.1:{port} proto h2
  http-request return status 200 content-type text/plain string hello if {{ path / }}
  default_backend b
backend b
  server s 127.0.0.1:{back} proto h2
"""


async def test_haproxy_between_our_client_and_our_server(tmp_path: Path) -> None:
    async def app(request: Request) -> http.Response:
        body = await request.body.read(10_000_000)
        response = http.Response(200, {"x-version": request.version}, [body])
        response.trailers = request.trailers
        return response

    async with serve(tcp.server("127.0.0.1:0", stack(http.server(), app))) as server:
        port = free_port()
        config = tmp_path / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=port, back=server.addresses[0].rpartition(":")[2]))
        async with running(installed("haproxy"), "-f", config, "-db"), http.client() as client:
            await accepts(port)
            response = await client(Request("GET", f"h2c://127.0.0.1:{port}/"))
            assert (response.status, await response.body.read()) == (200, b"hello")
            for size in (0, 10, 1_000_000):
                request = Request("POST", f"h2c://127.0.0.1:{port}/x", (), [bytes(size)])
                request.trailers = http.Headers({"x-sum": "1"})
                response = await client(request)
                assert (response.version, response.headers["x-version"]) == ("2", "2")
                assert await response.body.read(10_000_000) == bytes(size)
                assert list(response.trailers or ()) == [("x-sum", "1")]

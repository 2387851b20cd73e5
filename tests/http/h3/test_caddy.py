"""Caddy behind our HTTP/3 client and behind the reverse proxy."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")

from llama import http, serve, stack, tcp, tls
from llama.http import Request, Response
from tests.http.h3.caddy import caddy
from tests.http.h3.fixtures import h3
from tests.tls.sessions import ca_file

pytestmark = pytest.mark.peer
BIG = bytes(range(256)) * 12_000


def ask(**options: Any) -> Any:
    return http.client(tls=tls.connect(ca=ca_file()), connect_timeout=20, **options)


async def fetch(exchange: Any, request: Request) -> tuple[int, bytes]:
    response = await exchange(request)
    return response.status, await response.body.read(1 << 24)


async def test_files_and_uploads(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    async with caddy(tmp_path) as port, ask() as client:
        url = f"h3://localhost:{port}"
        assert await fetch(client, Request("GET", f"{url}/big")) == (200, BIG)
        head = await client(Request("HEAD", f"{url}/big"))
        assert (head.status, head.headers["content-length"]) == (200, str(len(BIG)))
        assert await fetch(client, Request("POST", f"{url}/echo", body=BIG)) == (200, b"HTTP/3.0 POST " + BIG)
        assert (await fetch(client, Request("GET", f"{url}/none")))[0] == 404
        assert client.state.h3._own.state.connections == 1


async def test_many_requests_share_a_connection(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    async with caddy(tmp_path) as port, ask(max_per_host=1) as client:
        async with asyncio.TaskGroup() as group:
            request = [Request("GET", f"h3://localhost:{port}/a") for _ in range(500)]
            tasks = [group.create_task(fetch(client, each)) for each in request]
        assert [each.result() for each in tasks] == [(200, b"hello")] * 500
        assert client.state.h3._own.state.connections == 1


async def test_an_answer_before_the_end_of_an_upload(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)
            await asyncio.sleep(0)

    async with caddy(tmp_path) as port, ask() as client:
        for _ in range(3):
            status, _ = await fetch(client, Request("POST", f"h3://localhost:{port}/a", body=endless()))
            assert status == 200
        assert await fetch(client, Request("GET", f"h3://localhost:{port}/a")) == (200, b"hello")


async def test_who_leaves_early_costs_the_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    async with caddy(tmp_path) as port, ask(max_per_host=1) as client:
        url = f"h3://localhost:{port}/big"
        for _ in range(300):  # more than the server takes at a time
            response = await client(Request("GET", url))
            await response.aclose()
        assert await fetch(client, Request("GET", url)) == (200, BIG)


async def test_a_server_that_began_anew_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    async with ask() as client:
        async with caddy(tmp_path) as port:
            assert await fetch(client, Request("GET", f"h3://localhost:{port}/a")) == (200, b"hello")
        async with caddy(tmp_path, port):
            assert await fetch(client, Request("GET", f"h3://localhost:{port}/a")) == (200, b"hello")


@asynccontextmanager
async def chain(folder: Path) -> AsyncGenerator[int]:
    """HTTP/3 to our reverse proxy, HTTP/3 to Caddy, HTTP/1.1 to an application of ours."""

    async def app(request: Request) -> Response:
        size = 0
        async for chunk in request.body:
            size += len(chunk)
        return Response(200, {"x-proto": request.headers["x-forwarded-proto"]}, parts(size))

    async def parts(size: int) -> AsyncIterator[bytes]:
        for digit in str(size):
            yield digit.encode()

    async with (
        serve(tcp.server("127.0.0.1:0", stack(http.server(), app))) as server,
        caddy(folder, app=server.address) as port,
        ask() as client,
        h3(http.reverse_proxy(f"h3://localhost:{port}", client=client, host="upstream")) as front,
    ):
        yield front


async def test_a_reverse_proxy_in_front_of_it(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    async with chain(tmp_path) as port, ask() as client:
        url = f"h3://localhost:{port}"
        assert await fetch(client, Request("GET", f"{url}/big")) == (200, BIG)
        response = await client(Request("POST", f"{url}/app", body=BIG))
        assert await response.body.read() == str(len(BIG)).encode()
        assert response.headers["x-proto"] == "https"
        assert "alt-svc" not in response.headers


async def test_what_caddy_tells_by_alt_svc_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    async with (
        caddy(tmp_path) as port,
        http.client(tls=tls.connect(ca=ca_file())) as first,
        http.h3_client(ca=ca_file(), fallback=first) as client,
    ):
        versions: list[str] = []
        for _ in range(3):
            response = await client(Request("GET", f"https://localhost:{port}/a"))
            versions.append(response.version)
            await response.aclose()
        assert versions == ["2", "3", "3"]

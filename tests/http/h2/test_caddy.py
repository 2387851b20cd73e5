"""Caddy and nghttpx over HTTP/2: behind our client, before our server, and as the proxy that `http.connect` goes by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import Target, http, serve, stack, tcp, tls
from llama._core.errors import RefusedError, UnreachableError
from llama.http import Headers, Request, Response
from llama.http._client.client import Client
from tests.http.h2.test_upstreams import accepts, free_port, running
from tests.http.peers import program
from tests.socks5.programs import installed
from tests.tls.sessions import ca_file, pair_files

pytestmark = [pytest.mark.peer, pytest.mark.llama_timeout(120)]
CADDYFILE = """
{{
  admin off
  auto_https off
  storage file_system {folder}/storage
  log {{
    level ERROR
  }}
  servers {{
    protocols h1 h2 h2c
  }}
}}
http://:{clear} {{
  bind 127.0.0.1
  root * {folder}
  reverse_proxy /back/* {{
    to h2c://127.0.0.1:{back}
    flush_interval -1
  }}
  reverse_proxy /tls/* {{
    to https://127.0.0.1:{back_secure}
    transport http {{
      tls_server_name localhost
      tls_trusted_ca_certs {ca}
      versions 2
    }}
  }}
  file_server
}}
https://:{secure} {{
  bind 127.0.0.1
  tls {cert} {key}
  root * {folder}
  file_server
}}
"""
DATA = bytes(range(256)) * 8000


async def app(request: Request) -> Response:
    """Everything back, with the version that it came by and its trailers."""
    response = Response(200, {"x-version": request.version}, request.body)
    response.trailers = Headers({"x-sum": "7"})
    return response


@asynccontextmanager
async def behind() -> AsyncGenerator[tuple[int, int]]:
    """Our server, in the clear and over TLS."""
    handler = stack(http.server(), app)
    async with serve(
        tcp.server("127.0.0.1:0", handler),
        tcp.server("127.0.0.1:0", stack(tls.server(*pair_files("localhost")), handler)),
    ) as server:
        clear, secure = (int(each.rpartition(":")[2]) for each in server.addresses)
        yield clear, secure


@asynccontextmanager
async def caddy(folder: Path, back: tuple[int, int] = (1, 1)) -> AsyncGenerator[tuple[str, str]]:
    (folder / "file").write_bytes(DATA)
    clear, secure = free_port(), free_port()
    cert, key = pair_files("localhost")
    config = folder / "Caddyfile"
    config.write_text(
        CADDYFILE.format(
            folder=folder, clear=clear, secure=secure, back=back[0], back_secure=back[1], cert=cert, key=key,
            ca=ca_file(),
        )
    )  # fmt: skip
    folders = (f"XDG_CONFIG_HOME={folder}/config", f"XDG_DATA_HOME={folder}/data")
    command = (installed("caddy"), "run", "--config", config, "--adapter", "caddyfile")
    async with running("/usr/bin/env", *folders, *command):
        await accepts(clear)
        yield f"127.0.0.1:{clear}", f"localhost:{secure}"


def ours() -> Client:
    return http.client(tls=tls.connect(ca=ca_file()))


async def test_caddy_behind_our_client(tmp_path: Path) -> None:
    async with caddy(tmp_path) as (clear, secure), ours() as client:

        async def get(url: str) -> bool:
            response = await client(Request("GET", url))
            assert (response.status, response.version) == (200, "2")
            return bool(await response.body.read(10_000_000) == DATA)

        for base in (f"h2c://{clear}", f"https://{secure}"):
            assert all([await get(f"{base}/file") for _ in range(3)])
            assert all(await asyncio.gather(*[get(f"{base}/file") for _ in range(40)]))
            response = await client(Request("GET", f"{base}/none"))
            assert response.status == 404
            await response.body.read()
            half = Request("GET", f"{base}/file", {"Range": "bytes=10-19"})
            assert await (await client(half)).body.read() == DATA[10:20]


@pytest.mark.parametrize("path", ["/back/x", "/tls/x"])
async def test_caddy_between_clients_and_our_server(path: str, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(DATA)
    async with behind() as back, caddy(tmp_path, back) as (clear, _), ours() as client:
        done = await program(
            "curl", "-qsS", "--http1.1", "-D-", "-o", tmp_path / "got", "-T", upload, f"http://{clear}{path}"
        )
        assert b"X-Version: 2\r\n" in done.out, done
        assert (tmp_path / "got").read_bytes() == DATA

        async def post(number: int) -> bool:
            sent = bytes([number]) * number * 2000
            response = await client(Request("POST", f"h2c://{clear}{path}", (), [sent]))
            assert (response.version, response.headers["x-version"]) == ("2", "2")
            same = await response.body.read() == sent
            return same and (response.trailers or Headers()).get("x-sum") == "7"

        assert all(await asyncio.gather(*[post(number) for number in range(60)]))


@asynccontextmanager
async def nghttpx(folder: Path, *options: str) -> AsyncGenerator[str]:
    """nghttpx over TLS: where it is."""
    port = free_port()
    cert, key = pair_files("localhost")
    config = folder / "nghttpx.conf"
    config.write_text("")
    command = (
        installed("nghttpx"),
        f"--conf={config}",
        f"--frontend=127.0.0.1,{port}",
        "--workers=1",
        *options,
    )
    async with running(*command, "--log-level=ERROR", key, cert):
        await accepts(port)
        yield f"localhost:{port}"


@pytest.mark.parametrize("proto", ["h2", "http/1.1"])
async def test_nghttpx_between_our_client_and_our_server(proto: str, tmp_path: Path) -> None:
    async with (
        behind() as (clear, _),
        ours() as client,
        nghttpx(tmp_path, f"--backend=127.0.0.1,{clear};;proto={proto}") as front,
    ):

        async def post(number: int) -> bool:
            sent = bytes([number]) * number * 2000
            response = await client(Request("POST", f"https://{front}/", (), [sent]))
            assert (response.version, response.headers["x-version"]) == ("2", proto[-3:].strip("h"))
            return bool(await response.body.read() == sent)

        assert all(await asyncio.gather(*[post(number) for number in range(60)]))


async def test_tunnels_through_nghttpx_as_a_proxy_share_a_connection(tmp_path: Path) -> None:
    asked: list[str] = []
    forward = http.proxy(connect=tcp.connect())

    async def proxy(request: Request) -> Response:
        asked.append(f"{request.method} {request.version}")
        if request.path.endswith(":1") or request.authority.endswith(":1"):
            return Response(403 if request.authority.startswith("localhost") else 502, {}, b"no")
        return await forward(request)

    async with serve(tcp.server("127.0.0.1:0", stack(http.server(), proxy))) as back:
        port = back.addresses[0].rpartition(":")[2]
        # it passes CONNECT on to a proxy behind it
        options = (
            "--http2-proxy",
            "--backend-connections-per-host=100",
            f"--backend=127.0.0.1,{port};;proto=h2",
        )
        async with (
            nghttpx(tmp_path, *options) as front,
            behind() as (target, _),
            http.connect(front, connect=tls.connect(ca=ca_file()), handshake_timeout=10) as connect,
            http.client(connect) as client,
        ):

            async def post(number: int) -> bool:
                sent = bytes([number]) * number * 2000
                response = await client(Request("POST", f"http://127.0.0.1:{target}/", (), sent))
                return bool(await response.body.read() == sent)

            assert all(await asyncio.gather(*[post(number) for number in range(30)]))
            sharing = connect.sharing
            assert sharing is not None and sharing.sessions is not None and sharing.sessions.count == 1
            assert set(asked) == {"CONNECT 2"}
            with pytest.raises(RefusedError):
                await connect(Target("localhost", 1))
            with pytest.raises(UnreachableError):
                await connect(Target("other.example", 1))

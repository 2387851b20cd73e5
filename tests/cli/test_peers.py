"""Each proxy in a process of its own, with other people's clients before it and servers behind it."""

import asyncio
import os
import ssl
import subprocess
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from tests.cli.conftest import Llama, Start
from tests.pango.conftest import needs
from tests.pango.nginx import Nginx

pytestmark = pytest.mark.peer
SECRET = "john:secret"
CLEAN = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def run(
    *command: str | Path, stdin: bytes = b"", variables: Mapping[str, str] = CLEAN
) -> "subprocess.CompletedProcess[bytes]":
    filled = [str(part) for part in command]
    return subprocess.run(filled, input=stdin, capture_output=True, timeout=30, check=False, env=variables)


def curl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    """What curl is answered, which has to end well."""
    done = run("curl", "-qsS", "--max-time", "20", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    server = Nginx(tmp_path)
    yield server
    server.stop()


@needs("curl", "nginx")
def test_reverse_before_nginx(start: Start, nginx: Nginx, files: Path) -> None:
    data = os.urandom(3_000_000)
    server = start(
        "reverse", "--to", nginx.web, "--cert", "c.pem", "--key", "k.pem", "--access-log", "common"
    )
    url, trust = f"https://localhost:{server.port}", ("--cacert", "ca.pem")
    curl(*trust, "-T", "-", f"{url}/file", stdin=data)
    assert (nginx.www / "file").read_bytes() == data
    assert curl(*trust, f"{url}/file") == data
    assert curl(*trust, "-r", "100-199", f"{url}/file") == data[100:200]
    assert curl(*trust, "--http1.0", f"{url}/hello") == b"hello from nginx\n"
    head = curl(*trust, "-I", f"{url}/file").lower()
    assert b"content-length: 3000000\r\n" in head and b"via: 1.1 llama\r\n" in head
    server.expect(r'"GET .*/file HTTP/\S+" 206 100$')
    server.stop()


@needs("curl", "nginx")
def test_reverse_goes_on_when_an_upstream_is_away(start: Start, nginx: Nginx, files: Path) -> None:
    server = start("reverse", "--to", "unix:nowhere", "--to", nginx.web)
    for _ in range(6):
        assert curl(f"http://{server.address}/hello") == b"hello from nginx\n"
    server.stop()


async def echo(websocket: ServerConnection) -> None:
    async for message in websocket:
        await websocket.send(message)


@asynccontextmanager
async def websockets() -> AsyncGenerator[str]:
    async with serve_websocket(echo, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def test_reverse_before_websockets(start: Start, files: Path) -> None:
    async with websockets() as there:
        options = ("--to", f"http://{there}", "--cert", "c.pem", "--key", "k.pem")
        server = await asyncio.to_thread(start, "reverse", *options)
        context = ssl.create_default_context(cafile="ca.pem")
        async with connect(f"wss://localhost:{server.port}/", ssl=context, proxy=None) as websocket:
            for message in ("hi", b"\x00" * 100_000):
                await websocket.send(message)
                assert await websocket.recv() == message
        server.stop()


@needs("curl", "wget", "nginx")
def test_http_proxy_over_tls_with_a_user(start: Start, web: str, files: Path) -> None:
    guarded = start("http-proxy", "--user", SECRET, "--cert", "c.pem", "--key", "k.pem")
    way = ("-x", f"https://localhost:{guarded.port}", "--proxy-cacert", "ca.pem", "--noproxy", "")
    for user, answer in (("john:secret", b"page /a"), ("john:wrong", b"407 credentials required")):
        assert curl(*way, "-U", user, f"http://{web}/a").startswith(answer)
    site = start("reverse", "--to", f"http://{web}", "--cert", "c.pem", "--key", "k.pem")
    page = f"https://localhost:{site.port}/b"
    for protocol, version in (("--http1.1", b"1.1"), ("--http2", b"2")):
        told = curl(*way, protocol, "-U", SECRET, "--cacert", "ca.pem", page)
        assert told == b"page /b via %b llama\n" % version
    plain = start("http-proxy", "--user", SECRET)
    options = ("-qO-", "--no-hsts", "--tries=1", "--ca-certificate=ca.pem")
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), f"http://{SECRET}@{plain.address}")
    for url, answer in ((f"http://{web}/c", b"page /c via 1.1 llama\n"), (page, b"page /b via 1.1 llama\n")):
        done = run("wget", *options, url, variables={**CLEAN, **proxies})
        assert done.stdout == answer, done.stderr
    for each in (guarded, site, plain):
        each.stop()


@pytest.fixture
def chain(start: Start, files: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[Llama]]:
    """Three proxies as options: SOCKS5, then HTTP over TLS, then SOCKS5, each with its user."""
    first = start("socks5", "--user", "a:1")
    second = start(
        "http-proxy", "--user", "b:2", "--cert", "c.pem", "--key", "k.pem", "--access-log", "common"
    )
    third = start("socks5", "--user", "c:3")
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.pem"))
    urls = (
        f"socks5h://a:1@{first.address}",
        f"https://b:2@localhost:{second.port}",
        f"socks5h://c:3@{third.address}",
    )
    return [part for url in urls for part in ("--via", url)], [first, second, third]


@needs("curl")
def test_every_proxy_through_a_chain_of_three(
    start: Start, chain: tuple[list[str], list[Llama]], web: str
) -> None:
    options, (first, second, third) = chain
    page = f"http://{web}/a"
    servers = [
        start("socks5", *options),
        start("http-proxy", *options),
        start("reverse", "--to", f"http://{web}", *options),
        start("forward", "--to", web, *options),
    ]
    socks, proxy, reverse, forward = [each.address for each in servers]
    assert curl("-x", f"socks5h://{socks}", page) == b"page /a via nothing\n"
    assert curl("-x", f"http://{proxy}", page) == b"page /a via 1.1 llama\n"
    assert curl("-p", "-x", f"http://{proxy}", page) == b"page /a via nothing\n"
    assert curl(f"http://{reverse}/a") == b"page /a via 1.1 llama\n"
    assert curl(f"http://{forward}/a") == b"page /a via nothing\n"
    second.expect(rf'^\S+ - b \[.*\] "CONNECT {third.address} HTTP/2" 200 ')
    for each in (*servers, third, second, first):
        each.stop()


@needs("curl")
def test_via_env_chooses_by_target(start: Start, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    proxy = start("http-proxy", "--access-log", "common")
    monkeypatch.setenv("all_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = start("http-proxy", "--via", "env")
    port = web.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost"):
        assert curl("-x", f"http://{server.address}", f"http://{host}:{port}/a") == b"page /a via 1.1 llama\n"
    server.stop()
    log = proxy.stop()
    assert [line.split('"')[1] for line in log if '"' in line] == [f"CONNECT localhost:{port} HTTP/1.1"]

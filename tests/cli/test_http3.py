"""`--http3`: the commands in processes of their own, with HTTP/3 beside TCP."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")

from llama import http, tls
from llama.http import Request, Response
from tests.cli.conftest import Call, Site
from tests.http.h3.fixtures import raw


def over_h3(files: Path) -> Any:
    return http.h3_client(ca=files / "ca.pem")


def over_both(files: Path) -> Any:
    """HTTP/3 where a server says that it has it."""
    return http.h3_client(ca=files / "ca.pem", fallback=http.client(tls=tls.connect(ca=files / "ca.pem")))


def asking(authority: str, path: bytes) -> list[tuple[bytes, bytes]]:
    """What a client asks a forward proxy for, of another origin in the clear."""
    names = (b":method", b":scheme", b":authority", b":path")
    return list(zip(names, (b"GET", b"http", authority.encode(), path), strict=True))


async def get(exchange: Any, url: str) -> tuple[Response, str]:
    response = await exchange(Request("GET", url))
    body: bytes = await response.body.read()
    return response, body.decode()


async def test_static_files_over_http3(site: Callable[..., Site], files: Path) -> None:
    (files / "a.txt").write_text("hello")
    server = site("static", ".", "--access-log", "json")
    async with over_both(files) as client:
        url = f"https://localhost:{server.port}/a.txt"
        first, _ = await get(client, url)
        second, text = await get(client, url)
    assert (first.version, second.version, text) == ("2", "3", "hello")
    assert first.headers["alt-svc"] == f'h3=":{server.port}"; ma=86400'
    assert "alt-svc" not in second.headers
    lines = [json.loads(server.expect(r"^{.*}$")[0]) for _ in range(2)]
    assert [each["network.protocol.version"] for each in lines] == ["2", "3"]
    server.stop()


async def test_a_reverse_proxy_over_http3_to_one_over_http3(
    site: Callable[..., Site], files: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = site("reverse", "--to", f"http://{web}")
    monkeypatch.setenv("SSL_CERT_FILE", str(files / "ca.pem"))
    outer = site("reverse", "--to", f"h3://localhost:{inner.port}", "--access-log")
    async with over_h3(files) as client:
        response, text = await get(client, f"https://localhost:{outer.port}/x")
    assert (response.version, text) == ("3", "page /x via 3 llama\n")
    outer.expect(r'"GET /x HTTP/3" 200 ')


async def test_a_forward_proxy_over_http3(site: Callable[..., Site], files: Path, web: str) -> None:
    server = site("http-proxy", "--access-log", "common")
    async with raw(server.port, str(files / "ca.pem")) as talk:
        answer = talk.ask(*asking(web, b"/y"))
        await answer.ends(talk)
        assert bytes(answer.body) == b"page /y via 3 llama\n"
        assert b"alt-svc" not in dict(answer.heads[0])
    server.expect(rf'"GET http://{web}/y HTTP/3" 200 ')

    async with over_h3(files) as client:
        connect = Request("CONNECT", web)
        connect.extensions.set(http.Origin.parse(f"h3://localhost:{server.port}"))
        tunnel = await client(connect)
        assert tunnel.status == 200
        stream = tunnel.upgrade.stream
        await stream.write(b"GET /z HTTP/1.0\r\n\r\n")
        got = b""
        while data := await stream.read():
            got += data
        assert got.endswith(b"page /z via nothing\n")
        await tunnel.aclose()
    server.expect(rf'"CONNECT {web} HTTP/3" 200 ')


async def test_a_forward_proxy_over_http3_asks_who_is_there(
    site: Callable[..., Site], files: Path, web: str
) -> None:
    server = site("http-proxy", "--user", "john:secret")
    async with raw(server.port, str(files / "ca.pem")) as talk:
        for given, status in (
            ([], b"407"),
            ([(b"proxy-authorization", b"Basic am9objpzZWNyZXQ=")], b"200"),
        ):
            answer = talk.ask(*asking(web, b"/"), *given)
            await answer.ends(talk)
            assert dict(answer.heads[0])[b":status"] == status


async def test_the_workers_share_the_port(site: Callable[..., Site], files: Path) -> None:
    (files / "a.txt").write_text("a" * 100_000)
    server = site("static", ".", "--workers", "2")
    for _ in range(8):  # each from another port, so that either worker gets some
        async with over_h3(files) as client:
            for _ in range(3):
                _, text = await get(client, f"https://localhost:{server.port}/a.txt")
                assert len(text) == 100_000
    server.stop()


async def test_a_reload_takes_the_port_over(site: Callable[..., Site], files: Path) -> None:
    (files / "a.txt").write_text("hello")
    server = site("static", ".")
    url = f"https://localhost:{server.port}/a.txt"
    async with over_h3(files) as client:
        assert (await get(client, url))[1] == "hello"
    server.send(signal.SIGHUP)
    server.expect("reload|new settings|took over|listening")
    async with over_h3(files) as client:
        assert (await get(client, url))[1] == "hello"
    server.stop()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("static . --http3", "llama: --http3: HTTP/3 is spoken over TLS only: expected --cert too"),
        (
            "static . --http3 --cert c.pem --key k.pem --listen 127.0.0.1:0",
            "llama: --http3: there is no UDP port beside 127.0.0.1:0: expected --listen with HOST:PORT",
        ),
        (
            "reverse --http3 --cert c.pem --key k.pem --listen unix:s --to http://a:1",
            "llama: --http3: there is no UDP port beside unix:s: expected --listen with HOST:PORT",
        ),
        (
            "reverse --to h3://a:1 --via socks5://127.0.0.1:1",
            "llama: --via: h3://a:1 is reached over UDP, which these proxies do not carry",
        ),
    ],
)
def test_settings_that_cannot_be(llama: Call, files: Path, line: str, told: str) -> None:
    outcome = llama(line)
    assert (outcome.code, outcome.errors.strip()) == (78, told)


@pytest.mark.parametrize(
    "line", ["static . --http3 --cert c.pem --key k.pem", "reverse --to h3://localhost:1"]
)
def test_without_the_extra_it_is_said(
    llama: Call, files: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qh3", None)
    outcome = llama(line)
    assert outcome.code == 78
    assert "needs the http3 extra: pip install proxy-llama[http3]" in outcome.errors

"""pango over HTTP/3: in front of targets and of applications, and to targets that speak it."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")

import pango as library
from llama import ConfigError, http
from llama.http import Request, Response
from tests.pango.conftest import Call
from tests.pango.process import Pango, free_port
from tests.pango.test_http import telling
from tests.tls.sessions import ca_file, pair_files

PAIR = ("--cert", "c.pem", "--key", "k.pem")


@pytest.fixture
def site(files: Path) -> Iterator[Callable[..., Pango]]:
    """`site(port, "--to", target)`: `pango serve` at this port, with a certificate."""
    running: list[Pango] = []

    def start(port: int, *options: str) -> Pango:
        pango = Pango(files, "serve", "--listen", f"127.0.0.1:{port}", *PAIR, *options)
        running.append(pango)
        pango.expect(rf"listening on .*127\.0\.0\.1:{port}")
        return pango

    yield start
    for each in running:
        each.discard()


async def get(files: Path, url: str) -> tuple[Response, str]:
    async with http.h3_client(ca=files / "ca.pem") as client:
        response = await client(Request("GET", url))
        body = await response.body.read()
        return response, body.decode()


async def test_targets_are_served_over_http3(site: Callable[..., Pango], files: Path) -> None:
    port = free_port()
    with telling() as web:
        server = site(port, "--http3", "--to", f"http://{web}", "--access-log", "common", "--workers", "2")
        for _ in range(4):
            response, text = await get(files, f"https://localhost:{port}/a")
            fields = json.loads(text)["fields"]
            assert (response.version, fields["via"], fields["x-forwarded-proto"]) == ("3", "3 pango", "https")
            assert fields["x-forwarded-for"] == "127.0.0.1"
        server.expect(r'"GET /a HTTP/3" 200 \d+$')
        server.stop()


async def test_each_certificate_is_served_over_http3(site: Callable[..., Pango], files: Path) -> None:
    port = free_port()
    cert, key = pair_files("a.example")
    with telling() as web:
        site(port, "--http3", "--to", f"http://{web}", "--cert", cert, "--key", key)
        assert (await get(files, f"https://localhost:{port}/"))[0].status == 200
        async with http.h3_client(ca=ca_file(), server_name="a.example") as client:
            response = await client(Request("GET", f"https://localhost:{port}/"))
            assert response.status == 200
            await response.aclose()


async def test_a_target_over_http3_is_verified(site: Callable[..., Pango], files: Path) -> None:
    inner, strict, trusting, careless = (free_port() for _ in range(4))
    with telling() as web:
        site(inner, "--http3", "--to", f"http://{web}")
        to = ("--http3", "--to", f"h3://localhost:{inner}")
        site(trusting, *to, "--to-ca", "ca.pem")
        site(careless, *to, "--to-insecure")
        site(strict, *to)
        assert [
            (await get(files, f"https://localhost:{port}/"))[0].status
            for port in (trusting, careless, strict)
        ] == [200, 200, 502]
        response, _ = await get(files, f"https://localhost:{strict}/")
        assert response.headers["proxy-status"] == "pango; error=tls_protocol_error"


async def test_an_application_is_served_over_both(files: Path) -> None:
    life: list[str] = []

    async def app(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                life.append(stage)
                await send({"type": f"lifespan.{stage}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        text = f"{scope['http_version']} {scope['scheme']}"
        await send({"type": "http.response.body", "body": text.encode()})

    port = free_port()
    async with library.serve(app, listen=f"127.0.0.1:{port}", cert="c.pem", key="k.pem", http3=True):
        assert life == ["startup"]
        assert (await get(files, f"https://localhost:{port}/"))[1] == "3 https"
    assert life == ["startup", "shutdown"]


def test_it_is_said_what_does_not_go_together(pango: Call, files: Path) -> None:
    given = "serve --check --http3 --cert c.pem --key k.pem --listen :443"
    assert pango(f"{given} --to a:1").errors == (
        "pango: --http3: goes with --to http://HOST:PORT and https://HOST:PORT only\n"
    )
    assert pango(f"{given} --to http://a:1 --proxy-protocol-from 10.0.0.1").errors == (
        "pango: --http3: does not go with --proxy-protocol-from: there is no such header in UDP\n"
    )
    assert pango(f"{given} --to http://a:1 --listen unix:s --listen 127.0.0.1:0").errors == (
        "pango: --http3: there is no UDP port beside unix:s: expected --listen HOST:PORT\n"
        "pango: --http3: there is no UDP port beside 127.0.0.1:0: expected --listen HOST:PORT\n"
    )
    plain = pango("serve --check --http3 --plain --listen :80 --to http://a:1")
    assert plain.errors == "pango: --http3: does not go with --plain: HTTP/3 is spoken over TLS only\n"


def test_a_check_tells_of_http3(pango: Call, files: Path) -> None:
    found = pango("serve --check --http3 --cert c.pem --key k.pem --listen :443 --to h3://a:1 --to-ca ca.pem")
    assert found.code == 0
    assert "listen       :443 (every address), HTTP/3 too\n" in found.output
    assert "to           h3://a:1 (verified by ca.pem)\n" in found.output


def test_without_the_extra_it_is_said_before_anything_starts(
    pango: Call, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qh3", None)
    wanted = "needs the http3 extra: pip install proxy-llama[http3]\n"
    given = "serve --cert c.pem --key k.pem"
    assert pango(f"{given} --to h3://a:1").errors == f"pango: --to: h3:// {wanted}"
    assert wanted in pango(f"{given} --to http://a:1 --listen :443 --http3").errors


async def test_the_library_says_it_too(files: Path) -> None:
    with pytest.raises(ConfigError, match="http3: goes with to http://"):
        async with library.serve(to="a:1", listen=":443", cert="c.pem", key="k.pem", http3=True):
            pytest.fail("it was served")

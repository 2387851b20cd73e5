"""Other people's clients before the commands, over HTTP/3, and Caddy behind them."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("qh3")

from tests.cli.conftest import Site
from tests.http.h3.caddy import caddy
from tests.tls.sessions import ca_file

pytestmark = pytest.mark.peer
BIG = bytes(range(256)) * 4000


def by_curl(url: str, ca: Path, body: bytes | None = None) -> tuple[int, bytes]:
    """What curl gets that speaks nothing but HTTP/3, by ngtcp2."""
    curl = pytest.importorskip("curl_cffi")
    with curl.Session(http_version=curl.CurlHttpVersion.V3ONLY, verify=str(ca)) as session:
        answer = session.get(url) if body is None else session.post(url, data=body)
        return answer.http_version, answer.content


def by_niquests(url: str, ca: Path, body: bytes | None = None) -> tuple[int, bytes]:
    """What niquests gets at its second visit, after it was told of HTTP/3."""
    niquests = pytest.importorskip("niquests")
    with niquests.Session() as session:
        session.get(url, verify=str(ca))
        answer = (
            session.get(url, verify=str(ca)) if body is None else session.post(url, data=body, verify=str(ca))
        )
        return answer.http_version, answer.content


@pytest.mark.parametrize("fetch", [by_curl, by_niquests])
async def test_files(site: Callable[..., Site], files: Path, fetch: Callable[..., tuple[int, bytes]]) -> None:
    (files / "big").write_bytes(BIG)
    server = site("static", ".", "--access-log", "common")
    found = await asyncio.to_thread(fetch, f"https://localhost:{server.port}/big", files / "ca.pem")
    assert found == (30, BIG)
    server.expect(r'"GET /big HTTP/3" 200 1024000$')
    server.stop()


@pytest.mark.parametrize("fetch", [by_curl, by_niquests])
async def test_caddy_behind_a_reverse_proxy(
    site: Callable[..., Site],
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    fetch: Callable[..., tuple[int, bytes]],
) -> None:
    (files / "big").write_bytes(BIG)
    monkeypatch.setenv("SSL_CERT_FILE", ca_file())
    async with caddy(files) as port:
        server = site("reverse", "--to", f"h3://localhost:{port}")
        url = f"https://localhost:{server.port}"
        assert await asyncio.to_thread(fetch, f"{url}/big", files / "ca.pem") == (30, BIG)
        echoed = await asyncio.to_thread(fetch, f"{url}/echo", files / "ca.pem", BIG)
        assert echoed == (30, b"HTTP/3.0 POST " + BIG)
        server.stop()

"""Libraries of Python through the forward proxy and SOCKS5: aiohttp, httpx2, websockets, urllib."""

import asyncio
import ssl
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import InvalidProxyStatus

from tests.http.peers import DATA, SITE, Gate, Roads, digested, gate, proxied, sites
from tests.tls.sessions import ca_file, pair_files

pytestmark = pytest.mark.peer
schemes = pytest.mark.parametrize("scheme", ["http", "https"])
secured = pytest.mark.parametrize("secure", [False, True], ids=["plain gate", "TLS gate"])
USER = ("john", "secret")


def trust() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file())


@asynccontextmanager
async def way(secure: bool) -> AsyncGenerator[tuple[Gate, str]]:
    """A gate before the sites, and its URL."""
    async with sites() as roads, gate(roads, user=USER, secure=secure) as proxy:
        yield proxy, f"https://localhost:{proxy.port}" if secure else proxy.url


@schemes
@secured
async def test_aiohttp(scheme: str, secure: bool) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    async with way(secure) as (proxy, url), aiohttp.ClientSession() as session:
        options = {"proxy": url.replace("//", "//john:secret@"), "ssl": trust()}
        page = f"{scheme}://{SITE}"
        for _ in range(2):
            async with session.get(f"{page}/hello", **options) as response:
                assert await response.read() == b"hello"
        async with session.post(f"{page}/x", data=DATA, **options) as response:
            assert await response.read() == digested("POST", len(DATA), DATA)

        async def parts() -> AsyncGenerator[bytes]:
            yield DATA
            yield DATA

        async with session.put(f"{page}/x", data=parts(), **options) as response:
            assert await response.read() == digested("PUT", "chunked", DATA * 2)
        many = [session.get(f"{page}/chunks", **options) for _ in range(20)]
        for response in await asyncio.gather(*many):
            assert await response.read() == b"one two three"
        async with session.get(f"{page}/packed", **options) as response:
            assert await response.read() == DATA
        assert all(each.startswith("CONNECT" if scheme == "https" else ("GET", "P")) for each in proxy.seen)
        if scheme == "http":
            async with session.get(f"{page}/hello", proxy=url, ssl=trust()) as response:
                assert response.status == 407


@schemes
@secured
async def test_httpx2(scheme: str, secure: bool) -> None:
    httpx = pytest.importorskip("httpx2")
    async with way(secure) as (proxy, url):
        through = httpx.Proxy(url, auth=USER, ssl_context=trust() if secure else None)
        async with httpx.AsyncClient(proxy=through, verify=trust(), trust_env=False) as client:
            page = f"{scheme}://{SITE}"
            for _ in range(2):
                assert (await client.get(f"{page}/hello")).content == b"hello"
            response = await client.post(f"{page}/x", content=DATA)
            assert response.content == digested("POST", len(DATA), DATA)

            async def parts() -> AsyncGenerator[bytes]:
                yield DATA
                yield DATA

            response = await client.put(f"{page}/x", content=parts())
            assert response.content == digested("PUT", "chunked", DATA * 2)
            for response in await asyncio.gather(*[client.get(f"{page}/chunks") for _ in range(20)]):
                assert response.content == b"one two three"
            assert (await client.get(f"{page}/packed")).content == DATA
            assert (await client.get(f"{page}/moved", follow_redirects=True)).content == b"hello"
        assert all(each.startswith("CONNECT" if scheme == "https" else ("GET", "P")) for each in proxy.seen)


@schemes
async def test_urllib(scheme: str) -> None:
    def fetch(url: str) -> bytes:
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({scheme: url}), urllib.request.HTTPSHandler(context=trust())
        )
        with opener.open(f"{scheme}://{SITE}/chunks", timeout=20) as response:
            return bytes(response.read())

    async with way(False) as (proxy, url):
        assert await asyncio.to_thread(fetch, url.replace("//", "//john:secret@")) == b"one two three"
        assert len(proxy.seen) == 1


# websockets


async def talk(websocket: ServerConnection) -> None:
    async for message in websocket:
        await websocket.send(message)


@asynccontextmanager
async def websocket_sites() -> AsyncGenerator[Roads]:
    """ws://site.example/ and wss://site.example/, which echo."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair_files(SITE))
    async with (
        serve_websocket(talk, "127.0.0.1", 0) as plain,
        serve_websocket(talk, "127.0.0.1", 0, ssl=context) as secure,
    ):
        ports = [next(iter(each.sockets)).getsockname()[1] for each in (plain, secure)]
        yield Roads({f"{SITE}:80": f"127.0.0.1:{ports[0]}", f"{SITE}:443": f"127.0.0.1:{ports[1]}"})


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@pytest.mark.parametrize("kind", ["http", "https", "socks5"])
async def test_websockets(scheme: str, kind: str) -> None:
    if kind == "socks5":
        pytest.importorskip("python_socks")
    connecting = partial(connect, f"{scheme}://{SITE}/", ssl=trust() if scheme == "wss" else None)
    if kind == "https":
        connecting = partial(connecting, proxy_ssl=trust())
    async with websocket_sites() as roads, proxied(kind, roads, USER) as address:
        url = f"{kind.replace('socks5', 'socks5h')}://john:secret@{address}"
        async with connecting(proxy=url) as websocket:
            for message in ("hi", b"\x00" * 300_000, "x" * 70_000):
                await websocket.send(message)
                assert await websocket.recv() == message
        if kind != "socks5":
            with pytest.raises(InvalidProxyStatus, match="407"):
                await connecting(proxy=f"{kind}://{address}")
    assert roads.asked == [f"{SITE}:{443 if scheme == 'wss' else 80}"]


@schemes
async def test_httpx2_through_socks5(scheme: str) -> None:
    httpx = pytest.importorskip("httpx2")
    pytest.importorskip("socksio")
    async with sites() as roads, proxied("socks5", roads, USER) as address:
        through = f"socks5h://john:secret@{address}"
        async with httpx.AsyncClient(proxy=through, verify=trust(), trust_env=False) as client:
            assert (await client.get(f"{scheme}://{SITE}/chunks")).content == b"one two three"
            response = await client.post(f"{scheme}://{SITE}/x", content=DATA)
            assert response.content == digested("POST", len(DATA), DATA)
    assert set(roads.asked) == {f"{SITE}:{443 if scheme == 'https' else 80}"}

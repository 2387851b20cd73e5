"""Chromium through the forward proxy and through SOCKS5: pages, uploads, events, websockets."""

import asyncio
import json
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from llama import http
from llama.http import Request, RequestHandler, Response
from tests.http.browser import FETCHES, chromium, fingerprint
from tests.http.peers import SITE, Roads, digest, digested, proxied, sites
from tests.tls.sessions import pair_files

pytestmark = pytest.mark.peer
PARTS = 8
PAGE = (
    """<!doctype html><title>page</title><script>"""
    + FETCHES
    + """const all = async () => ({
  parts: (await Promise.all([...Array(PARTS).keys()].map(n => text(`/part?${n}`)))).join("").length,
  sent: await text("/x", {method: "POST", body: "x".repeat(300000)}),
  events: await events(),
  echo: await echo(),
})
all().catch(error => String(error)).then(told => text("/told", {method: "POST", body: JSON.stringify(told)}))
</script>""".replace("PARTS", str(PARTS))
)
WANTED = {
    "parts": PARTS * 100_000,
    "sent": digested("POST", 300_000, b"x" * 300_000).decode(),
    "events": ["0", "1", "2"],
    "echo": "hi",
}


class Page:
    """What the page asks for; `told` is what it says it got."""

    def __init__(self, echo: RequestHandler) -> None:
        self.echo = echo
        self.told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.heard = asyncio.Queue[None]()
        self.versions: dict[str, str] = {}

    async def __call__(self, request: Request) -> Response:
        self.versions[request.path.split("?")[0]] = request.version
        match request.path.split("?")[0]:
            case "/":
                return Response(200, {"Content-Type": "text/html"}, PAGE)
            case "/part":
                return Response(body=[b"x" * 50_000] * 2)
            case "/events":
                return Response(200, {"Content-Type": "text/event-stream"}, self.events())
            case "/heard":
                self.heard.put_nowait(None)
                return Response(204)
            case "/echo":
                return await self.echo(request)
            case "/told":
                if not self.told.done():
                    self.told.set_result(json.loads(await request.body.read()))
                return Response(204)
            case "/x":
                return await digest(request)
            case _:
                return Response(404)

    async def events(self) -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"data: %d\n\n" % number
            await self.heard.get()


def browser(profile: Path, proxy: str, url: str) -> AbstractAsyncContextManager[Process]:
    """Chromium at a page behind a proxy."""
    known = ",".join(fingerprint(pair_files(name)[0]) for name in (SITE, "localhost"))
    trust = f"--ignore-certificate-errors-spki-list={known}"
    return chromium(url, profile, trust, f"--proxy-server={proxy}")


async def talk(websocket: ServerConnection) -> None:
    async for message in websocket:
        await websocket.send(message)


@asynccontextmanager
async def world() -> AsyncGenerator[tuple[Page, Roads]]:
    async with serve_websocket(talk, "127.0.0.1", 0) as echo:
        port = next(iter(echo.sockets)).getsockname()[1]
        page = Page(http.reverse_proxy(f"http://127.0.0.1:{port}"))
        async with sites(page) as roads:
            yield page, roads


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("http", "http"),
        ("http", "https"),
        ("https", "http"),
        ("https", "https"),
        ("socks5", "http"),
        ("socks5", "https"),
    ],
)
async def test_a_page_with_all_that_pages_do(kind: str, scheme: str, tmp_path: Path) -> None:
    async with (
        asyncio.timeout(30),
        world() as (page, roads),
        proxied(kind, roads) as proxy,
        browser(tmp_path, f"{kind}://{proxy}", f"{scheme}://{SITE}/"),
    ):
        assert await page.told == WANTED
        version = "2" if scheme == "https" else "1.1"
        assert page.versions.pop("/favicon.ico", version) == version
        assert page.versions == dict.fromkeys(
            ("/", "/part", "/x", "/events", "/heard", "/echo", "/told"), version
        )
    assert f"{SITE}:{443 if scheme == 'https' else 80}" in roads.asked

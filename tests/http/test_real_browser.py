"""Chromium through the forward proxy and through SOCKS5: pages, uploads, events, websockets."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket

from llama import http
from llama.http import Exchange, Request, Response
from tests.http.peers import CLEAN, SITE, Roads, digest, digested, proxied, sites
from tests.socks5.programs import installed
from tests.tls.sessions import pair_files

pytestmark = pytest.mark.peer
PARTS = 8
PAGE = """<!doctype html><title>page</title><script>
const text = async (path, options) => (await fetch(path, options)).text()
const events = () => new Promise(done => {
  const got = [], source = new EventSource("/events")
  source.onmessage = event => {
    got.push(event.data)
    text("/heard")
    if (got.length == 3) { source.close(); done(got) }
  }
})
const echo = () => new Promise((done, failed) => {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/echo`)
  socket.onopen = () => socket.send("hi")
  socket.onmessage = event => { done(event.data); socket.close() }
  socket.onerror = failed
})
const all = async () => ({
  parts: (await Promise.all([...Array(PARTS).keys()].map(n => text(`/part?${n}`)))).join("").length,
  sent: await text("/x", {method: "POST", body: "x".repeat(300000)}),
  events: await events(),
  echo: await echo(),
})
all().catch(error => String(error)).then(told => text("/told", {method: "POST", body: JSON.stringify(told)}))
</script>""".replace("PARTS", str(PARTS))
WANTED = {
    "parts": PARTS * 100_000,
    "sent": digested("POST", 300_000, b"x" * 300_000).decode(),
    "events": ["0", "1", "2"],
    "echo": "hi",
}
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",  # without it, headless Chromium leaves once the page is loaded
)


class Page:
    """What the page asks for; `told` is what it says it got."""

    def __init__(self, echo: Exchange) -> None:
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


def fingerprint(file: str) -> str:
    """The hash of a certificate's key, by which Chromium is told to trust it."""
    key = x509.load_pem_x509_certificate(Path(file).read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


@asynccontextmanager
async def chromium(profile: Path, proxy: str, url: str) -> AsyncGenerator[None]:
    """Chromium at a page, for as long as the block lasts."""
    known = ",".join(fingerprint(pair_files(name)[0]) for name in (SITE, "localhost"))
    options = (f"--user-data-dir={profile}", f"--ignore-certificate-errors-spki-list={known}")
    process = await asyncio.create_subprocess_exec(
        *(installed("chromium"), *QUIET, *options, f"--proxy-server={proxy}", url),
        stderr=asyncio.subprocess.DEVNULL,
        env=CLEAN,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


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
        chromium(tmp_path, f"{kind}://{proxy}", f"{scheme}://{SITE}/"),
    ):
        assert await page.told == WANTED
        version = "2" if scheme == "https" else "1.1"
        assert page.versions.pop("/favicon.ico", version) == version
        assert page.versions == dict.fromkeys(
            ("/", "/part", "/x", "/events", "/heard", "/echo", "/told"), version
        )
    assert f"{SITE}:{443 if scheme == 'https' else 80}" in roads.asked

"""Chromium over HTTP/3: it leaves its connection ids empty."""

import asyncio
import json
from asyncio.subprocess import Process
from collections import Counter
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

pytest.importorskip("qh3")

from llama import http, serve, stack, tls
from llama.http import Request, Response
from tests.http.browser import chromium, fingerprint
from tests.http.peers import SITE, digest, digested
from tests.tls.sessions import pair_files

pytestmark = pytest.mark.peer
SENT = 3_000_000
BIG = 20 << 20
PARTS = 24
HEAD = """<!doctype html><title>page</title><script>
const text = async (path, options) => (await fetch(path, {cache: "no-store", ...options})).text()
const tell = told => text("/told", {method: "POST", body: JSON.stringify(told)})
const pause = seconds => new Promise(done => setTimeout(done, seconds * 1000))
"""
ALL = f"""{HEAD}
const all = async () => ({{
  parts: (await Promise.all([...Array({PARTS}).keys()].map(n => text(`/part?${{n}}`)))).join("").length,
  sent: await text("/x", {{method: "POST", body: "x".repeat({SENT})}}),
  big: (await (await fetch("/big")).arrayBuffer()).byteLength,
}})
all().catch(error => String(error)).then(tell)
</script>"""
AGAIN = f"""{HEAD}
pause(1.5).then(() => text("/part")).then(part => part.length, error => String(error)).then(tell)
</script>"""
LOOK = f"""{HEAD}
const look = async () => {{
  for (let n = 0; n < 100; n++) {{
    if (await text("/version") == "3") return "3"
    await pause(0.1)
  }}
  return "never"
}}
look().catch(error => String(error)).then(tell)
</script>"""


class Page:
    """What the page asks for, by which version; `told` is what it says in the end."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.asked = Counter[tuple[str, str]]()

    async def __call__(self, request: Request) -> Response:
        path = request.path.split("?")[0]
        self.asked[path, request.version] += 1
        match path:
            case "/":
                return Response(200, {"Content-Type": "text/html"}, self.page)
            case "/part":
                return Response(body=[b"x" * 50_000] * 2)
            case "/big":
                return Response(body=[bytes(1 << 20)] * (BIG >> 20))
            case "/version":
                return Response(body=request.version)
            case "/x":
                return await digest(request)
            case "/told":
                self.told.set_result(json.loads(await request.body.read()))
                return Response(204)
            case _:
                return Response(404)


def browser(profile: Path, port: int, *options: str) -> AbstractAsyncContextManager[Process]:
    """Chromium at the page."""
    known = fingerprint(pair_files(SITE)[0])
    trust = f"--ignore-certificate-errors-spki-list={known}"
    there = f"--host-resolver-rules=MAP {SITE} 127.0.0.1"
    return chromium(f"https://{SITE}:{port}/", profile, trust, there, "--enable-quic", *options)


async def told(page: Page, profile: Path, **options: float) -> object:
    """What the page says, of a server that is asked by HTTP/3 from the start."""
    async with (
        asyncio.timeout(60),
        serve(http.h3_server("127.0.0.1:0", page, *pair_files(SITE), **options)) as server,  # type: ignore[arg-type]  # numbers
    ):
        port = int(server.addresses[0].rpartition(":")[2])
        async with browser(profile, port, f"--origin-to-force-quic-on={SITE}:{port}"):
            return await page.told


@pytest.mark.parametrize("options", [{}, {"retry_threshold": 0}], ids=["at once", "asked back"])
async def test_a_page_with_many_requests_and_large_ones(options: dict[str, float], tmp_path: Path) -> None:
    page = Page(ALL)
    assert await told(page, tmp_path, **options) == {
        "parts": PARTS * 100_000,
        "sent": digested("POST", SENT, b"x" * SENT).decode(),
        "big": BIG,
    }
    assert {version for _, version in page.asked} == {"3"}
    assert page.asked["/part", "3"] == PARTS


async def test_a_page_goes_on_after_its_connection_was_idle_for_too_long(tmp_path: Path) -> None:
    assert await told(Page(AGAIN), tmp_path, idle_timeout=0.5) == 100_000


async def test_the_way_to_http3_is_found_by_what_http1_says(tmp_path: Path) -> None:
    page = Page(LOOK)
    files = pair_files(SITE)
    async with asyncio.timeout(60), serve(http.h3_server("127.0.0.1:0", page, *files)) as server:
        port = int(server.addresses[0].rpartition(":")[2])
        secured = stack(tls.server(*files), http.server(), http.alt_svc(port), page)
        # The option makes it take certificates of an unknown authority for that host, at any port.
        allowed = f"--origin-to-force-quic-on={SITE}:1"
        async with serve(secured, listen="127.0.0.1:0") as first, browser(tmp_path, first.port, allowed):
            assert await page.told == "3"
    assert page.asked["/", "3"] == 0

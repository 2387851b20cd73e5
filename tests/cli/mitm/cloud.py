"""A site for all who browse through `llama mitm`: pages, WebSockets, packages, repositories."""

import asyncio
import base64
import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from llama import http, serve, stack, tls, ws
from llama.http import Request, RequestHandler, Response
from tests.cli.conftest import Llama, Start
from tests.http.browser import FETCHES
from tests.http.peers import Roads, digest

SITE = "site.example"
HOOK = """
from llama import layer

@layer
async def rewrite(request, inner):
    response = await inner(request)
    if response.headers.get("content-type", "").startswith("text/"):
        response.body = response.body.replace(b"cloud", b"llama")
    return response

layers = [rewrite]
"""
PARTS = 8
PAGE = (
    """<!doctype html><title>page</title><p>from the cloud</p><script>"""
    + FETCHES
    + """const all = async () => ({
  page: document.querySelector("p").textContent,
  parts: (await Promise.all([...Array(PARTS).keys()].map(n => text(`/part?${n}`)))).join("").length,
  sent: await text("/x", {method: "POST", body: "x".repeat(300000)}),
  events: await events(),
  echo: await echo(),
  protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol,
})
all().catch(error => String(error)).then(told => text("/told", {method: "POST", body: JSON.stringify(told)}))
</script>""".replace("PARTS", str(PARTS))
)


def wheel() -> bytes:
    """A package with nothing in it."""
    made = io.BytesIO()
    folder = "cloudy-1.0.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: cloudy\nVersion: 1.0\n")
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{folder}/RECORD", "")
    return made.getvalue()


def tarball() -> bytes:
    """The same for npm."""
    made = io.BytesIO()
    data = json.dumps({"name": "cloudy", "version": "1.0.0"}).encode()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


WHEEL, TARBALL = wheel(), tarball()


async def packages(request: Request) -> Response:
    """The indexes of pip and of npm, with one package."""
    match request.path:
        case "/simple/cloudy/":
            link = '<a href="/cloudy-1.0-py3-none-any.whl">cloudy</a>'
            return Response(200, {"Content-Type": "application/vnd.pypi.simple.v1+html"}, link)
        case "/cloudy-1.0-py3-none-any.whl":
            return Response(200, {"Content-Type": "application/zip"}, WHEEL)
        case "/cloudy":
            digest = base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
            dist = {"tarball": f"https://{SITE}/cloudy-1.0.0.tgz", "integrity": f"sha512-{digest}"}
            version = {"name": "cloudy", "version": "1.0.0", "dist": dist}
            told = {"name": "cloudy", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            return Response(200, {"Content-Type": "application/json"}, json.dumps(told))
        case "/cloudy-1.0.0.tgz":
            return Response(200, {"Content-Type": "application/octet-stream"}, TARBALL)
        case _:
            return Response(404)


@dataclass
class Repository:
    """A repository of git over its smart protocol."""

    folder: Path

    async def __call__(self, request: Request) -> Response:
        path, _, query = request.path.partition("?")
        service = query.removeprefix("service=") if path.endswith("/info/refs") else path.rpartition("/")[2]
        name = service.removeprefix("git-")
        fields = {"Cache-Control": "no-cache"}
        if path.endswith("/info/refs"):
            line = f"# service={service}\n"
            told = await self.git(name, request, "--advertise-refs")
            kind = f"application/x-{service}-advertisement"
            first = b"" if _protocol(request) == "version=2" else f"{len(line) + 4:04x}{line}0000".encode()
            return Response(200, {**fields, "Content-Type": kind}, first + told)
        said = await request.body.decoded().read(1 << 24)
        kind = f"application/x-{service}-result"
        return Response(200, {**fields, "Content-Type": kind}, await self.git(name, request, said=said))

    async def git(self, name: str, request: Request, *options: str, said: bytes = b"") -> bytes:
        process = await asyncio.create_subprocess_exec(
            *("git", name, "--stateless-rpc", *options, str(self.folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "GIT_PROTOCOL": _protocol(request)},
        )
        return (await process.communicate(said))[0]


def _protocol(request: Request) -> str:
    return request.headers.get("git-protocol", "")


PIECE = (b"from the cloud " * 4400)[: 1 << 16]


async def _large(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield PIECE


async def echo(socket: ws.WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


class Cloud:
    """Everything; `told` is what a page says it got."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[object] = asyncio.Queue()
        self.seen: list[tuple[str, str]] = []
        """The version and path of each request."""
        self._heard: asyncio.Queue[None] = asyncio.Queue()
        self._echo: RequestHandler = ws.server()(echo)
        self.repository: RequestHandler = packages

    async def __call__(self, request: Request) -> Response:
        path, _, query = request.path.partition("?")
        self.seen.append((request.version, path))
        match path:
            case "/":
                return Response(200, {"Content-Type": "text/html"}, PAGE)
            case "/part":
                return Response(body=[b"x" * 50_000] * 2)
            case "/events":
                return Response(200, {"Content-Type": "text/event-stream"}, self._events())
            case "/heard":
                self._heard.put_nowait(None)
                return Response(204)
            case "/echo":
                return await self._echo(request)
            case "/told":
                self.told.put_nowait(json.loads(await request.body.read()))
                return Response(204)
            case "/x":
                return await digest(request)
            case "/text":
                text = f"{request.version} from the cloud".encode()
                return Response(200, {"Content-Type": "text/plain"}, [text] * 2)
            case "/large":
                return Response(200, {"Content-Type": "text/plain"}, _large(int(query)))
            case _:
                return await (self.repository if path.startswith("/made.git/") else packages)(request)

    async def _events(self) -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"data: cloud %d\n\n" % number
            await self._heard.get()


@dataclass
class Looked:
    """`llama mitm` before the site."""

    server: Llama
    cloud: Cloud
    roads: Roads
    scheme: str
    """Of the proxy's URL, with names resolved by it."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.server.address}"


@asynccontextmanager
async def looked_into(start: Start, folder: Path, mode: str, *options: str) -> AsyncGenerator[Looked]:
    """The command with a hook that rewrites, before https://site.example/ and http://site.example/.

    `ca/ca.pem` is to be trusted. It finds the site by a proxy.
    """
    (folder / "hooks.py").write_text(HOOK)
    authority = tls.CertificateAuthority.create(name="site")
    authority.write_pem(folder / "site-ca.pem")
    cert, key = authority.issue(SITE).write(folder / "site")
    cloud = Cloud()
    handler = stack(http.server(), cloud)
    async with (
        serve(handler, listen="127.0.0.1:0") as plain,
        serve(tls.server(cert, key)(handler), listen="127.0.0.1:0") as secure,
    ):
        roads = Roads({f"{SITE}:80": plain.address, f"{SITE}:443": secure.address})
        async with serve(stack(http.server(), http.proxy(connect=roads)), listen="127.0.0.1:0") as via:
            given = (
                *("--mode", mode, "--ca", str(folder / "ca"), "--upstream-ca", str(folder / "site-ca.pem")),
                *("--script", str(folder / "hooks.py"), "--via", f"http://{via.address}", *options),
            )
            server = await asyncio.to_thread(start, "mitm", *given)
            try:
                yield Looked(server, cloud, roads, {"socks5": "socks5h"}.get(mode, mode))
            finally:
                await asyncio.to_thread(server.stop)

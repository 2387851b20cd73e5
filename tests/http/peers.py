"""What other people's programs are put through: a site, a forward proxy, a reverse proxy."""

import asyncio
import gzip
import hashlib
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from llama import (
    ConnectionHandler,
    Connector,
    Stream,
    Target,
    UnreachableError,
    http,
    layer,
    serve,
    socks5,
    stack,
    tcp,
    tls,
)
from llama.http import Request, RequestHandler, Response
from tests.socks5.programs import installed
from tests.tls.sessions import pair_files

PATIENCE = 30.0
DATA = bytes(range(256)) * 1000
PACKED = gzip.compress(DATA, mtime=0)
SITE = "site.example"
SETTINGS = ("PIP_", "GIT_", "NPM_", "NODE_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_")
CLEAN = {
    **{
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.upper().startswith(SETTINGS)
    },
    "LC_ALL": "C",
}
"""The environment without what sets proxies and such."""


class Done(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    out: bytes
    err: bytes


async def program(
    name: str | Path,
    *arguments: str | Path,
    stdin: bytes = b"",
    folder: Path | None = None,
    variables: Mapping[str, str | Path] | None = None,
) -> Done:
    """Run a program to its end beside the loop, with no proxy in its environment but those given."""
    command = [installed(str(name)), *map(str, arguments)]
    env = {**CLEAN, **{each: str(value) for each, value in (variables or {}).items()}}

    def run() -> Done:
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=PATIENCE, check=False, cwd=folder, env=env
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return await asyncio.to_thread(run)


async def curl(*arguments: str | Path, stdin: bytes = b"") -> Done:
    return await program("curl", "-qsS", "--max-time", "20", *arguments, stdin=stdin)


@dataclass
class Roads:
    """A connector that knows where `HOST:PORT` is, and keeps what it was asked for."""

    ways: dict[str, str]
    asked: list[str] = field(default_factory=list[str])
    connect: Connector = field(default_factory=tcp.connect)

    __name__ = "roads"

    async def __call__(self, target: Target, /) -> Stream:
        self.asked.append(str(target))
        if (address := self.ways.get(str(target))) is None:
            raise UnreachableError(f"there is no {target}")
        return await self.connect(Target.parse(address))


async def site(request: Request) -> Response:
    """A page for each thing that can be asked for; what is not known tells how it was asked for."""
    page = request.path.split("?")[0]
    if page == "/hints":
        await request.send_informational(103, {"Link": "</style.css>; rel=preload"})
        return Response(body=b"hinted")
    if page == "/moved":
        return Response(302, {"Location": "/hello"})
    if page == "/nothing":
        return Response(204)
    if page == "/chunks":
        return Response(body=[b"one ", b"two ", b"three"])
    if page == "/packed":
        return Response(200, {"Content-Encoding": "gzip"}, PACKED)
    if page == "/hello":
        return Response(body=b"hello")
    return await digest(request)


async def digest(request: Request) -> Response:
    """What came: the method, how the body was framed, and a hash of it."""
    total = hashlib.sha256()
    async for chunk in request.body:
        total.update(chunk)
    framing = "chunked" if "transfer-encoding" in request.headers else request.headers.get("content-length")
    return Response(body=f"{request.method} {framing} {total.hexdigest()}")


def digested(method: str, framing: str | int | None, data: bytes) -> bytes:
    """What `digest` says of it."""
    return f"{method} {framing} {hashlib.sha256(data).hexdigest()}".encode()


@asynccontextmanager
async def sites(page: RequestHandler = site, files: Path | None = None) -> AsyncGenerator[Roads]:
    """http://site.example/ and https://site.example/, as a connector; `files` are below /files/."""
    if files is not None:
        shown = stack(http.rewrite(strip_prefix="/files"), http.static(files))
        page = http.route(("/files/{path...}", shown), default=page)
    handler = stack(http.server(), page)
    secured = tls.server(*pair_files(SITE))(handler)
    async with serve(handler, listen="127.0.0.1:0") as plain, serve(secured, listen="127.0.0.1:0") as secure:
        yield Roads({f"{SITE}:80": plain.address, f"{SITE}:443": secure.address})


@dataclass
class Gate:
    """A forward proxy: where it is, and what it was asked for."""

    address: str
    port: int
    seen: list[str]
    """Each request's method and URL."""
    heads: list[http.Headers]

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@asynccontextmanager
async def gate(
    connect: Connector, *, user: tuple[str, str] | None = None, secure: bool = False
) -> AsyncGenerator[Gate]:
    """A forward proxy that asks for a user, if given, and takes its clients by TLS, if `secure`."""
    seen: list[str] = []
    heads: list[http.Headers] = []

    @layer
    async def note(request: Request, inner: RequestHandler) -> Response:
        seen.append(f"{request.method} {request.url}")
        heads.append(request.headers.copy())
        return await inner(request)

    proxy: RequestHandler = http.proxy(connect=connect)
    if user is not None:
        proxy = http.proxy_auth(dict([user]))(proxy)
    handler: ConnectionHandler = stack(http.server(), note, proxy)
    if secure:
        handler = tls.server(*pair_files("localhost"))(handler)
    async with serve(handler, listen="127.0.0.1:0") as serving:
        yield Gate(serving.address, serving.port, seen, heads)


@asynccontextmanager
async def proxied(kind: str, connect: Connector, user: tuple[str, str] | None = None) -> AsyncGenerator[str]:
    """The address of a proxy of a kind: http, https or socks5."""
    if kind == "socks5":
        handler = socks5.server(auth=dict([user]) if user is not None else None, connect=connect)
        async with serve(handler, listen="127.0.0.1:0") as serving:
            yield serving.address
    else:
        async with gate(connect, user=user, secure=kind == "https") as proxy:
            yield f"localhost:{proxy.port}" if kind == "https" else proxy.address


@asynccontextmanager
async def reverse(to: str, *layers: Callable[[RequestHandler], RequestHandler]) -> AsyncGenerator[str]:
    """A reverse proxy, by its URL."""
    exchange: RequestHandler = http.reverse_proxy(to)
    for each in reversed(layers):
        exchange = each(exchange)
    async with serve(stack(http.server(), exchange), listen="127.0.0.1:0") as serving:
        yield f"http://{serving.address}"


@asynccontextmanager
async def started(
    process: asyncio.subprocess.Process, output: asyncio.StreamReader | None, sign: bytes
) -> AsyncGenerator[None]:
    """A server, from when it has said this until the block is over."""
    assert output is not None
    said = b""
    try:
        async with asyncio.timeout(20):
            while sign not in said:
                line = await output.readline()
                assert line, said.decode()
                said += line
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()

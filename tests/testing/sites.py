"""A site for clients that block: in a thread of its own, in the clear and in TLS."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llama import http, serve, stack, tls, ws
from llama.http import Request, Response
from llama.testing._fixtures.background_server import Background
from llama.tls import CertificateAuthority


async def echo(socket: ws.WebSocket) -> None:
    async for message in socket:
        await socket.send(message if isinstance(message, bytes) else f"echo {message}")


speak = stack(ws.server(), echo)


@dataclass
class Site:
    """Where it is, and how often it was asked."""

    http: str = ""
    https: str = ""
    ca_file: Path = Path()
    asked: list[str] = field(default_factory=list[str])

    async def __call__(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.path}")
        if request.upgrade_protocol == "websocket":
            return await speak(request)
        text = {"Content-Type": "text/plain"}
        match request.path.partition("?")[0]:
            case "/gzip":
                return Response(200, {**text, "Content-Encoding": "gzip"}, gzip.compress(b"hello " * 100))
            case "/chunks":
                return Response(200, text, [b"hello "] * 100)
            case "/binary":
                return Response(200, {"Content-Type": "image/png"}, bytes(range(256)) * 4)
            case "/endless":
                return Response(200, text, _endless())
            case "/events":
                return Response(200, {"Content-Type": "text/event-stream"}, _events())
            case "/moved":
                return Response(302, {"Location": "/landed"})
            case "/count":
                return Response(200, text, str(len(self.asked)))
            case "/login":
                said = '{"access_token": "s3cret-t0ken-1", "user": {"name": "john", "password": "hunter22"}}'
                headers = [("Content-Type", "application/json"), ("Set-Cookie", "sid=abcdef123456; Path=/")]
                return Response(200, headers, said)
            case "/echo":
                return Response(
                    200, {"Content-Type": request.headers.get("content-type", "")}, await request.body.read()
                )
            case "/whoami":
                return Response(200, text, f"you are {request.headers.get('authorization')}")
            case _:
                return Response(200, text, f"{request.method} {request.path}")


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b"hello "
        await asyncio.sleep(0.001)


async def _events() -> AsyncIterator[bytes]:
    for number in range(3):
        yield f"data: {number}\n\n".encode()
        await asyncio.sleep(0)


@contextmanager
def site(folder: Path) -> Generator[Site]:
    """The site, while the block runs."""
    made = Site(ca_file=folder / "site-ca.pem")
    ca = CertificateAuthority.create(name="site")
    ca.write_pem(made.ca_file)
    certificate, key = ca.issue("localhost", "127.0.0.1").write(folder / "site")
    clear = Background(lambda: serve(stack(http.server(), made), listen="127.0.0.1:0", grace=1), "site")
    secure = Background(
        lambda: serve(
            stack(tls.server(certificate, key), http.server(), made), listen="127.0.0.1:0", grace=1
        ),
        "https site",
    )
    made.http = f"http://127.0.0.1:{clear.start().port}"
    try:
        made.https = f"https://localhost:{secure.start().port}"
        try:
            yield made
        finally:
            secure.stop()
    finally:
        clear.stop()

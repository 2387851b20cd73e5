"""Both sides of WebSockets for these tests: servers on real sockets, and raw clients."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from llama import Stream, Target, http, serve, stack, tcp, ws
from llama.http import RequestHandler
from llama.ws import WebSocket
from llama.ws._wire import Event, Frames

KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = "BACScCJPNqyz+UBoqMH89VmURoA="


async def echo(socket: WebSocket) -> None:
    """Says everything back."""
    async for message in socket:
        await socket.send(message)


@asynccontextmanager
async def serving(exchange: RequestHandler, *outer: Any) -> AsyncGenerator[str]:
    """Serve an exchange, perhaps within layers of streams; gives its HOST:PORT."""
    handler = http.server()(exchange)
    for layer in reversed(outer):
        handler = layer(handler)
    async with serve(tcp.server("127.0.0.1:0", handler)) as server:
        yield str(server.addresses[0])


@asynccontextmanager
async def echoing(**options: Any) -> AsyncGenerator[str]:
    async with serving(stack(ws.server(**options), echo)) as address:
        yield address


def handshake(*lines: str, path: str = "/", host: str = "a") -> bytes:
    """A request for a WebSocket."""
    usual = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
    ]
    return "".join(f"{line}\r\n" for line in [*usual, *lines, ""]).encode("latin-1")


class Raw:
    """A client that says what it likes."""

    def __init__(self, stream: Stream, *, max_size: int = 1 << 24) -> None:
        self.stream = stream
        self.frames = Frames(is_client=True, deflate=None, max_size=max_size)
        self.heard: list[Event] = []

    async def open(self, *lines: str, path: str = "/", host: str = "a") -> bytes:
        """Shake hands; the response's head."""
        await self.stream.write(handshake(*lines, path=path, host=host))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = await self.stream.read(1)
            if not data:
                break
            head += data
        return head

    async def say(self, data: bytes) -> None:
        await self.stream.write(data)

    async def hear(self) -> Event | None:
        """What comes next; None at the end."""
        while not self.heard:
            data = await self.stream.read()
            if not data:
                return None
            self.heard += self.frames.feed(data)
        return self.heard.pop(0)


async def open_stream(address: str) -> Stream:
    return await tcp.connect()(Target.parse(address))


@asynccontextmanager
async def raw(address: str) -> AsyncGenerator[Raw]:
    stream = await open_stream(address)
    try:
        yield Raw(stream)
    finally:
        stream.abort()

"""Upstreams for clients: what answers a connection is a handler, over TCP or in memory."""

import contextlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from llama import ConnectionHandler, Stream, Target
from llama._core.shutdown import Shutdown
from llama.http import Request, client
from llama.http._client.client import Client
from llama.tcp._io.open_stream import open_stream
from llama.testing import memory_pair

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
URL = "http://a.example/"


def tcp_pair() -> tuple[Stream, Stream]:
    """Two connected TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    return open_stream(ours, "upstream"), open_stream(theirs, "client")


@dataclass
class Upstream:
    """A connector whose other end is a handler, of which each connection is served by a task."""

    handler: ConnectionHandler
    pair: Callable[[], tuple[Stream, Stream]] = memory_pair
    targets: list[Target] = field(default_factory=list[Target])
    streams: list[Stream] = field(default_factory=list[Stream])
    owner: Shutdown = field(default_factory=Shutdown.current)

    __name__ = "upstream"

    async def __call__(self, target: Target, /) -> Stream:
        ours, theirs = self.pair()
        self.targets.append(target)
        self.streams.append(theirs)
        self.owner.spawn(self._serve(theirs))
        return ours

    async def _serve(self, stream: Stream) -> None:
        with contextlib.suppress(OSError, EOFError):
            try:
                await self.handler(stream)
                await stream.aclose()
            finally:
                stream.abort()

    @property
    def opened(self) -> int:
        return len(self.targets)


async def head_of(stream: Stream) -> bytes:
    """A request's head, with its empty line."""
    got = b""
    while b"\r\n\r\n" not in got:
        data = await stream.read(1 if got.endswith((b"\r", b"\n")) else 4096)
        if not data:
            raise EOFError
        got += data
    end = got.index(b"\r\n\r\n") + 4
    if got[end:]:
        stream.unread(got[end:])
    return got[:end]


def answering(*answers: bytes) -> ConnectionHandler:
    """Answers each request of a connection by the next of these, the last again and again."""

    async def handler(stream: Stream) -> None:
        position = 0
        while True:
            try:
                head = await head_of(stream)
            except EOFError:
                return
            if length := re.search(rb"(?i)content-length: (\d+)", head):
                left = int(length[1])
                while left:
                    left -= len(await stream.read(left))
            await stream.write(answers[min(position, len(answers) - 1)])
            position += 1

    return handler


def get(url: str = URL) -> Request:
    return Request("GET", url)


async def fetch(client: Client, request: Request | None = None) -> bytes:
    """The body of an answer that is 200."""
    response = await client(request or get())
    assert response.status == 200
    return await response.body.read()


__all__ = ["OK", "URL", "Client", "Upstream", "answering", "client", "fetch", "get", "head_of", "tcp_pair"]

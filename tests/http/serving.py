"""A client of `http.server` in the same process, over a pair of sockets."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llama._core.server import PeerAddress
from llama._core.shutdown import Shutdown
from llama._core.stream import ConnectionHandler
from llama.http._messages.message import Request, RequestHandler, Response
from llama.tcp._io.stream import SocketStream

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


async def hello(request: Request) -> Response:
    """Answers anything."""
    return Response(200, body=b"hello")


async def echo(request: Request) -> Response:
    """Sends the body back as it comes."""
    return Response(200, body=request.body)


@dataclass
class Client:
    """The client's end of a connection, and what the server's end is run by."""

    stream: SocketStream
    shutdown: Shutdown
    served: asyncio.Task[None]

    async def say(self, data: bytes) -> None:
        await self.stream.write(data)

    async def hear(self, expected: bytes) -> None:
        """Read just as many bytes as expected; Date fields do not count."""
        got = b""
        while plain(got) != expected and len(got) < len(expected) + 37:
            data = await self.stream.read(1)
            if not data:
                break
            got += data
        if plain(got) != expected:
            raise AssertionError(f"heard {got!r}, expected {expected!r}")

    async def hear_end(self) -> bytes:
        """Everything until the server closes."""
        got: list[bytes] = []
        while data := await self.stream.read():
            got.append(data)
        return plain(b"".join(got))


def plain(raw: bytes) -> bytes:
    """Without the Date fields."""
    return re.sub(rb"Date: [^\r]*GMT\r\n", b"", raw)


@asynccontextmanager
async def client_of(handler: ConnectionHandler) -> AsyncGenerator[Client, None]:
    """Connect to a handler; leaving the block closes the connection and waits for the handler's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    stream, served = SocketStream(ours, "server"), SocketStream(theirs, "192.0.2.1:5")
    served.extensions.set(PeerAddress("192.0.2.1", 5))
    async with Shutdown() as shutdown:
        client = Client(stream, shutdown, shutdown.spawn(_serve(handler, served)))
        try:
            async with asyncio.timeout(10):
                yield client
        finally:
            stream.abort()
            await asyncio.wait([client.served])
        client.served.result()


async def _serve(handler: ConnectionHandler, stream: SocketStream) -> None:
    try:
        await handler(stream)
        await stream.aclose()
    except OSError:
        pass
    finally:
        stream.abort()


def talk(handler: ConnectionHandler, *said: bytes) -> bytes:
    """Say all that, and hear everything until the server closes."""

    async def main() -> bytes:
        async with client_of(handler) as client:
            for each in said:
                await client.say(each)
            return await client.hear_end()

    return asyncio.run(main())


def get(path: str = "/", *lines: str, version: str = "1.1", method: str = "GET") -> bytes:
    """A request without a body."""
    return "".join(
        f"{each}\r\n" for each in (f"{method} {path} HTTP/{version}", "Host: a", *lines, "")
    ).encode()


def last(path: str = "/", *lines: str, method: str = "GET") -> bytes:
    """The same, after which the connection closes."""
    return get(path, "Connection: close", *lines, method=method)


def exchange_of(response: Response) -> RequestHandler:
    """Always answers the same."""

    async def answer(request: Request) -> Response:
        return response

    return answer

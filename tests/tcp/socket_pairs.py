"""Connected streams over each kind of socket."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from llama import Stream
from llama.tcp._io.open_stream import open_stream


def tcp_sockets(host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """A connected pair over loopback."""
    with socket.create_server((host, 0)) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
    return client, server


def unix_sockets() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


@asynccontextmanager
async def over_tcp() -> AsyncGenerator[tuple[Stream, Stream]]:
    async with streams(*tcp_sockets()) as pair:
        yield pair


@asynccontextmanager
async def over_socketpair() -> AsyncGenerator[tuple[Stream, Stream]]:
    async with streams(*unix_sockets()) as pair:
        yield pair


@asynccontextmanager
async def streams(one: socket.socket, two: socket.socket) -> AsyncGenerator[tuple[Stream, Stream]]:
    """Streams over two sockets, which are aborted at the end."""
    for each in (one, two):
        each.setblocking(False)
    pair = open_stream(one, "one"), open_stream(two, "two")
    try:
        yield pair
    finally:
        for stream in pair:
            stream.abort()
        for _ in range(5):  # a loop that was asked to receive has the descriptor a little longer
            await asyncio.sleep(0)

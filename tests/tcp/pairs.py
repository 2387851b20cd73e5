"""Connected streams over each kind of socket."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from llama import Stream
from llama.tcp._stream import SocketStream


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
async def streams(
    one: socket.socket, two: socket.socket
) -> AsyncGenerator[tuple[SocketStream, SocketStream]]:
    """Streams over two sockets, which are aborted at the end."""
    for each in (one, two):
        each.setblocking(False)
    pair = SocketStream(one, "one"), SocketStream(two, "two")
    try:
        yield pair
    finally:
        for stream in pair:
            stream.abort()

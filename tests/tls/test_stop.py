"""Clients that shake no hands do not hold up a stop."""

import asyncio
import socket

import pytest

from llama import ConnectionHandler, Stream, serve, stack, tls
from tests.tls.sessions import pair_files


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


STACKS = {
    "server": stack(tls.server(*pair_files("localhost")), echo),
    "route": tls.route({"a.example": echo}),
}


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half a hello"])
@pytest.mark.parametrize("handler", STACKS.values(), ids=STACKS.keys())
async def test_a_silent_client_is_disconnected_soon_on_stop(handler: ConnectionHandler, said: bytes) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        async with serve(handler, listen="127.0.0.1:0") as server:
            await loop.sock_connect(client, ("127.0.0.1", server.port))
            await loop.sock_sendall(client, said)
        with pytest.raises(ConnectionResetError):  # the block has ended: nothing was left to wait for
            assert await loop.sock_recv(client, 1) != b""

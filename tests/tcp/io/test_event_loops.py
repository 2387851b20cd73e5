"""Listeners, connectors and relays on every kind of loop."""

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from llama import Shutdown, Stream, Target, UnreachableError, serve, tcp
from llama.tcp._io.open_stream import open_stream
from llama.tcp._io.proactor_stream import ProactorStream
from llama.tcp._io.stream import SocketStream
from tests.tcp.io.loops import LOOPS, Proactor

Loop = Callable[[], asyncio.AbstractEventLoop]
on_every_loop = pytest.mark.parametrize("loop", LOOPS)


def run(main: Callable[[], Awaitable[None]], loop: Loop) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30), Shutdown():
            await main()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


@on_every_loop
def test_the_stream_type_matches_the_loop(loop: Loop) -> None:
    kinds: list[type] = []

    async def look(stream: Stream) -> None:
        kinds.append(type(stream))

    async def main() -> None:
        async with serve(look, listen="127.0.0.1:0") as server:
            stream = await tcp.connect()(Target("127.0.0.1", server.port))
            kinds.append(type(stream))
            assert await stream.read() == b""
            await stream.aclose()

    run(main, loop)
    assert kinds == [ProactorStream if loop is Proactor else SocketStream] * 2


@on_every_loop
def test_many_connections_at_once(loop: Loop) -> None:
    async def one(port: int, number: int) -> None:
        stream = await tcp.connect()(Target("127.0.0.1", port))
        text = b"%d" % number
        await stream.write(text)
        assert await stream.read() == text
        await stream.write_eof()
        assert await stream.read() == b""
        await stream.aclose()

    async def main() -> None:
        async with serve(echo, listen="127.0.0.1:0") as server, asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(one(server.port, number))

    run(main, loop)


@on_every_loop
def test_connections_in_the_listen_queue_are_still_served(loop: Loop) -> None:
    clients: list[socket.socket] = []

    async def main() -> None:
        async with serve(echo, listen="127.0.0.1:0") as server:
            for _ in range(50):  # without a round of the loop in between
                client = socket.create_connection(("127.0.0.1", server.port))
                client.sendall(b"in the queue")
                client.shutdown(socket.SHUT_WR)
                clients.append(client)

    run(main, loop)
    for client in clients:
        with client:
            assert client.recv(100) == b"in the queue"
            assert client.recv(100) == b""


@on_every_loop
def test_a_forwarded_transfer_is_complete_in_both_directions(loop: Loop) -> None:
    data = os.urandom(5_000_000)

    async def send(stream: Stream) -> None:
        await stream.write(data)
        await stream.write_eof()

    async def main() -> None:
        async with (
            serve(echo, listen="127.0.0.1:0") as origin,
            serve(tcp.forward(origin.address), listen="127.0.0.1:0") as proxy,
        ):
            stream = await tcp.connect()(Target("127.0.0.1", proxy.port))
            seen = hashlib.sha256()
            async with asyncio.TaskGroup() as group:
                group.create_task(send(stream))
                while piece := await stream.read():
                    seen.update(piece)
            await stream.aclose()
            assert seen.digest() == hashlib.sha256(data).digest()

    run(main, loop)


@on_every_loop
def test_a_port_without_a_listener_is_unreachable(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
            with pytest.raises(UnreachableError, match=f"cannot connect to 127.0.0.1:{port}: .*refused"):
                await tcp.connect()(Target("127.0.0.1", port))

    run(main, loop)


@on_every_loop
def test_a_forward_relays_a_reset(loop: Loop) -> None:
    async def breaks(stream: Stream) -> None:
        await stream.write(b"half a fi")
        await stream.read()
        stream.abort()

    async def main() -> None:
        async with (
            serve(breaks, listen="127.0.0.1:0") as origin,
            serve(tcp.forward(origin.address), listen="127.0.0.1:0") as proxy,
        ):
            stream = await tcp.connect()(Target("127.0.0.1", proxy.port))
            assert await stream.read() == b"half a fi"
            await stream.write(b"go on")
            with pytest.raises(ConnectionResetError):
                await stream.read()
            stream.abort()

    run(main, loop)


def test_bytes_of_a_cancelled_read_are_returned_within_the_next_limit() -> None:
    """The loop was asked for 65536 bytes; the next read wants three."""

    async def main() -> None:
        one, two = socket.socketpair()
        for each in (one, two):
            each.setblocking(False)
        stream = open_stream(one)
        with two:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await stream.read()
            two.send(b"abcdefgh")
            assert await stream.read(3) == b"abc"
            assert await stream.read() == b"defgh"
            await stream.aclose()

    run(main, Proactor)

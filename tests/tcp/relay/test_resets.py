"""A client that breaks its connection off while the target takes nothing: nobody reads, and yet it is noticed."""

import asyncio
import errno
import socket

import pytest

from llama import ConnectionHandler, Stream, Target, serve, stack, tcp, tls
from llama.tcp._io.stream import SocketStream
from tests.tls.sessions import ca_file, pair_files


class Stalled:
    """A target that reads nothing until it is told to; `ended` is how its connection ended."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.ended: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()

    async def __call__(self, stream: Stream) -> None:
        await self.go.wait()
        try:
            while await stream.read():
                pass
        except OSError as error:
            self.ended.set_result(error)
        else:
            self.ended.set_result(None)


async def fill(stream: Stream) -> None:
    """Write until nobody takes any more."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            while True:
                await stream.write(bytes(65536))


@pytest.mark.parametrize("kind", ["plain", "over TLS"])
async def test_a_client_reset_is_detected_while_the_target_does_not_read(kind: str) -> None:
    left: asyncio.Future[OSError] = asyncio.get_running_loop().create_future()
    stalled = Stalled()
    async with asyncio.timeout(10), serve(stalled, listen="127.0.0.1:0") as there:
        forward = tcp.forward(there.address)

        async def watched(stream: Stream) -> None:
            try:
                await forward(stream)
            except OSError as error:
                left.set_result(error)
                raise

        handler: ConnectionHandler = watched
        connect = tcp.connect()
        if kind == "over TLS":
            handler = stack(tls.server(*pair_files("localhost")), watched)
            connect = tls.connect(connect=connect, ca=ca_file())
        async with serve(handler, listen="127.0.0.1:0") as server:
            stream = await connect(Target("localhost", server.port))
            await fill(stream)
            assert not left.done()
            stream.abort()
            assert (await left).errno == errno.ECONNRESET
            stalled.go.set()
            error = await stalled.ended
            assert error is not None and error.errno == errno.ECONNRESET


async def test_a_reset_that_arrives_with_data_is_detected_too() -> None:
    """All of it is there before the first byte is read, so that there is but one report."""
    told, left, stalled = asyncio.Event(), asyncio.Event(), Stalled()

    async def small(target: Target) -> Stream:
        stream = await tcp.connect()(target)
        assert isinstance(stream, SocketStream)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return stream

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with asyncio.timeout(10), serve(tcp.server(listener, stalled)) as there:
        listener.close()
        forward = tcp.forward(there.address, connect=small)

        async def late(stream: Stream) -> None:
            await told.wait()
            try:
                await forward(stream)
            finally:
                left.set()

        async with serve(late, listen="127.0.0.1:0") as server:
            stream = await tcp.connect()(Target.parse(server.address))
            await fill(stream)
            stream.abort()
            told.set()
            await left.wait()
            stalled.go.set()

"""Answers that are sent together with others, and a client that takes none of them."""

import asyncio
import socket

from llama._core.errors import StreamClosedError
from llama.http._h1.server_writer import H1Writer
from llama.tcp._io.stream import SocketStream
from tests.tcp.socket_pairs import streams, unix_sockets


async def test_a_client_that_does_not_take_an_answer_in_time_is_broken_off() -> None:
    one, two = unix_sockets()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with streams(one, two) as (near, _), asyncio.TaskGroup() as group:
        assert isinstance(near, SocketStream)
        while near.write_nowait(b"." * 1000):
            pass
        output = H1Writer(near, 0.01, lambda: None)
        reading = group.create_task(_error_of(near))
        assert output.write_buffered(b"answer")
        assert isinstance(await reading, StreamClosedError)
        assert output.broken
        output.close()


async def test_one_that_takes_it_is_left_alone() -> None:
    async with streams(*unix_sockets()) as (near, far), asyncio.TaskGroup() as group:
        output = H1Writer(near, 0.01, lambda: None)
        assert output.write_buffered(b"answer")
        assert await far.read() == b"answer"
        reading = group.create_task(near.read())
        await asyncio.sleep(0.05)
        assert not output.broken
        await far.write(b"next")
        assert await reading == b"next"
        output.close()


async def _error_of(stream: SocketStream) -> Exception | None:
    try:
        await stream.read()
    except Exception as error:
        return error
    return None

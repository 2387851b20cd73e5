"""Work that ends when its client leaves."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llama import Shutdown, Stream, testing
from llama.tcp._io.cancel_on_disconnect import ClientLeft, cancel_on_disconnect
from llama.testing._stream_suite.helpers import spin


class Work:
    """Never done unless told; knows how it ended."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.ended = ""

    async def run(self) -> str:
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "done"
        return "the result"


async def close(client: Stream) -> None:
    await client.aclose()


async def shut(client: Stream) -> None:
    await client.write_eof()


async def reset(client: Stream) -> None:
    client.abort()


@pytest.mark.parametrize("leave", [close, shut, reset])
async def test_a_disconnect_cancels_the_work(leave: Callable[[Stream], Awaitable[None]]) -> None:
    client, server = testing.memory_pair()
    work = Work()
    async with Shutdown() as shutdown:
        task = shutdown.spawn(cancel_on_disconnect(server, work.run(), "the end"))
        await spin()
        await leave(client)
        with pytest.raises(ClientLeft, match="the client disconnected before the end"):
            await task
    assert work.ended == "cancelled"
    client.abort()
    server.abort()


async def test_a_client_that_stays_gets_the_result() -> None:
    client, server = testing.memory_pair()
    work = Work()
    async with Shutdown() as shutdown:
        task = shutdown.spawn(cancel_on_disconnect(server, work.run(), "the end"))
        await spin()
        await client.write(b"early")
        await spin()
        work.done.set()
        assert await task == "the result"
    assert await server.read() == b"early"
    client.abort()
    server.abort()


async def test_a_cancellation_from_outside_stays_a_cancellation() -> None:
    client, server = testing.memory_pair()
    work = Work()
    async with Shutdown() as shutdown:
        task = shutdown.spawn(cancel_on_disconnect(server, work.run(), "the end"))
        await spin()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    client.abort()
    server.abort()


async def test_an_earlier_disconnect_is_detected() -> None:
    client, server = testing.memory_pair()
    await client.aclose()
    with pytest.raises(ClientLeft):
        await cancel_on_disconnect(server, Work().run(), "the end")
    server.abort()


async def test_the_next_reader_gets_every_byte() -> None:
    client, server = testing.memory_pair()
    assert await cancel_on_disconnect(server, asyncio.sleep(0, "at once"), "the end") == "at once"
    await client.write(b"later")
    assert await server.read() == b"later"
    client.abort()
    server.abort()


async def test_work_that_does_not_wait_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = testing.memory_pair()
    watched: list[object] = []

    def note(_: object, callback: object) -> None:
        watched.append(callback)

    monkeypatch.setattr(type(server), "on_readable", note)

    async def at_once() -> str:
        return "the result"

    assert await cancel_on_disconnect(server, at_once(), "the end") == "the result"
    assert not watched
    client.abort()
    server.abort()


async def test_work_that_fails_after_waiting_raises_its_own_error() -> None:
    client, server = testing.memory_pair()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await cancel_on_disconnect(server, failing(), "the end")
    await client.aclose()
    assert await server.read() == b""
    server.abort()

"""An end's writing: bounded, in order, and whole though writers are cancelled."""

import asyncio
import random

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate

from llama import StreamClosedError, stack, testing, ws
from llama.ws._framed_endpoint import HIGH_WATER, FramedEndpoint
from llama.ws._wire import Close, Frames
from tests.ws.talking import echo


def ends(capacity: int = 65536, *, compressed: bool = False) -> tuple[FramedEndpoint, FramedEndpoint]:
    """A server's and a client's end."""
    ours, theirs = testing.memory_pair(capacity=capacity)
    deflates = [PerMessageDeflate(False, False, 15, 15) if compressed else None for _ in range(2)]
    server = FramedEndpoint(ours, Frames(is_client=False, deflate=deflates[0], max_size=1 << 20))
    client = FramedEndpoint(theirs, Frames(is_client=True, deflate=deflates[1], max_size=1 << 20))
    return server, client


async def hear(end: FramedEndpoint, count: int) -> list[object]:
    heard: list[object] = []
    while len(heard) < count:
        for events in end.feed(await end.read()):
            heard += events
    return heard


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_send_cancelled_while_queued_corrupts_nothing(compressed: bool) -> None:
    server, client = ends(1000, compressed=compressed)
    first = random.Random(1).randbytes(50_000)  # which no compression makes fit
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(server.send(first))
        await asyncio.sleep(0)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await server.send("cancelled, but put")
        group.create_task(server.send("last"))
        assert await hear(client, 7) == [first, *["cancelled, but put"] * 5, "last"]
        await sending


async def test_sends_that_are_cancelled_do_not_pile_up() -> None:
    server, client = ends(1000)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(server.send(b"a" * 50_000))
        await asyncio.sleep(0)
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await server.send(b"b" * 10_000)
        assert server.waiting <= HIGH_WATER + 10_010
        sending.cancel()
    client.stream.abort()


async def test_a_connection_that_broke_fails_every_send() -> None:
    server, client = ends()
    client.stream.abort()
    for _ in range(3):
        with pytest.raises(OSError, match="reset"):
            await server.send(b"a" * (HIGH_WATER + 1))


async def test_a_send_overtaken_by_a_close_raises() -> None:
    server, client = ends(1000)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(server.send(b"a" * (HIGH_WATER + 1)))
        await asyncio.sleep(0)
        late = group.create_task(expect_closed(server))
        await asyncio.sleep(0)
        server.put_close(1001)
        group.create_task(server.flush())
        heard = await hear(client, 3)
        await late
    assert heard == [b"a" * (HIGH_WATER + 1), b"a" * (HIGH_WATER + 1), Close(1001, "")]


async def expect_closed(end: FramedEndpoint) -> None:
    with pytest.raises(StreamClosedError, match="1001"):
        await end.send("late")


async def test_nothing_follows_a_close() -> None:
    server, client = ends()
    server.put_close(1000, "bye")
    server.put_message("late")
    server.put_ping(b"late")
    server.put_close(1001)
    await server.flush()
    await server.stream.aclose()
    assert await hear(client, 1) == [Close(1000, "bye")]
    assert await client.read() == b""


async def test_both_may_send_at_once_though_neither_reads_first() -> None:
    """Who reads does not wait for who writes."""
    async with ws.connect(
        "ws://a/", client=stack(ws.server(compression=False), echo), compression=False
    ) as socket:
        message = b"a" * 100_000

        async def send() -> None:
            for _ in range(50):
                await socket.send(message)

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            for _ in range(50):
                assert await socket.receive() == message

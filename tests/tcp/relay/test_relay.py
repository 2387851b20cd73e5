import asyncio
import hashlib
import os
import resource
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import NamedTuple

import pytest

from llama import Bridge, Meter, Relay, Stream, Target, tcp, testing
from llama._core.stream import Buffer
from llama.tcp import RelayStats
from llama.testing import FaultyStream, MemoryStream
from tests.tcp.socket_pairs import streams, tcp_sockets

if sys.platform == "linux":
    from llama.tcp._relay import pipe_pool

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="splice is Linux's")
MB = 1_000_000


class Relayed(NamedTuple):
    """A relay at work, from outside: what the client and the target hold, and the bridge between them."""

    client: Stream
    target: Stream
    bridge: Bridge
    done: asyncio.Task[Exception | None]


Ends = Callable[[], AbstractAsyncContextManager[tuple[Stream, Stream, Stream, Stream]]]


@asynccontextmanager
async def over_sockets() -> AsyncGenerator[tuple[Stream, Stream, Stream, Stream]]:
    async with streams(*tcp_sockets()) as (client, inside), streams(*tcp_sockets()) as (outside, target):
        yield client, inside, outside, target


@asynccontextmanager
async def in_memory() -> AsyncGenerator[tuple[Stream, Stream, Stream, Stream]]:
    yield *testing.memory_pair(), *testing.memory_pair()


@asynccontextmanager
async def in_lockstep() -> AsyncGenerator[tuple[Stream, Stream, Stream, Stream]]:
    yield *testing.lockstep_pair(), *testing.lockstep_pair()


@asynccontextmanager
async def of_any_kind() -> AsyncGenerator[tuple[Stream, Stream, Stream, Stream]]:
    """Streams without readiness callbacks, over a network that splits and delays."""
    client, inside = testing.memory_pair()
    outside, target = testing.memory_pair()
    yield client, testing.faulty(inside, seed=1), testing.faulty(outside, seed=2), target


@asynccontextmanager
async def over_sockets_of_any_kind() -> AsyncGenerator[tuple[Stream, Stream, Stream, Stream]]:
    """The same over sockets."""
    async with over_sockets() as (client, inside, outside, target):
        yield client, testing.faulty(inside, seed=1), testing.faulty(outside, seed=2), target


KINDS = [over_sockets, in_memory, in_lockstep, of_any_kind]
every_kind = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def relayed(kind: Ends, relay: Relay | None = None) -> AsyncGenerator[Relayed]:
    """As tcp.forward does it: the bridge closes after a normal end, and breaks after an error."""
    async with kind() as (client, inside, outside, target), asyncio.TaskGroup() as group:

        async def connect(_: Target) -> Stream:
            return outside

        bridge = Bridge(inside, Target("target.example", 1), connect)

        async def run() -> None:
            try:
                await (relay or tcp.relay())(bridge)
                await bridge.aclose()
                await inside.aclose()
            finally:
                bridge.abort()
                inside.abort()

        done = group.create_task(swallow(run()))
        yield Relayed(client, target, bridge, done)
        client.abort()
        target.abort()


async def swallow(run: Awaitable[None]) -> Exception | None:
    try:
        await run
    except Exception as error:
        return error
    return None


async def say(stream: Stream, *pieces: bytes) -> None:
    for piece in pieces:
        await stream.write(piece)
    await stream.write_eof()


async def everything(stream: Stream) -> bytes:
    parts: list[bytes] = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


# Ends.


@every_kind
async def test_bytes_and_half_closes_pass_in_both_directions(kind: Ends) -> None:
    async with relayed(kind) as (client, target, bridge, done):
        await client.write(b"question")
        assert await target.read() == b"question" or kind is of_any_kind
        await client.write_eof()
        await everything(target)
        async with asyncio.TaskGroup() as group:
            group.create_task(say(target, b"a long ", b"answer"))
            assert await everything(client) == b"a long answer"
        assert await done is None
        assert bridge.extensions[RelayStats] == RelayStats(sent=8, received=13)


@every_kind
async def test_the_target_may_end_first(kind: Ends) -> None:
    async with relayed(kind) as (client, target, bridge, done):
        await target.write(b"220 hello")
        await target.write_eof()
        assert await everything(client) == b"220 hello"
        await client.write(b"too late to answer")
        await client.write_eof()
        assert await everything(target) == b"too late to answer"
        assert await done is None
        assert bridge.extensions[RelayStats] == (18, 9)


@every_kind
@pytest.mark.parametrize("who", ["client", "target"])
async def test_a_reset_is_relayed_as_a_reset(kind: Ends, who: str) -> None:
    async with relayed(kind) as relay:
        dies, lives = (relay.client, relay.target) if who == "client" else (relay.target, relay.client)
        await dies.write(b"half a fi")
        assert await lives.read(1) == b"h"
        dies.abort()
        with pytest.raises(ConnectionResetError):
            await everything(lives)
        assert isinstance(await relay.done, ConnectionResetError)


@pytest.mark.parametrize("kind", [over_sockets, over_sockets_of_any_kind])
async def test_a_reset_found_by_a_write_is_relayed_as_a_reset(kind: Ends) -> None:
    """The system tells a reset once: here to the write, so that the read would find an end."""
    async with relayed(kind) as (client, target, _bridge, done):
        async with asyncio.TaskGroup() as group:
            group.create_task(ignore_errors(keep_writing(target)))
            await client.read(1)
            await client.write(b"half a fi")
            assert await target.read(1) == b"h"
            client.abort()
            with pytest.raises(ConnectionResetError):
                await everything(target)
        assert isinstance(await done, ConnectionError)


async def keep_writing(stream: Stream) -> None:
    while True:
        await stream.write(bytes(100_000))


async def ignore_errors(run: Awaitable[None]) -> None:
    try:
        await run
    except OSError:
        pass


@pytest.mark.parametrize("kind", [over_sockets, over_sockets_of_any_kind])
async def test_bytes_sent_by_the_target_before_it_closed_arrive(kind: Ends) -> None:
    """An early answer: the target answers and closes while the client still sends."""
    async with relayed(kind) as (client, target, _bridge, _done), asyncio.TaskGroup() as group:
        sender = group.create_task(ignore_errors(keep_writing(client)))
        await target.read(100_000)
        await target.write(b"413 too large")
        group.create_task(target.aclose())
        heard = b""
        while heard != b"413 too large":
            heard += await client.read()
            assert b"413 too large".startswith(heard) and heard
        sender.cancel()


async def test_bytes_from_a_target_that_accepts_no_more_arrive() -> None:
    refused = asyncio.Event()

    class Deaf(FaultyStream):
        async def write(self, data: Buffer, /) -> None:
            refused.set()
            raise BrokenPipeError(32, "Broken pipe")

    client, inside = testing.memory_pair()
    outside, target = testing.memory_pair()

    async def connect(_: Target) -> Stream:
        return Deaf(outside, Random(1), None)

    async with asyncio.TaskGroup() as group:
        done = group.create_task(swallow(run_relay(Bridge(inside, Target("target.example", 1), connect))))
        await client.write(b"a long question")
        await refused.wait()
        await target.write(b"413 too large")
        await target.write_eof()
        assert await everything(client) == b"413 too large"
        assert isinstance(await done, BrokenPipeError)


@every_kind
async def test_cancelling_the_relay_releases_both_streams(kind: Ends) -> None:
    async with kind() as (client, inside, outside, target):

        async def connect(_: Target) -> Stream:
            return outside

        bridge = Bridge(inside, Target("target.example", 1), connect)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(run_relay(bridge))
            await client.write(b"1")
            assert await target.read() == b"1"
            task.cancel()
        assert task.cancelled()
        async with asyncio.TaskGroup() as group:
            group.create_task(client.write(b"2"))
            assert await inside.read() == b"2"
            group.create_task(target.write(b"3"))
            assert await outside.read() == b"3"
        assert bridge.extensions[RelayStats].sent == 1


async def run_relay(bridge: Bridge) -> None:
    await tcp.relay()(bridge)
    await bridge.client.aclose()
    await bridge.aclose()


@every_kind
async def test_bytes_that_were_put_back_go_first(kind: Ends) -> None:
    async with kind() as (client, inside, outside, target):

        async def connect(_: Target) -> Stream:
            return outside

        inside.unread(b"peeked, ")
        outside.unread(b"banner, ")
        async with asyncio.TaskGroup() as group:
            group.create_task(run_relay(Bridge(inside, Target("target.example", 1), connect)))
            assert await exactly(target, 8) == b"peeked, "
            assert await exactly(client, 8) == b"banner, "
            await client.write(b"rest")
            assert await exactly(target, 4) == b"rest"
            await client.write_eof()
            await target.write_eof()


async def exactly(stream: Stream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        data = await stream.read(count - len(got))
        assert data
        got += data
    return got


# Bulk.


async def send_bulk(stream: Stream, block: bytes, size: int) -> None:
    for _ in range(size // len(block)):
        await stream.write(block)
    await stream.write_eof()


async def hash_bulk(stream: Stream) -> tuple[int, str]:
    seen, count = hashlib.sha256(), 0
    while data := await stream.read(262144):
        seen.update(data)
        count += len(data)
    return count, seen.hexdigest()


def hash_of(block: bytes, size: int) -> tuple[int, str]:
    seen = hashlib.sha256()
    for _ in range(size // len(block)):
        seen.update(block)
    return size, seen.hexdigest()


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what is spliced."""
    sizes: list[int] = []
    splice = os.splice

    def counted(*args: int, **kwargs: int) -> int:
        size = splice(*args, **kwargs)
        sizes.append(size)
        return size

    monkeypatch.setattr(os, "splice", counted)
    return sizes


@linux_only
async def test_bulk_in_both_directions_is_spliced_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    size, spliced = 128 * 1024 * 1024, count_calls(monkeypatch)
    there, back = os.urandom(1024 * 1024), os.urandom(1024 * 1024)
    async with relayed(over_sockets) as (client, target, bridge, done):
        async with asyncio.TaskGroup() as group:
            at_target, at_client = group.create_task(hash_bulk(target)), group.create_task(hash_bulk(client))
            group.create_task(send_bulk(client, there, size))
            group.create_task(send_bulk(target, back, size))
        assert at_target.result() == hash_of(there, size)
        assert at_client.result() == hash_of(back, size)
        assert await done is None
        assert bridge.extensions[RelayStats] == (size, size)
    assert sum(spliced) > size  # in and out of the pipe, most of both directions


@pytest.mark.parametrize("kind", [in_memory, in_lockstep, of_any_kind])
async def test_bulk_in_both_directions_is_complete(kind: Ends) -> None:
    size = 4 * MB
    there, back = os.urandom(MB), os.urandom(MB)
    async with relayed(kind) as (client, target, _bridge, done):
        async with asyncio.TaskGroup() as group:
            at_target, at_client = group.create_task(hash_bulk(target)), group.create_task(hash_bulk(client))
            group.create_task(send_bulk(client, there, size))
            group.create_task(send_bulk(target, back, size))
        assert at_target.result() == hash_of(there, size)
        assert at_client.result() == hash_of(back, size)
        assert await done is None


@linux_only
async def test_small_messages_are_not_spliced(monkeypatch: pytest.MonkeyPatch) -> None:
    spliced = count_calls(monkeypatch)
    async with relayed(over_sockets) as (client, target, _bridge, _done):
        for _ in range(100):
            await client.write(b"x" * 600)
            assert await exactly(target, 600) == b"x" * 600
    assert spliced == []


@linux_only
async def test_a_direction_with_small_messages_returns_from_splice_to_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spliced = count_calls(monkeypatch)
    async with relayed(over_sockets) as (client, target, _bridge, _done), asyncio.TaskGroup() as group:
        receive = group.create_task(exactly(target, 20 * MB))
        await client.write(bytes(20 * MB))
        assert len(await receive) == 20 * MB
        assert spliced
        for _ in range(50):
            await client.write(b"x" * 100)
            assert await exactly(target, 100) == b"x" * 100
        before = len(spliced)
        for _ in range(50):
            await client.write(b"x" * 100)
            assert await exactly(target, 100) == b"x" * 100
        assert len(spliced) == before
        assert pipes() == 0


def pipes() -> int:
    """The pipes that relays hold."""
    return pipe_pool._open if sys.platform == "linux" else 0


@linux_only
async def test_a_slow_reader_slows_its_writer() -> None:
    async with relayed(over_sockets) as (client, target, _bridge, _done), asyncio.TaskGroup() as group:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        block, sent = bytes(MB), 0

        async def send() -> None:
            nonlocal sent
            for _ in range(300):
                await client.write(block)
                sent += MB

        sender = group.create_task(send())
        last = -1
        while last != sent:
            last = sent
            for _ in range(200):
                await asyncio.sleep(0)
        assert sent < 100 * MB  # what the system's own buffers hold
        assert len(await exactly_count(target, 300 * MB)) == 0
        await sender
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 60_000, f"memory grew by {grown} KB"


async def exactly_count(stream: Stream, count: int) -> bytes:
    while count:
        data = await stream.read(min(count, 262144))
        assert data
        count -= len(data)
    return b""


@linux_only
async def test_a_reset_during_a_splice_is_relayed_and_its_pipe_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spliced = count_calls(monkeypatch)
    for who in ("client", "target"):
        spliced.clear()
        async with relayed(over_sockets) as (client, target, _bridge, done), asyncio.TaskGroup() as group:
            sender = group.create_task(ignore_errors(keep_writing(client)))
            await exactly_count(target, 30 * MB)
            assert spliced and pipes() > 0
            if who == "client":
                sender.cancel()
                client.abort()
                with pytest.raises(ConnectionResetError):
                    await hash_bulk(target)
            else:
                target.abort()
                with pytest.raises(ConnectionResetError):
                    await client.read()
            assert isinstance(await done, ConnectionError)
        assert pipes() == 0


@linux_only
async def test_without_pipes_bulk_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    block = os.urandom(MB)
    async with relayed(over_sockets) as (client, target, _bridge, _done):
        async with asyncio.TaskGroup() as group:
            received = group.create_task(hash_bulk(target))
            group.create_task(send_bulk(client, block, 30 * MB))
        assert received.result() == hash_of(block, 30 * MB)


class Counter(Meter):
    def __init__(self) -> None:
        self.read = self.written = 0

    def on_received(self, count: int) -> float:
        self.read += count
        return 0.0

    def on_sent(self, count: int) -> float:
        self.written += count
        return 0.0


@every_kind
async def test_meters_count_relayed_bytes(kind: Ends) -> None:
    counter, size = Counter(), 2 * MB
    async with relayed(kind) as (client, target, bridge, _done):
        bridge.client.attach(counter)
        async with asyncio.TaskGroup() as group:
            at_target, at_client = group.create_task(hash_bulk(target)), group.create_task(hash_bulk(client))
            group.create_task(send_bulk(client, bytes(1000), size))
            group.create_task(send_bulk(target, bytes(2000), size * 2))
        assert at_target.result()[0] == size and at_client.result()[0] == size * 2
    assert (counter.read, counter.written) == (size, size * 2)


# Idle.


@every_kind
async def test_an_idle_relay_ends_with_a_timeout(kind: Ends) -> None:
    async with relayed(kind, tcp.relay(idle_timeout=60)) as (client, target, _bridge, done):
        async with testing.clock() as clock:
            await client.write(b"hi")
            await clock.advance(50)
            assert await exactly(target, 2) == b"hi"
            await target.write(b"yes?")  # either way counts
            await clock.advance(50)
            assert not done.done()
            await clock.advance(30)
            assert done.done()
        error = await done
        assert isinstance(error, TimeoutError) and str(error) == "no traffic for 60 s"


@every_kind
async def test_without_an_idle_timeout_a_relay_waits_forever(kind: Ends) -> None:
    async with relayed(kind) as (client, target, _bridge, done):
        async with testing.clock() as clock:
            await clock.advance(1e6)
        assert not done.done()
        await client.write(b"still there")
        assert await exactly(target, 11) == b"still there"


async def test_an_unreachable_upstream_is_the_error_of_the_relay() -> None:
    _client, inside = testing.memory_pair()

    async def connect(target: Target) -> MemoryStream:
        raise ConnectionRefusedError("nobody there")

    bridge = Bridge(inside, Target("target.example", 1), connect)
    with pytest.raises(ConnectionRefusedError):
        await tcp.relay()(bridge)


async def test_a_relay_works_between_a_socket_and_another_stream() -> None:
    async with streams(*tcp_sockets()) as (client, inside):
        outside, target = testing.lockstep_pair(piece=7)

        async def connect(_: Target) -> Stream:
            return outside

        async with asyncio.TaskGroup() as group:
            group.create_task(run_relay(Bridge(inside, Target("target.example", 1), connect)))
            data = os.urandom(100_000)
            group.create_task(send_bulk(client, data, len(data)))
            assert await everything(target) == data
            group.create_task(send_bulk(target, data, len(data)))
            assert await everything(client) == data

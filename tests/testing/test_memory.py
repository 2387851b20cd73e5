import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from llama import NonblockingStream, Stream, testing


@asynccontextmanager
async def memory() -> AsyncGenerator[tuple[Stream, Stream]]:
    yield testing.memory_pair()


@asynccontextmanager
async def faulty() -> AsyncGenerator[tuple[Stream, Stream]]:
    one, two = testing.memory_pair()
    yield testing.faulty(one, seed=1), testing.faulty(two, seed=2)


@pytest.mark.parametrize("case", testing.stream_cases(bulk=1_000_000))
async def test_a_memory_stream_passes(case: testing.StreamCase) -> None:
    await case(memory)


async def test_all_cases_in_one_call() -> None:
    await testing.check_stream(memory, bulk=500_000)


async def test_a_failure_names_the_case() -> None:
    class Forgetful(testing.MemoryStream):
        __slots__ = ()

        def unread(self, data: bytes, /) -> None:
            pass

    @asynccontextmanager
    async def forgetful() -> AsyncGenerator[tuple[Stream, Stream]]:
        one, two = testing.memory_pair()
        two.__class__ = Forgetful
        yield one, two

    with pytest.raises(AssertionError) as caught:
        await testing.check_stream(forgetful, bulk=500_000)
    assert caught.value.__notes__ == ["in the case what_was_unread_comes_first"]


# What is more than the contract.


async def test_a_direction_buffers_at_most_capacity_bytes() -> None:
    one, two = testing.memory_pair(capacity=10)
    assert one.write_nowait(b"0123456789abc") == 10
    assert one.write_nowait(b"abc") == 0
    assert await two.read(4) == b"0123"
    assert one.write_nowait(b"abcdef") == 4


async def test_a_reset_is_raised_after_the_data_before_it() -> None:
    one, two = testing.memory_pair()
    await one.write(b"last words")
    one.abort()
    assert await two.read() == b"last words"
    with pytest.raises(ConnectionResetError):
        await two.read()
    with pytest.raises(ConnectionResetError):
        await two.write(b"x")


async def test_a_write_to_a_closed_peer_is_a_broken_pipe() -> None:
    one, two = testing.memory_pair()
    await one.aclose()
    assert await two.read() == b""
    with pytest.raises(BrokenPipeError):
        await two.write(b"x")


async def test_a_callback_is_called_again_only_after_a_short_call() -> None:
    """Whoever leaves bytes unread and waits for another report has a bug that some transports hide."""
    one, two = testing.memory_pair()
    calls: list[int] = []
    two.on_readable(lambda: calls.append(1))
    await one.write(b"abcdef")
    await asyncio.sleep(0)
    assert len(calls) == 1
    assert two.read_nowait(3) == b"abc"
    await one.write(b"ghi")
    await asyncio.sleep(0)
    assert len(calls) == 1
    assert two.read_nowait() == b"defghi"
    assert two.read_nowait() is None
    await one.write(b"j")
    await asyncio.sleep(0)
    assert len(calls) == 2


def test_streams_in_memory_have_readiness_and_names() -> None:
    async def look() -> None:
        one, two = testing.memory_pair(names=("alice", "bob"))
        assert isinstance(one, NonblockingStream)
        assert (repr(one), repr(two)) == ("<memory stream alice>", "<memory stream bob>")

    asyncio.run(look())


# In lockstep.


async def test_in_lockstep_a_write_ends_when_it_was_read() -> None:
    one, two = testing.lockstep_pair()
    async with asyncio.TaskGroup() as group:
        write = group.create_task(one.write(b"abc"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not write.done()
        assert await two.read(2) == b"ab"
        await asyncio.sleep(0)
        assert not write.done()
        assert await two.read() == b"c"


async def test_in_lockstep_two_peers_that_both_write_first_deadlock() -> None:
    one, two = testing.lockstep_pair()

    async def talk(stream: Stream) -> None:
        await stream.write(b"after you")
        await stream.read()

    async with testing.clock(autojump=True):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(talk(one))
                group.create_task(talk(two))


async def test_a_piece_is_the_most_that_a_read_gives() -> None:
    one, two = testing.lockstep_pair(piece=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(one.write(b"abc"))
        assert [await two.read() for _ in range(3)] == [b"a", b"b", b"c"]


async def test_in_lockstep_a_write_ends_when_the_reader_leaves() -> None:
    one, two = testing.lockstep_pair()
    async with asyncio.TaskGroup() as group:
        write = group.create_task(write_to_who_leaves(one))
        await asyncio.sleep(0)
        two.abort()
    assert write.result() is ConnectionResetError


async def write_to_who_leaves(stream: Stream) -> type[Exception]:
    with pytest.raises(OSError) as caught:
        await stream.write(b"abc")
    return type(caught.value)


# A bad network.


@pytest.mark.parametrize("case", testing.stream_cases(bulk=600_000))
async def test_a_stream_over_a_bad_network_conforms(case: testing.StreamCase) -> None:
    await case(faulty)


async def pieces(seed: int) -> list[bytes]:
    one, two = testing.memory_pair()
    bad = testing.faulty(two, seed=seed)
    await one.write(bytes(1000))
    await one.write_eof()
    got: list[bytes] = []
    while data := await bad.read(100):
        got.append(data)
    return got


async def test_the_same_seed_gives_the_same_pieces() -> None:
    assert await pieces(1) == await pieces(1) != await pieces(2)
    assert b"".join(await pieces(3)) == bytes(1000)


async def test_a_connection_resets_after_the_given_bytes() -> None:
    one, two = testing.memory_pair()
    bad = testing.faulty(one, breaks=1000)
    with pytest.raises(ConnectionResetError):
        for _ in range(100):
            await bad.write(bytes(100))
    with pytest.raises(ConnectionResetError):
        while await two.read():
            pass


async def test_extensions_and_meters_are_those_of_the_stream_within() -> None:
    one, _two = testing.memory_pair()
    bad = testing.faulty(one)
    assert bad.extensions is one.extensions
    assert bad.inner is one
    assert repr(bad) == "<faulty <memory stream client>>"

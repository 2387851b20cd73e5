"""Conformance cases for single calls of a Stream."""

from __future__ import annotations

import array
import asyncio

from llama._core.stream import Stream
from llama.testing._stream_suite.helpers import (
    MakePair,
    broken,
    closed,
    everything,
    exactly,
    outcome,
    pending,
)


async def what_is_written_is_read(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        await one.write(b"hello")
        assert await exactly(two, 5) == b"hello"
        await two.write(b"good day")
        assert await exactly(one, 8) == b"good day"


async def a_write_takes_any_buffer(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        buffer = bytearray(b"bytes")
        await one.write(buffer)
        buffer[:] = b"other"  # the caller's again
        await one.write(memoryview(b"a view of it")[2:6])
        await one.write(memoryview(array.array("H", [0x4141, 0x4242])))
        assert await exactly(two, 13) == b"bytesviewAABB"


async def an_empty_write_is_nothing(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        await one.write(b"")
        await one.write(b"x")
        assert await two.read() == b"x"


async def a_read_keeps_its_limit(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        await one.write(b"abcdefghij")
        first = await two.read(3)
        assert 1 <= len(first) <= 3
        assert first + await exactly(two, 10 - len(first)) == b"abcdefghij"
        assert isinstance(await outcome(two.read(0)), ValueError)


async def byte_at_a_time(make_pair: MakePair, bulk: int) -> None:
    text = bytes(range(256))
    async with make_pair() as (one, two):
        for number in text:
            await one.write(bytes((number,)))
        assert b"".join([await two.read(1) for _ in text]) == text


async def a_half_close_leaves_the_other_way_open(make_pair: MakePair, bulk: int) -> None:
    for turn in (False, True):
        async with make_pair() as pair:
            one, two = reversed(pair) if turn else pair
            await one.write(b"request")
            await one.write_eof()
            assert await everything(two) == b"request"
            await two.write(b"answer")
            assert await exactly(one, 6) == b"answer"
            await two.write(b", and more")
            await two.write_eof()
            assert await everything(one) == b", and more"


async def the_end_stays_the_end(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        await one.write_eof()
        for _ in range(3):
            assert await two.read() == b""


async def after_write_eof_nothing_is_written(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        await one.write_eof()
        await one.write_eof()
        assert closed(await outcome(one.write(b"more")))
        await two.write(b"this way is open")
        assert await exactly(one, 16) == b"this way is open"


async def what_was_unread_comes_first(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        await one.write(b"second")
        two.unread(b"st ")
        two.unread(b"fir")
        assert await exactly(two, 2) == b"fi"
        assert await exactly(two, 10) == b"rst second"
        await one.write_eof()
        assert await two.read() == b""
        two.unread(b"after the end")
        assert await everything(two) == b"after the end"


async def closing_is_an_end(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        await one.write(b"last words")
        group.create_task(one.aclose())
        assert await everything(two) == b"last words"
        assert await two.read() == b""
        await two.aclose()


async def last_words_arrive_over_bytes_nobody_read(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        await one.write(b"a body that is not wanted" * 100)
        await two.write(b"413")
        group.create_task(two.aclose())
        assert await everything(one) == b"413"
        await one.aclose()


async def closing_again_does_nothing(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        async with asyncio.TaskGroup() as group:
            group.create_task(one.aclose())
            group.create_task(two.aclose())
        for stream in (one, two):
            await stream.aclose()
            stream.abort()
            stream.abort()
            await stream.aclose()


async def after_aclose_every_call_raises_closed(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        async with asyncio.TaskGroup() as group:
            group.create_task(one.aclose())
            group.create_task(two.aclose())
        await _every_call_raises_closed(one)


async def after_abort_every_call_raises_closed(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, _two):
        one.abort()
        await _every_call_raises_closed(one)
        await one.aclose()


async def _every_call_raises_closed(stream: Stream) -> None:
    assert closed(await outcome(stream.read()))
    assert closed(await outcome(stream.write(b"x")))
    assert closed(await outcome(stream.write_eof()))


async def an_abort_is_seen_as_a_break(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        read = await pending(group, two.read())
        one.abort()
        result = await read
        assert broken(result), f"the read ended with {result!r}"
        result = await outcome(two.read())
        assert broken(result), f"the read after that ended with {result!r}"


async def a_write_to_who_is_gone_fails(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        one.abort()
        for _ in range(2):
            result = await outcome(_write_on(two, bulk))
            assert broken(result), f"writing ended with {result!r}"


async def after_a_failed_write_a_break_is_no_end(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        await one.write(b"half a file")
        one.abort()
        assert broken(await outcome(_write_on(two, bulk)))
        for _ in range(2):
            result = await outcome(everything(two))
            assert broken(result), f"reading ended with {result!r}"


async def _write_on(stream: Stream, size: int) -> None:
    for _ in range(0, size, 65536):
        await stream.write(bytes(65536))
        await asyncio.sleep(0)


async def extensions_belong_to_the_stream(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        one.extensions.set("known")
        assert one.extensions[str] == "known"
        assert str not in two.extensions
        one.extensions = one.extensions.fork()
        assert one.extensions[str] == "known"


CASES = (
    what_is_written_is_read,
    a_write_takes_any_buffer,
    an_empty_write_is_nothing,
    a_read_keeps_its_limit,
    byte_at_a_time,
    a_half_close_leaves_the_other_way_open,
    the_end_stays_the_end,
    after_write_eof_nothing_is_written,
    what_was_unread_comes_first,
    closing_is_an_end,
    last_words_arrive_over_bytes_nobody_read,
    closing_again_does_nothing,
    after_aclose_every_call_raises_closed,
    after_abort_every_call_raises_closed,
    a_write_to_who_is_gone_fails,
    extensions_belong_to_the_stream,
)
BREAKS = (an_abort_is_seen_as_a_break, after_a_failed_write_a_break_is_no_end)

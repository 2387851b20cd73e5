"""Conformance cases for concurrent calls of a Stream: waiting, waking, cancellation, backpressure."""

from __future__ import annotations

import asyncio
import hashlib

from llama._core.errors import StreamBusyError
from llama._core.meter import Meter
from llama._core.stream import Stream
from llama.testing._stream_suite import helpers
from llama.testing._stream_suite.helpers import (
    MakePair,
    broken,
    closed,
    digest,
    everything,
    exactly,
    outcome,
    pending,
    spin,
)

FULL = 500  # rounds in which any transport's buffers fill


async def a_read_waits_for_bytes(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        read = await pending(group, two.read())
        await one.write(b"at last")
        first = await read
        assert isinstance(first, bytes)
        assert first + await exactly(two, 7 - len(first)) == b"at last"


async def a_read_is_woken_by_the_end(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        read = await pending(group, two.read())
        await one.write_eof()
        assert await read == b""


async def closing_wakes_a_read(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        read = await pending(group, one.read())
        group.create_task(one.aclose())
        assert closed(await read)
        await two.aclose()


async def an_abort_wakes_a_read(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, _two), asyncio.TaskGroup() as group:
        read = await pending(group, one.read())
        one.abort()
        assert closed(await read)


async def closing_wakes_a_write(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        write = await pending(group, one.write(bytes(bulk)), FULL)
        group.create_task(one.aclose())
        assert closed(await write)
        two.abort()


async def an_abort_wakes_a_write(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, _two), asyncio.TaskGroup() as group:
        write = await pending(group, one.write(bytes(bulk)), FULL)
        one.abort()
        assert closed(await write)


async def the_peers_abort_ends_a_write(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        write = await pending(group, one.write(bytes(bulk)), FULL)
        two.abort()
        result = await write
        assert broken(result), f"the write ended with {result!r}"


async def a_slow_reader_slows_its_writer(make_pair: MakePair, bulk: int) -> None:
    data = helpers.bulk(bulk)
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        write = await pending(group, one.write(data), FULL)
        half = await exactly(two, bulk // 2)
        rest = await exactly(two, bulk - bulk // 2)
        assert await write is None
        assert half + rest == data


async def a_cancelled_read_loses_nothing(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        async with asyncio.TaskGroup() as group:
            read = group.create_task(two.read())
            await spin()
            read.cancel()
        await one.write(b"for the next one")
        assert await exactly(two, 16) == b"for the next one"


async def a_read_cancelled_as_its_bytes_arrive_loses_none(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        for wait in range(12):
            async with asyncio.TaskGroup() as group:
                read = group.create_task(two.read())
                await spin()
                await one.write(b"precious")
                await spin(wait)
                read.cancel()
            got = b"" if read.cancelled() else read.result()
            assert got + await exactly(two, 8 - len(got)) == b"precious", f"cancelled after {wait} rounds"


async def a_read_that_times_out_as_its_bytes_arrive_loses_none(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        for _ in range(10):
            got = b""
            async with asyncio.TaskGroup() as group:
                group.create_task(_write_at_once(one, b"precious"))
                try:
                    async with asyncio.timeout(0):
                        got = await two.read()
                except TimeoutError:
                    pass
            assert got + await exactly(two, 8 - len(got)) == b"precious"


async def _write_at_once(stream: Stream, data: bytes) -> None:
    await stream.write(data)


async def after_a_cancelled_write_nothing_is_written(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two):
        async with asyncio.TaskGroup() as group:
            write = group.create_task(one.write(bytes(bulk)))
            await spin(FULL)
            write.cancel()
        assert write.cancelled()
        assert closed(await outcome(one.write(b"more")))
        await two.write(b"this way is open")
        assert await exactly(one, 16) == b"this way is open"


async def a_second_reader_is_refused(make_pair: MakePair, bulk: int) -> None:
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        read = await pending(group, two.read())
        assert isinstance(await outcome(two.read()), StreamBusyError)
        await one.write(b"x")
        assert await read == b"x"


async def a_second_writer_is_refused(make_pair: MakePair, bulk: int) -> None:
    data = helpers.bulk(bulk)
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        write = await pending(group, one.write(data), FULL)
        assert isinstance(await outcome(one.write(b"between")), StreamBusyError)
        assert isinstance(await outcome(one.write_eof()), StreamBusyError)
        assert await exactly(two, bulk) == data
        assert await write is None
        await one.write_eof()
        assert await everything(two) == b""


async def a_reader_and_a_writer_at_once(make_pair: MakePair, bulk: int) -> None:
    there, back = helpers.bulk(bulk // 4, 1), helpers.bulk(bulk // 4, 5000)
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        seen_by_two = group.create_task(digest(two))
        seen_by_one = group.create_task(digest(one))
        group.create_task(_say(one, there))
        group.create_task(_say(two, back))
    assert seen_by_two.result() == (len(there), hashlib.sha256(there).hexdigest())
    assert seen_by_one.result() == (len(back), hashlib.sha256(back).hexdigest())


async def _say(stream: Stream, data: bytes) -> None:
    """Write in pieces of many sizes, then end."""
    view, size = memoryview(data), 1
    while view:
        await stream.write(view[:size])
        view, size = view[size:], size * 3 % 300007
    await stream.write_eof()


class _Counter(Meter):
    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.read = self.written = 0
        self.largest = 0

    def on_received(self, count: int) -> float:
        self.read += count
        self.largest = max(self.largest, count)
        return self.delay

    def on_sent(self, count: int) -> float:
        self.written += count
        self.largest = max(self.largest, count)
        return self.delay


async def meters_see_every_byte_once(make_pair: MakePair, bulk: int) -> None:
    size = min(bulk, 1_000_000)
    one_meter, two_meter = _Counter(), _Counter()
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        one.attach(one_meter)
        two.attach(two_meter)
        group.create_task(one.write(helpers.bulk(size)))
        first = await two.read(1000)
        two.unread(first)
        assert await exactly(two, size) == helpers.bulk(size)
        await two.write(b"answer")
        assert await exactly(one, 6) == b"answer"
    assert (one_meter.written, one_meter.read) == (size, 6)
    assert (two_meter.read, two_meter.written) == (size, 6)


async def a_meter_that_was_detached_sees_nothing(make_pair: MakePair, bulk: int) -> None:
    stays, goes = _Counter(), _Counter()
    async with make_pair() as (one, two):
        one.attach(goes)
        one.attach(stays)
        one.detach(goes)
        await one.write(b"12345")
        assert await exactly(two, 5) == b"12345"
    assert (stays.written, goes.written) == (5, 0)


async def a_meter_sets_size_and_pace(make_pair: MakePair, bulk: int) -> None:
    writes, reads = _Counter(0.01), _Counter(0.01)
    writes.chunk = reads.chunk = 1000
    async with make_pair() as (one, two), asyncio.TaskGroup() as group:
        one.attach(writes)
        two.attach(reads)
        now = asyncio.get_running_loop().time
        started = now()
        group.create_task(one.write(helpers.bulk(5000)))
        assert await exactly(two, 5000) == helpers.bulk(5000)
        assert now() - started >= 0.039  # five times a thousand bytes, with four pauses between
    assert writes.largest <= 1000 and reads.largest <= 1000
    assert (writes.written, reads.read) == (5000, 5000)


CASES = (
    a_read_waits_for_bytes,
    a_read_is_woken_by_the_end,
    closing_wakes_a_read,
    an_abort_wakes_a_read,
    closing_wakes_a_write,
    an_abort_wakes_a_write,
    the_peers_abort_ends_a_write,
    a_slow_reader_slows_its_writer,
    a_cancelled_read_loses_nothing,
    a_read_cancelled_as_its_bytes_arrive_loses_none,
    a_read_that_times_out_as_its_bytes_arrive_loses_none,
    after_a_cancelled_write_nothing_is_written,
    a_second_reader_is_refused,
    a_second_writer_is_refused,
    a_reader_and_a_writer_at_once,
    meters_see_every_byte_once,
    a_meter_that_was_detached_sees_nothing,
    a_meter_sets_size_and_pace,
)

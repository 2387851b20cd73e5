"""Conformance cases for callbacks of a NonblockingStream; other Streams pass them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from llama._core.errors import StreamClosedError
from llama._core.stream import NonblockingStream
from llama.testing._stream_suite import helpers
from llama.testing._stream_suite.helpers import MakePair, digest, everything, exactly, spin


@asynccontextmanager
async def _ready_pair(
    make_pair: MakePair,
) -> AsyncGenerator[tuple[NonblockingStream, NonblockingStream] | None]:
    async with make_pair() as (one, two):
        both = isinstance(one, NonblockingStream) and isinstance(two, NonblockingStream)
        yield (one, two) if both else None  # type: ignore[misc]  # checked through `both`


class _Calls:
    """Counts callbacks; a test waits for the next one."""

    def __init__(self, do: Callable[[], object] | None = None) -> None:
        self.count = 0
        self._do = do
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._called.set()
        if self._do is not None:
            self._do()

    async def next(self) -> None:
        await self._called.wait()
        self._called.clear()


async def reading_without_waiting(make_pair: MakePair, bulk: int) -> None:
    async with _ready_pair(make_pair) as pair:
        if pair is None:
            return
        one, two = pair
        assert two.read_nowait() is None
        calls = _Calls()
        two.on_readable(calls)
        await spin()
        assert calls.count == 0
        await _write_all(one, b"hello")
        await calls.next()
        two.on_readable(None)
        assert await _read_nowait(two, 5) == b"hello"
        one.write_eof_nowait()
        two.on_readable(calls)
        await calls.next()
        while (end := two.read_nowait()) is None:
            await calls.next()
        assert end == b"" and two.read_nowait() == b""


async def _write_all(stream: NonblockingStream, data: bytes) -> None:
    while data:
        data = data[stream.write_nowait(data) :]
        await asyncio.sleep(0)


async def _read_nowait(stream: NonblockingStream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        data = stream.read_nowait(count - len(got))
        if data is None:
            await asyncio.sleep(0)
        else:
            assert len(data) > 0, "the end came early"
            got += bytes(data)
    return got


async def what_was_unread_is_reported(make_pair: MakePair, bulk: int) -> None:
    async with _ready_pair(make_pair) as pair:
        if pair is None:
            return
        _one, two = pair
        two.unread(b"read too far")
        calls = _Calls()
        two.on_readable(calls)
        await calls.next()
        two.on_readable(None)
        assert bytes(two.read_nowait() or b"") == b"read too far"
        assert two.read_nowait() is None


async def callbacks_end_when_told(make_pair: MakePair, bulk: int) -> None:
    async with _ready_pair(make_pair) as pair:
        if pair is None:
            return
        one, two = pair
        calls = _Calls()
        for on in (two.on_readable, two.on_writable):
            on(calls)
            on(None)
        await one.write(b"x")
        await spin()
        assert calls.count == 0
        assert await two.read() == b"x"


async def writing_without_waiting_stops_when_full(make_pair: MakePair, bulk: int) -> None:
    data = helpers.bulk(bulk)
    async with _ready_pair(make_pair) as pair:
        if pair is None:
            return
        one, two = pair
        sent, calls = _fill(one, data), _Calls()
        assert sent < bulk
        await spin()
        sent += _fill(one, data[sent:])  # bytes that the transport moved meanwhile
        one.on_writable(calls)
        assert await exactly(two, sent) == data[:sent]
        await calls.next()
        one.on_writable(None)
        assert _fill(one, data[sent:]) > 0


def _fill(stream: NonblockingStream, data: bytes) -> int:
    view, sent = memoryview(data), 0
    while sent < len(data) and (taken := stream.write_nowait(view[sent : sent + 65536])):
        sent += taken
        if not stream.flush_nowait():
            break
    return sent


class _Pump:
    """Writes all of its data by callbacks, then the end."""

    def __init__(self, stream: NonblockingStream, data: bytes) -> None:
        self._stream = stream
        self._left = memoryview(data)
        self._ended = False
        self.done = asyncio.Event()
        stream.on_writable(self.step)

    def step(self) -> None:
        while not self._ended:
            if not self._stream.flush_nowait():
                return
            if not self._left:
                self._stream.write_eof_nowait()
                self._ended = True
            elif taken := self._stream.write_nowait(self._left[:100_000]):
                self._left = self._left[taken:]
            else:
                return
        if self._stream.flush_nowait():
            self._stream.on_writable(None)
            self.done.set()


async def a_transfer_by_callbacks_is_whole(make_pair: MakePair, bulk: int) -> None:
    data = helpers.bulk(bulk // 4)
    async with _ready_pair(make_pair) as pair:
        if pair is None:
            return
        for one, two in (pair, pair[::-1]):
            async with asyncio.TaskGroup() as group:
                seen = group.create_task(digest(two))
                pump = _Pump(one, data)
                await pump.done.wait()
            assert seen.result() == (len(data), hashlib.sha256(data).hexdigest())


async def reading_by_callbacks_is_whole(make_pair: MakePair, bulk: int) -> None:
    data = helpers.bulk(bulk // 4)
    async with _ready_pair(make_pair) as pair:
        if pair is None:
            return
        one, two = pair
        seen, done = hashlib.sha256(), asyncio.Event()

        def step() -> None:
            while (piece := two.read_nowait(100_000)) is not None:
                seen.update(piece)
                if not len(piece):
                    two.on_readable(None)
                    done.set()
                    return

        two.on_readable(step)
        await one.write(data)
        await one.write_eof()
        await done.wait()
        assert seen.hexdigest() == hashlib.sha256(data).hexdigest()


async def closing_calls_back_a_last_time(make_pair: MakePair, bulk: int) -> None:
    async with _ready_pair(make_pair) as pair:
        if pair is None:
            return
        one, two = pair
        calls = _Calls()
        two.on_readable(calls)
        two.abort()
        await spin()
        last = calls.count
        assert last >= 1  # the next call raises that it is closed
        two.on_readable(calls)
        two.on_writable(calls)
        one.abort()
        await spin()
        assert calls.count == last
        for call in (two.read_nowait, lambda: two.write_nowait(b"x"), two.write_eof_nowait):
            try:
                call()
            except StreamClosedError:
                continue
            raise AssertionError(f"{call} did not raise StreamClosedError")


async def callbacks_and_coroutines_take_turns(make_pair: MakePair, bulk: int) -> None:
    async with _ready_pair(make_pair) as pair:
        if pair is None:
            return
        one, two = pair
        calls = _Calls()
        for _ in range(3):
            two.on_readable(calls)
            await one.write(b"by callback")
            await calls.next()
            two.on_readable(None)
            assert await _read_nowait(two, 11) == b"by callback"
            await one.write(b"by coroutine")
            assert await exactly(two, 12) == b"by coroutine"
        await one.write_eof()
        assert await everything(two) == b""


CASES = (
    reading_without_waiting,
    what_was_unread_is_reported,
    callbacks_end_when_told,
    writing_without_waiting_stops_when_full,
    a_transfer_by_callbacks_is_whole,
    reading_by_callbacks_is_whole,
    closing_calls_back_a_last_time,
    callbacks_and_coroutines_take_turns,
)

"""Small messages that are sent together, when a round of the loop is over."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from llama._core.errors import StreamClosedError
from llama._core.meter import Meter
from llama.tcp._io.event_loop import new_event_loop
from llama.tcp._io.stream import COALESCE_MAX, SocketStream
from tests.tcp.socket_pairs import streams, unix_sockets

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.SelectorEventLoop, new_event_loop]


@asynccontextmanager
async def pair() -> AsyncGenerator[tuple[SocketStream, SocketStream]]:
    one, two = unix_sockets()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with streams(one, two) as (near, far):
        assert isinstance(near, SocketStream) and isinstance(far, SocketStream)
        yield near, far


def has_come(stream: SocketStream) -> bytes:
    try:
        return stream.socket.recv(100_000, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


async def all_of(stream: SocketStream) -> bytes:
    parts: list[bytes] = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


def fill(stream: SocketStream) -> int:
    """Write until nothing more goes; how many bytes went."""
    count = 0
    while taken := stream.write_nowait(b"." * 1000):
        count += taken
    return count


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_message_is_sent_at_the_end_of_the_iteration(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with pair() as (near, far):
            assert near.write_buffered(b"hello")
            assert has_come(far) == b""
            assert await far.read() == b"hello"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


async def test_a_long_iteration_sends_queued_messages_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llama.tcp._io.reactor._MAX_COALESCE_DELAY", -1.0)
    async with pair() as (near, far):
        assert near.write_buffered(b"one")
        assert has_come(far) == b""
        assert far.write_buffered(b"two")
        assert has_come(far) == b"one"


async def test_later_writes_follow_the_queued_message() -> None:
    async with pair() as (near, far):
        assert near.write_buffered(b"one ")
        assert not near.write_buffered(b"")
        await near.write(b"two ")
        assert has_come(far) == b"one two "
        assert near.write_buffered(b"three ")
        assert near.write_nowait(b"four") == 4
        assert has_come(far) == b"one two three four"


async def test_a_half_close_follows_the_queued_message() -> None:
    async with pair() as (near, far):
        assert near.write_buffered(b"one")
        await near.write_eof()
        assert await all_of(far) == b"one"


async def test_closing_sends_the_queued_message_and_aborting_does_not() -> None:
    async with pair() as (near, far):
        assert near.write_buffered(b"one")
        assert far.write_buffered(b"two")
        await near.aclose()
        assert await all_of(far) == b"one"
    async with pair() as (near, far):
        assert near.write_buffered(b"one")
        near.abort()
        assert await all_of(far) == b""


async def test_a_full_socket_delays_the_queued_message() -> None:
    async with pair() as (near, far):
        count = fill(near)
        assert near.write_buffered(b"x" * COALESCE_MAX)
        async with asyncio.timeout(5):
            assert len(await far.read(count)) == count
            rest = b""
            while len(rest) < COALESCE_MAX:
                rest += await far.read()
        assert rest == b"x" * COALESCE_MAX
        assert near.write_buffered(b"again")
        assert await far.read() == b"again"


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_write_waits_for_the_queued_message(cancelled: bool) -> None:
    async with pair() as (near, far), asyncio.TaskGroup() as group:
        fill(near)
        assert near.write_buffered(b"x" * COALESCE_MAX)
        await asyncio.sleep(0)
        writing = group.create_task(near.write(b"last"))
        await asyncio.sleep(0)
        assert not near.flush_nowait()
        if cancelled:
            writing.cancel()
            await asyncio.wait((writing,))
            await group.create_task(_until_sent(near, far))
            await near.write(b"last")
        reading = group.create_task(all_of(far))
        if not cancelled:
            await writing
        await near.write_eof()
        assert (await reading).endswith(b"last" if cancelled else b"xlast")


async def _until_sent(near: SocketStream, far: SocketStream) -> None:
    while not near.flush_nowait():
        await far.read()


async def test_a_half_close_waits_for_the_queued_message() -> None:
    async with pair() as (near, far):
        fill(near)
        assert near.write_buffered(b"x" * COALESCE_MAX + b"")
        await asyncio.sleep(0)
        await near.write_eof()
        assert (await all_of(far)).endswith(b"." + b"x" * COALESCE_MAX)


async def test_closing_waits_for_the_queued_message() -> None:
    async with pair() as (near, far), asyncio.TaskGroup() as group:
        fill(near)
        assert near.write_buffered(b"x" * COALESCE_MAX)
        closing = group.create_task(near.aclose())
        assert (await all_of(far)).endswith(b"." + b"x" * COALESCE_MAX)
        await closing


async def test_messages_that_cannot_be_queued_are_not_accepted() -> None:
    async with pair() as (near, far):
        assert not near.write_buffered(b"x" * (COALESCE_MAX + 1))
        meter = Meter()
        near.attach(meter)
        assert not near.write_buffered(b"one")
        near.detach(meter)
        await near.write_eof()
        assert not near.write_buffered(b"one")
        await far.aclose()
        assert not far.write_buffered(b"one")


async def test_the_next_call_raises_the_error_of_the_queued_message() -> None:
    async with pair() as (near, far):
        far.abort()
        assert near.write_buffered(b"one")
        await asyncio.sleep(0)
        assert await near.read() == b""
        with pytest.raises((BrokenPipeError, ConnectionResetError, StreamClosedError)):
            await near.write(b"two")

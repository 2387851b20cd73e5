import asyncio
import hashlib
import ssl
from functools import partial

import pytest

from llama import StreamClosedError, TruncatedError, testing
from llama.tls._stream import TLSStream
from tests.tcp.socket_pairs import over_tcp
from tests.tls.sessions import Transport, in_memory, shaken, within_tls, without_callbacks

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
SESSIONS = {
    "1.3 over TCP": partial(shaken, over_tcp, V13),
    "1.2 over TCP": partial(shaken, over_tcp, V12),
    "1.3 in memory": partial(shaken, in_memory, V13),
    "1.3 over a stream without callbacks": partial(shaken, without_callbacks, V13),
    "1.2 over a stream without callbacks": partial(shaken, without_callbacks, V12),
    "1.3 in TLS": partial(shaken, within_tls, V13),
}


@pytest.mark.parametrize("case", testing.stream_cases(breaks=False))
@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS.keys())
async def test_a_tls_stream_passes_the_conformance_suite(
    case: testing.StreamCase, session: Transport
) -> None:
    await case(session)


@pytest.mark.parametrize("transport", [over_tcp, without_callbacks, in_memory])
async def test_an_end_without_close_notify_raises_truncated(transport: Transport) -> None:
    async with shaken(transport) as (client, server):
        await client.write(b"half of it")
        await client._inner.write_eof()
        assert await server.read() == b"half of it"
        for _ in range(2):
            with pytest.raises(TruncatedError, match="without close_notify"):
                await server.read()


async def test_a_reset_is_raised_by_read() -> None:
    async with shaken(over_tcp) as (client, server):
        await client.write(b"x")
        assert await server.read() == b"x"
        client.abort()
        with pytest.raises(ConnectionResetError):
            await server.read()


async def _send(stream: TLSStream, data: bytes) -> None:
    view = memoryview(data)
    for start in range(0, len(view), 50_000):
        await stream.write(view[start : start + 50_000])
    await stream.write_eof()


async def _digest(stream: TLSStream) -> str:
    seen = hashlib.sha256()
    while data := await stream.read():
        seen.update(data)
    return seen.hexdigest()


@pytest.mark.parametrize("transport", [over_tcp, without_callbacks])
async def test_concurrent_reads_and_writes_on_both_ends(transport: Transport) -> None:
    data = bytes(range(256)) * 65536
    async with shaken(transport) as (client, server):
        async with asyncio.TaskGroup() as group:
            seen = [group.create_task(_digest(each)) for each in (client, server)]
            for each in (client, server):
                group.create_task(_send(each, data))
        assert {task.result() for task in seen} == {hashlib.sha256(data).hexdigest()}


async def test_data_received_before_the_half_close_is_still_readable() -> None:
    async with shaken(over_tcp) as (client, server):
        await client.write(b"a" * 100_000)
        await client.write_eof()
        await server.read(1)
        await server.write_eof()
        rest = b""
        while data := await server.read():
            rest += data
        assert len(rest) == 99_999
        assert await client.read() == b""


async def test_a_slow_peer_gets_close_notify_within_bounds() -> None:
    async with shaken(over_tcp) as (client, server):
        async with asyncio.timeout(5):
            await server.aclose()  # the client never answers
        assert await client.read() == b""
        with pytest.raises(StreamClosedError):
            await server.read()


async def test_closing_wakes_a_concurrent_reader() -> None:
    async with shaken(over_tcp) as (_, server):
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_fails(server))
            await asyncio.sleep(0)
            await server.aclose()
        assert isinstance(reading.result(), StreamClosedError)


async def _fails(stream: TLSStream) -> BaseException | None:
    try:
        await stream.read()
    except Exception as error:
        return error
    return None


async def test_a_damaged_record_ends_the_session() -> None:
    async with shaken(over_tcp) as (client, server):
        await client._inner.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ConnectionError, match="failed authentication"):
            await server.read()


@pytest.mark.parametrize("transport", [over_tcp, without_callbacks, in_memory])
async def test_a_damaged_record_is_answered_by_an_alert(transport: Transport) -> None:
    async with shaken(transport) as (client, server):
        await client._inner.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ConnectionError, match="failed authentication"):
            await server.read()
        await server.aclose()
        with pytest.raises(ConnectionError, match="the peer sent the alert bad_record_mac"):
            await client.read()


@pytest.mark.parametrize("transport", [over_tcp, in_memory, within_tls])
async def test_small_messages_may_be_sent_together(transport: Transport) -> None:
    async with shaken(transport) as (client, server):
        for number in range(3):
            assert server.write_buffered(b"soon %d, " % number)
            await server.write(b"then %d, " % number)
        assert server.write_buffered(b"one, ")
        assert server.write_buffered(b"two, ")
        assert not server.write_buffered(b"x" * 16385)
        assert server.write_buffered(b"x" * 16384)
        await server.write_eof()
        assert not server.write_buffered(b"late")
        seen = b""
        while data := await client.read():
            seen += data
        assert seen == b"soon 0, then 0, soon 1, then 1, soon 2, then 2, one, two, " + b"x" * 16384


async def test_closing_sends_data_from_write_soon() -> None:
    async with shaken(over_tcp) as (client, server):
        assert server.write_buffered(b"last")
        async with asyncio.TaskGroup() as group:
            group.create_task(server.aclose())
            assert await client.read() == b"last"
            assert await client.read() == b""
            await client.aclose()


async def test_write_soon_needs_readiness_callbacks() -> None:
    async with shaken(without_callbacks) as (_, server):
        assert not server.write_buffered(b"no")

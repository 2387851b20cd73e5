"""What watches and slows the bytes of a connection, without touching them."""

import asyncio
import hashlib
import logging

import pytest

from llama import Middleware, Stream, Target, serve, stack, tcp, testing


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def silent(stream: Stream) -> None:
    while await stream.read():
        pass


async def test_an_idle_connection_ends() -> None:
    async with (
        testing.clock() as clock,
        testing.connect(stack(tcp.idle_timeout(10), echo)) as stream,
    ):
        for _ in range(3):
            await clock.advance(9)
            await stream.write(b"still here")
            assert await stream.read() == b"still here"
        await clock.advance(9.9)
        reading = asyncio.timeout(0)
        with pytest.raises(TimeoutError):
            async with reading:
                await stream.read()
        await clock.advance(0.1)
        assert await stream.read() == b""


async def test_writes_count_as_traffic() -> None:
    async def ticks(stream: Stream) -> None:
        for _ in range(5):
            await asyncio.sleep(3)
            await stream.write(b"tick")

    async with testing.clock(autojump=True), testing.connect(stack(tcp.idle_timeout(4), ticks)) as stream:
        heard = b""
        while data := await stream.read():
            heard += data
    assert heard == 5 * b"tick"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (tcp.idle_timeout(0.05), "no traffic for 0.05 s"),
        (tcp.lifetime(0.05), "the connection's lifetime of 0.05 s has ended"),
    ],
)
async def test_an_expired_connection_is_closed_in_order_and_logged_in_one_line(
    layer: Middleware[Stream, None], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(layer(silent), listen="127.0.0.1:0") as server:
        stream = await tcp.connect()(Target("127.0.0.1", server.port))
        assert await stream.read() == b""
        await stream.aclose()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and f": {words} [tcp." in record.getMessage()


async def test_an_expired_relay_ends_both_sides() -> None:
    gone = asyncio.Event()

    async def target(stream: Stream) -> None:
        try:
            await silent(stream)
        except ConnectionResetError:
            pass
        finally:
            gone.set()

    async with serve(target, listen="127.0.0.1:0") as upstream:
        handler = stack(tcp.idle_timeout(0.05), tcp.forward(upstream.address))
        async with serve(handler, listen="127.0.0.1:0") as server:
            stream = await tcp.connect()(Target("127.0.0.1", server.port))
            assert await stream.read() == b""
            await gone.wait()
            await stream.aclose()


async def test_a_timeout_error_of_the_handler_keeps_its_message(caplog: pytest.LogCaptureFixture) -> None:
    async def slow(stream: Stream) -> None:
        raise TimeoutError("the upstream sleeps")

    for each in (tcp.idle_timeout(5), tcp.lifetime(5)):
        async with testing.connect(stack(each, slow)) as stream:
            assert await stream.read() == b""
    assert [record.getMessage() for record in caplog.records] == ["the upstream sleeps"] * 2


async def test_a_lifetime_ends_a_busy_connection() -> None:
    async with testing.clock() as clock, testing.connect(stack(tcp.lifetime(10), echo)) as stream:
        for _ in range(9):
            await clock.advance(1)
            await stream.write(b"busy")
            assert await stream.read() == b"busy"
        await clock.advance(1)
        assert await stream.read() == b""


async def receive_all(stream: Stream) -> int:
    count = 0
    while data := await stream.read():
        count += len(data)
    return count


@pytest.mark.parametrize("rate", [500.0, 10_000.0, 5_000_000.0])
async def test_writes_are_throttled(rate: float) -> None:
    size = int(rate * 8)

    async def pour(stream: Stream) -> None:
        await stream.write(bytes(size))

    handler = stack(tcp.throttle(upload=rate), pour)
    async with testing.clock(autojump=True) as clock, testing.connect(handler) as stream:
        began = clock.time()
        assert await receive_all(stream) == size
        assert 6 < clock.time() - began < 9


async def test_reads_are_throttled_and_slow_the_sender() -> None:
    done: list[int] = []

    async def drain(stream: Stream) -> None:
        done.append(await receive_all(stream))

    handler = stack(tcp.throttle(download=100_000), drain)
    async with testing.clock(autojump=True) as clock, testing.connect(handler) as stream:
        began = clock.time()
        await stream.write(bytes(1_000_000))
        assert clock.time() - began > 8
        await stream.write_eof()
        await stream.read()
        assert 9 < clock.time() - began < 11
    assert done == [1_000_000]


async def test_each_direction_has_its_own_rate() -> None:
    handler = stack(tcp.throttle(download=1e9, upload=1000), echo)
    async with testing.clock(autojump=True) as clock, testing.connect(handler) as stream:
        began = clock.time()
        await stream.write(bytes(10_000))
        await stream.write_eof()
        assert await receive_all(stream) == 10_000
        assert 8 < clock.time() - began < 11


async def test_a_shared_rate_is_for_all_connections_together() -> None:
    async def pour(stream: Stream) -> None:
        await stream.write(bytes(50_000))

    handler = stack(tcp.throttle(upload=10_000, shared=True), pour)
    async with testing.clock(autojump=True) as clock:
        began = clock.time()

        async def fetch() -> int:
            async with testing.connect(handler) as stream:
                return await receive_all(stream)

        async with asyncio.TaskGroup() as group:
            fetched = [group.create_task(fetch()) for _ in range(4)]
        assert sum(task.result() for task in fetched) == 200_000
        assert 18 < clock.time() - began < 21


async def test_connections_and_bytes_are_counted_while_open() -> None:
    traffic = tcp.TrafficCounter()
    async with serve(stack(tcp.count(traffic), echo), listen="127.0.0.1:0") as server:
        stream = await tcp.connect()(Target("127.0.0.1", server.port))
        await stream.write(b"hello")
        await stream.read()
        assert repr(traffic) == "TrafficCounter(connections=1, active=1, bytes_received=5, bytes_sent=5)"
        await stream.aclose()
    assert (traffic.connections, traffic.active) == (1, 0)


SIZE = 8_000_000


async def test_all_bytes_of_a_relay_are_counted() -> None:
    sums: list[str] = []

    async def target(stream: Stream) -> None:
        digest, count = hashlib.sha256(), 0
        while data := await stream.read():
            digest.update(data)
            count += len(data)
        sums.append(digest.hexdigest())
        for start in range(0, count, 1 << 20):
            await stream.write(bytes(min(1 << 20, count - start)))

    traffic = tcp.TrafficCounter()
    sent = bytes(range(256)) * (SIZE // 256)
    async with serve(target, listen="127.0.0.1:0") as upstream:
        handler = stack(tcp.count(traffic), tcp.idle_timeout(20), tcp.forward(upstream.address))
        async with serve(handler, listen="127.0.0.1:0") as server:
            stream = await tcp.connect()(Target("127.0.0.1", server.port))
            await stream.write(sent)
            await stream.write_eof()
            assert await receive_all(stream) == len(sent)
            await stream.aclose()
    assert sums == [hashlib.sha256(sent).hexdigest()]
    assert (traffic.bytes_received, traffic.bytes_sent) == (len(sent), len(sent))


async def test_a_bulk_transfer_through_a_relay_keeps_to_its_rate() -> None:
    async def pour(stream: Stream) -> None:
        await stream.write(bytes(SIZE))

    rate = 20_000_000
    async with serve(pour, listen="127.0.0.1:0") as upstream:
        handler = stack(tcp.throttle(upload=rate), tcp.forward(upstream.address))
        async with serve(handler, listen="127.0.0.1:0") as server:
            stream = await tcp.connect()(Target("127.0.0.1", server.port))
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await receive_all(stream) == SIZE
            # The kernel's own buffers at the client are filled at the rate as well.
            assert loop.time() - began > 0.5 * SIZE / rate
            await stream.aclose()


async def test_a_bulk_transfer_is_not_idle() -> None:
    """A transfer that takes longer than the idle timeout, and goes by splice for most of it."""

    async def pour(stream: Stream) -> None:
        for _ in range(12):
            await stream.write(bytes(2_000_000))
            await asyncio.sleep(0.05)

    async with serve(pour, listen="127.0.0.1:0") as upstream:
        handler = stack(tcp.idle_timeout(0.3), tcp.forward(upstream.address))
        async with serve(handler, listen="127.0.0.1:0") as server:
            stream = await tcp.connect()(Target("127.0.0.1", server.port))
            assert await receive_all(stream) == 24_000_000
            await stream.aclose()

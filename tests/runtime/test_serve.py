import asyncio
import errno
import logging
import socket
from pathlib import Path

import pytest

from llama import (
    PeerAddress,
    RefusedError,
    Shutdown,
    Stream,
    Target,
    TruncatedError,
    UnreachableError,
    serve,
    tcp,
    testing,
    unix,
)

connect = tcp.connect()


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def open_to(address: str) -> Stream:
    return await connect(Target.parse(address))


async def test_addresses_are_the_bound_addresses(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    servers = (tcp.server("127.0.0.1:0", echo), tcp.server("[::1]:0", echo), tcp.server(f"unix:{path}", echo))
    async with serve(*servers) as server:
        first, second, third = server.addresses
        assert first.startswith("127.0.0.1:") and second.startswith("[::1]:") and third == f"unix:{path}"
        assert server.address == first and server.port == int(first.rpartition(":")[2]) > 0
        for address in server.addresses:
            async with asyncio.timeout(5):
                stream = await open_to(address)
                await stream.write(b"hi")
                assert await stream.read() == b"hi"
                await stream.aclose()


async def test_a_path_has_port_0(tmp_path: Path) -> None:
    async with serve(echo, listen=f"unix:{tmp_path}/sock") as server:
        assert server.port == 0


async def test_leaving_the_block_waits_for_open_connections() -> None:
    finish, left = asyncio.Event(), asyncio.Event()

    async def slow(stream: Stream) -> None:
        await stream.write(b"begun")
        await finish.wait()
        await stream.write(b", ended")

    async def block() -> Stream:
        async with serve(slow, listen="127.0.0.1:0") as server:
            stream = await open_to(server.address)
            assert await stream.read() == b"begun"
            address = server.address
        left.set()
        with pytest.raises(OSError):
            await open_to(address)
        return stream

    async with asyncio.TaskGroup() as group:
        task = group.create_task(block())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not left.is_set()
        finish.set()
    stream = task.result()
    assert await stream.read() == b", ended"
    assert await stream.read() == b""
    await stream.aclose()


async def test_a_draining_server_accepts_no_new_connections() -> None:
    finish = asyncio.Event()

    async def slow(stream: Stream) -> None:
        await stream.write(b"begun")
        await finish.wait()

    async with serve(slow, listen="127.0.0.1:0") as server:
        stream = await open_to(server.address)
        assert await stream.read() == b"begun"
        server.shutdown.stop()
        with pytest.raises(UnreachableError):
            await open_to(server.address)
        finish.set()
    await stream.aclose()


async def test_connections_in_the_listen_queue_are_still_served() -> None:
    clients: list[socket.socket] = []
    async with serve(echo, listen="127.0.0.1:0") as server:
        for _ in range(200):  # without a round of the loop in between
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(b"in the queue")
            client.shutdown(socket.SHUT_WR)
            clients.append(client)
    for client in clients:
        with client:
            assert client.recv(100) == b"in the queue"
            assert client.recv(100) == b""


async def test_after_the_grace_period_remaining_connections_are_cancelled() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def stuck(stream: Stream) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async with testing.clock(autojump=True) as clock:
        before = clock.time()
        async with serve(stuck, listen="127.0.0.1:0", grace=30) as server:
            stream = await open_to(server.address)
            await begun.wait()
        assert 30 <= clock.time() - before < 31
    assert ended == ["cancelled"]
    with pytest.raises(ConnectionResetError):
        await stream.read()
    stream.abort()


async def test_an_exception_in_the_block_cancels_immediately() -> None:
    begun = asyncio.Event()

    async def stuck(stream: Stream) -> None:
        begun.set()
        await asyncio.Event().wait()

    streams: list[Stream] = []
    with pytest.raises(ValueError, match="in the block"):
        async with serve(stuck, listen="127.0.0.1:0") as server:
            streams.append(await open_to(server.address))
            await begun.wait()
            raise ValueError("in the block")
    with pytest.raises(ConnectionResetError):
        await streams[0].read()
    streams[0].abort()


async def test_no_socket_stays_bound_when_one_address_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = tmp_path / "free"
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}"):
            async with serve(tcp.server(f"unix:{free}", echo), tcp.server(f"127.0.0.1:{port}", echo)):
                pass
        assert not free.exists()


async def test_a_handler_finds_the_current_shutdown() -> None:
    seen: list[Shutdown] = []

    async def look(stream: Stream) -> None:
        seen.append(Shutdown.current())

    async with serve(look, listen="127.0.0.1:0") as server:
        stream = await open_to(server.address)
        assert await stream.read() == b""
        await stream.aclose()
        assert seen == [server.shutdown]


async def test_the_peer_is_in_the_extensions(tmp_path: Path) -> None:
    seen: list[PeerAddress] = []

    async def look(stream: Stream) -> None:
        seen.append(stream.extensions[PeerAddress])

    async with serve(tcp.server("127.0.0.1:0", look), tcp.server(f"unix:{tmp_path}/s", look)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            ours = client.getsockname()
            assert await asyncio.get_running_loop().run_in_executor(None, client.recv, 1) == b""
        stream = await unix.connect(str(tmp_path / "s"))(Target("anything", 1))
        assert await stream.read() == b""
        await stream.aclose()
    assert seen == [PeerAddress(*ours), PeerAddress("unix", 0)]


# What becomes of a connection when its handler ends.


async def test_after_a_normal_return_the_stream_is_closed() -> None:
    async def greet(stream: Stream) -> None:
        await stream.write(b"hello")

    async with serve(greet, listen="127.0.0.1:0") as server:
        stream = await open_to(server.address)
        assert await stream.read() == b"hello"
        assert await stream.read() == b""
        await stream.aclose()


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        (TimeoutError(errno.ETIMEDOUT, "it died"), logging.WARNING, "it died"),
        (TruncatedError("half a file"), logging.INFO, "half a file"),
        (OSError("no route"), logging.WARNING, "no route"),
        (ValueError("a bug"), logging.ERROR, "ValueError('a bug')"),
        (ConnectionResetError("gone"), logging.INFO, "gone"),
    ],
)
async def test_after_an_exception_the_stream_is_aborted_and_logged_once(
    error: Exception, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(stream: Stream) -> None:
        raise error

    with caplog.at_level(logging.DEBUG, "llama"):
        async with serve(fails, listen="127.0.0.1:0") as server:
            stream = await open_to(server.address)
            with pytest.raises(ConnectionResetError):
                await stream.read()
            stream.abort()
    (record,) = [each for each in caplog.records if each.name.startswith("llama")]
    assert record.levelno == level
    assert text in record.getMessage() and "127.0.0.1:" in record.getMessage()
    assert "fails" in record.getMessage()
    assert (record.exc_info is not None) == (level == logging.ERROR)


@pytest.mark.parametrize(
    "error", [TimeoutError("no hello within 5 s"), RefusedError("not you"), TimeoutError()]
)
async def test_an_orderly_error_of_a_handler_closes_the_connection_without_reset(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(stream: Stream) -> None:
        await stream.write(b"bye")
        raise error

    with caplog.at_level(logging.DEBUG, "llama"):
        async with serve(fails, listen="127.0.0.1:0") as server:
            stream = await open_to(server.address)
            assert await stream.read() == b"bye"
            assert await stream.read() == b""
            await stream.aclose()
    (record,) = [each for each in caplog.records if each.name.startswith("llama")]
    assert record.levelno == logging.WARNING and record.exc_info is None
    assert (str(error) or "TimeoutError") in record.getMessage()


async def test_a_failing_connection_does_not_affect_others() -> None:
    async def picky(stream: Stream) -> None:
        if await stream.read() == b"bad":
            raise ValueError("bad")
        await stream.write(b"good")

    async with serve(picky, listen="127.0.0.1:0") as server:
        good, bad = await open_to(server.address), await open_to(server.address)
        await bad.write(b"bad")
        with pytest.raises(ConnectionResetError):
            await bad.read()
        await good.write(b"fine")
        assert await good.read() == b"good"
        for stream in (good, bad):
            await stream.aclose()

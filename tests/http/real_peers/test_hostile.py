"""Clients that mean harm, over real sockets: others are served all the same, and nothing grows without bound."""

import asyncio
import contextlib
import itertools
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import pytest

from llama import Serving, Stream, Target, http, serve, stack, tcp
from llama.http import Request, Response
from tests.http.serving import get, hello, last

RESET = struct.pack("ii", 1, 0)


@asynccontextmanager
async def crowd(address: str, size: int) -> AsyncGenerator[list[Stream]]:
    """So many connections."""
    connect, target = tcp.connect(), Target.parse(address)
    streams = [await connect(target) for _ in range(size)]
    try:
        yield streams
    finally:
        for each in streams:
            each.abort()


async def answer(address: str, said: bytes = last()) -> bytes:
    """What is heard until the other side closes."""
    async with crowd(address, 1) as (stream,):
        await stream.write(said)
        return await rest(stream)


async def rest(stream: Stream) -> bytes:
    heard = b""
    with contextlib.suppress(OSError):
        while data := await stream.read():
            heard += data
    return heard


async def is_served(address: str) -> bool:
    async with asyncio.timeout(30):
        return (await answer(address)).endswith(b"\r\n\r\nhello")


def served(
    *, first_byte: float | None = None, head: float | None = None, idle: float | None = None
) -> "contextlib.AbstractAsyncContextManager[Serving]":
    layer = http.server(first_byte_timeout=first_byte, head_timeout=head, idle_timeout=idle)
    return serve(stack(layer, hello), listen="127.0.0.1:0")


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    """What is logged as a bug."""
    caplog.set_level(logging.INFO, "llama")
    found: list[logging.LogRecord] = []
    yield found
    found += [each for each in caplog.records if each.exc_info or each.levelno >= logging.ERROR]
    assert not found


pytestmark = pytest.mark.usefixtures("complaints")


# those that take their time


async def test_who_says_its_head_byte_by_byte_is_let_go() -> None:
    async with served(head=0.3) as server, crowd(server.address, 100) as streams:
        for each in get("/" + "x" * 40)[:-4]:
            for stream in streams:
                await stream.write(bytes([each]))
        assert await is_served(server.address)
        for stream in streams:
            assert (await rest(stream)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


async def test_who_never_ends_its_head_is_let_go() -> None:
    async def drip(stream: Stream) -> bytes:
        async def say() -> None:
            await stream.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
            for number in itertools.count():
                await stream.write(b"X: %d\r\n" % number)
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            saying = group.create_task(say())
            heard = await rest(stream)
            saying.cancel()
        return heard

    async with served(head=0.3) as server, crowd(server.address, 20) as streams:
        async with asyncio.timeout(5):
            for heard in await asyncio.gather(*map(drip, streams)):
                assert heard.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@pytest.mark.parametrize("said", [b"", get()], ids=["nothing", "one request"])
async def test_who_says_no_more_is_let_go(said: bytes) -> None:
    async with served(first_byte=0.1, idle=0.1) as server, crowd(server.address, 100) as streams:
        for stream in streams:
            await stream.write(said)
        assert await is_served(server.address)
        async with asyncio.timeout(5):
            for stream in streams:
                heard = await rest(stream)
                assert (b"hello" in heard) is bool(said)


async def test_who_never_reads_is_let_go() -> None:
    ended = asyncio.Event()

    async def much(request: Request) -> Response:
        response = Response(body=bytes(50_000_000))
        response.on_close(ended.set)
        return response

    handler = stack(http.server(write_timeout=0.2), much)
    async with (
        asyncio.timeout(5),
        serve(handler, listen="127.0.0.1:0") as server,
        crowd(server.address, 1) as (stream,),
    ):
        await stream.write(get())
        await ended.wait()
        assert len(await rest(stream)) < 50_000_000


async def test_a_body_that_stops_is_let_go() -> None:
    async def read(request: Request) -> Response:
        return Response(body=str(len(await request.body.read())))

    handler = stack(http.server(body_timeout=0.2), read)
    async with serve(handler, listen="127.0.0.1:0") as server, asyncio.timeout(5):
        said = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"
        assert (await answer(server.address, said)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


# those that say much


ENDLESS = {
    "target": (b"GET /", b"x" * 1000, b"414"),
    "field": (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x" * 1000, b"431"),
    "fields": (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: x\r\n" * 100, b"431"),
    "empty lines": (b"", b"\r\n" * 500, b"400"),
    "zeros": (b"", b"\0" * 1000, b"400"),
    "letters": (b"", b"A" * 1000, b"414"),
    "chunk extension": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"x" * 1000,
        b"400",
    ),
    "trailers": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: x\r\n" * 100,
        b"431",
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_what_never_ends_is_cut_short(kind: str) -> None:
    async def read(request: Request) -> Response:
        return Response(body=await request.body.read())

    start, more, status = ENDLESS[kind]
    handler = stack(http.server(), read)
    async with serve(handler, listen="127.0.0.1:0") as server, crowd(server.address, 1) as (stream,):
        sent = 0

        async def say() -> None:
            nonlocal sent
            await stream.write(start)
            while sent < 1 << 28:
                await stream.write(more)
                sent += len(more)

        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            saying = group.create_task(say())
            heard = await rest(stream)
            saying.cancel()
        assert heard.split()[1:2] == [status], heard
        assert sent < 1 << 28


async def test_requests_whose_answers_nobody_reads_are_not_answered() -> None:
    asked = 0

    async def page(request: Request) -> Response:
        nonlocal asked
        asked += 1
        return Response(body=bytes(100_000))

    async with serve(stack(http.server(), page), listen="127.0.0.1:0") as server:
        async with crowd(server.address, 1) as (stream,):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    for _ in range(100_000):
                        await stream.write(get() * 100)
            assert 0 < asked < 1000
        assert (await answer(server.address)).endswith(bytes(1000))


# those that are many


async def test_a_flood_of_connections_is_held_at_the_limit() -> None:
    most = now = 0

    async def page(request: Request) -> Response:
        return Response(body=b"hello")

    inner = stack(http.server(), page)

    async def count(stream: Stream) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        try:
            await inner(stream)
        finally:
            now -= 1

    async with serve(stack(tcp.connection_limit(50), count), listen="127.0.0.1:0") as server:
        async with crowd(server.address, 1000) as streams:
            for stream in streams:
                await stream.write(get())
            for stream in streams[:50]:
                assert b"hello" in await stream.read()
            assert most == 50
        assert await is_served(server.address)
        assert most <= 50


@pytest.mark.parametrize("said", [b"", b"GET /", get() * 3], ids=["nothing", "half a head", "requests"])
async def test_a_flood_of_resets_leaves_nothing(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as server:
        host, _, port = server.address.rpartition(":")
        for _ in range(300):
            with socket.create_connection((host, int(port))) as client:
                client.sendall(said)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await asyncio.sleep(0)
        assert await is_served(server.address)
    assert len(caplog.records) <= 301


# those that speak something else


OTHERS = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "SOCKS5": b"\x05\x01\x00",
    "SOCKS4": b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMTP": b"EHLO a.example\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "zeros": b"\x00" * 100,
    "ones": b"\xff" * 100,
    "a version to come": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "PROXY": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + last(),
}


@pytest.mark.parametrize("kind", OTHERS)
async def test_another_protocol_is_refused(kind: str) -> None:
    async with served(head=0.3) as server, asyncio.timeout(5):
        heard = await answer(server.address, OTHERS[kind])
        assert heard.split()[1:2] in ([b"400"], [b"505"], [b"408"]), heard
        assert await is_served(server.address)

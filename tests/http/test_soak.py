"""Large bodies and slow peers: the memory of a reverse proxy stays where it is, or grows by so much for each."""

import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama import Stream, serve, stack
from llama.http import Request, Response, server
from llama.tcp._io.open_stream import open_stream
from tests.http.soak import Proxy, proxy_to

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc"),
    pytest.mark.llama_timeout(0),
]
MIB = 1 << 20
BLOCK = bytes(range(256)) * 256
GROWTH = 8 * MIB  # bytes that the memory may grow by after the first blocks
READER, WRITER = 160 * 1024, 40 * 1024  # bytes that a slow peer may cost
many = pytest.param(5000, marks=pytest.mark.soak)
large = pytest.param(4 << 30, marks=pytest.mark.soak)


async def origin(request: Request) -> Response:
    """Counts what comes up, and sends down as much as the path says."""
    if request.method == "POST":
        count = 0
        async for chunk in request.body:
            count += len(chunk)
        return Response(200, body=str(count))
    size = int(request.path[1:].partition("?")[0])
    length = {} if request.query == "chunked" else {"Content-Length": str(size)}
    return Response(200, length, blocks(size))


async def blocks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // len(BLOCK)):
        yield BLOCK


class Watch:
    """The memory of a proxy: what it grew by since the first blocks."""

    def __init__(self, proxy: Proxy, warm: int) -> None:
        self._proxy = proxy
        self._next = warm
        self._step = warm
        self._first = 0
        self.growth = 0

    def __call__(self, count: int) -> None:
        if count >= self._next:
            self._next = count + self._step
            memory = self._proxy.memory
            self._first = self._first or memory
            self.growth = max(self.growth, memory - self._first)


@pytest.mark.parametrize("size", [64 * MIB, large])
async def test_large_bodies_take_no_memory(size: int) -> None:
    async with (
        serve(stack(server(), origin), listen="127.0.0.1:0") as serving,
        proxy_to(serving.port) as proxy,
    ):
        for move in (download, upload):
            for framing in ("length", "chunked"):
                watch = Watch(proxy, size // 16)
                await move(proxy, size, framing, watch)
                assert watch.growth < GROWTH, f"{move.__name__} by {framing}: it grew by {watch.growth} bytes"
                report(
                    f"{move.__name__} of {size} bytes by {framing}", f"grown by {watch.growth // 1024} KiB"
                )


async def download(proxy: Proxy, size: int, framing: str, watch: Watch) -> None:
    stream = open_stream(await plain_connection(proxy), "proxy")
    await stream.write(f"GET /{size}?{framing} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
    head, _, body = (await stream.read()).partition(b"\r\n\r\n")
    count = len(body)
    while data := await stream.read(1 << 18):
        count += len(data)
        watch(count)
    await stream.aclose()
    assert head.startswith(b"HTTP/1.1 200 ") and count == size


async def upload(proxy: Proxy, size: int, framing: str, watch: Watch) -> None:
    stream = open_stream(await plain_connection(proxy), "proxy")
    how = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    await stream.write(f"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{how}\r\n\r\n".encode())
    block = BLOCK if framing == "length" else b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
    for number in range(size // len(BLOCK)):
        await stream.write(block)
        watch(number * len(BLOCK))
    if framing == "chunked":
        await stream.write(b"0\r\n\r\n")
    heard = b""
    while data := await stream.read():
        heard += data
    await stream.aclose()
    assert heard.endswith(f"\r\n\r\n{size}".encode())


async def plain_connection(proxy: Proxy) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", proxy.port))
    sock.setblocking(False)
    return sock


async def connect_all(proxy: Proxy, count: int, said: bytes) -> list[Stream]:
    """So many connections with small buffers, each of which has said that."""
    streams: list[Stream] = []
    for _ in range(count):
        stream = open_stream(await proxy.connect(), "proxy")
        streams.append(stream)
        await stream.write(said)
    return streams


def report(what: str, found: str) -> None:
    print(f"{what}: {found}", file=sys.stderr)


@pytest.mark.parametrize("count", [100, many])
async def test_slow_readers_cost_a_bounded_amount_each(count: int) -> None:
    async with (
        serve(stack(server(), origin), listen="127.0.0.1:0") as serving,
        proxy_to(serving.port, small=True) as proxy,
    ):
        before = proxy.memory
        streams = await connect_all(proxy, count, f"GET /{1 << 40} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        after: list[int] = []
        for _ in range(4):  # each takes a little, again and again
            for stream in streams:
                assert await stream.read(1024)
            after.append(proxy.memory)
        report(f"{count} slow readers", f"{(after[-1] - before) // count // 1024} KiB each")
        for stream in streams:
            stream.abort()
    assert after[-1] - before < count * READER + GROWTH
    assert after[-1] - after[0] < count * 8192 + GROWTH, "it goes on growing"


@pytest.mark.parametrize("count", [100, many])
async def test_slow_writers_cost_a_bounded_amount_each(count: int) -> None:
    async with (
        serve(stack(server(), origin), listen="127.0.0.1:0") as serving,
        proxy_to(serving.port, small=True) as proxy,
    ):
        before = proxy.memory
        streams = await connect_all(
            proxy, count, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
        )
        after: list[int] = []
        for _ in range(4):
            for stream in streams:
                await stream.write(bytes(1024))
            after.append(proxy.memory)
        report(f"{count} slow writers", f"{(after[-1] - before) // count // 1024} KiB each")
        for stream in streams:
            stream.abort()
    assert after[-1] - before < count * WRITER + GROWTH
    assert after[-1] - after[0] < count * 8192 + GROWTH, "it goes on growing"

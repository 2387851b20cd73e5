"""Bodies of any size stream through: memory stays flat, and what flows is seen at once."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from llama import ConnectionHandler, http, layer, mitm, stack, tls
from llama.http import Request, RequestHandler, Response
from llama.mitm import Recorded
from tests.mitm.worlds import HOST, World, fronted

MB = 1 << 20
Way: TypeAlias = Callable[..., Awaitable[None]]
PIECE = (b"from the cloud " * 4400)[: 1 << 16]


@layer
async def rewrite(request: Request, inner: RequestHandler) -> Response:
    request.body = request.body.replace(b"cloud", b"llama")
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sized(amount: int) -> RequestHandler:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(amount // len(PIECE)):
            yield PIECE

    async def answer(request: Request) -> Response:
        return Response(200, {"Content-Type": "text/plain"}, pieces())

    return answer


def site(world: World, exchange: RequestHandler, version: str) -> ConnectionHandler:
    """A site that speaks one version of HTTP over TLS; the proxy then offers its client that one alone."""
    offered = {"1.1": "http/1.1", "2": "h2"}[version]
    return stack(tls.server(*world.files(), alpn=[offered]), http.server(), exchange)


class Flat:
    """The memory of this process, all three sides in it, once so much has passed."""

    def __init__(self) -> None:
        self.base = self.most = self.passed = 0

    def note(self, count: int) -> None:
        self.passed += count
        if not self.base and self.passed > 8 * MB:
            self.base = resident()
        self.most = max(self.most, resident())

    def check(self, amount: int) -> None:
        assert self.passed == amount // len(PIECE) * len(PIECE)
        assert self.most - self.base < 16 * MB, f"{(self.most - self.base) / MB:.1f} MB more"


async def download(world: World, amount: int, version: str, *layers: object) -> None:
    memory = Flat()
    async with fronted(world, site(world, sized(amount), version), *layers) as front:
        response = await front.client(Request("GET", f"https://{HOST}/"))
        assert response.version == version
        async for chunk in response.body:
            memory.note(len(chunk))
    memory.check(amount)


async def upload(world: World, amount: int, version: str, *layers: object) -> None:
    memory = Flat()

    async def count(request: Request) -> Response:
        async for chunk in request.body:
            memory.note(len(chunk))
        return Response(200, body=request.version)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(amount // len(PIECE)):
            yield PIECE

    async with fronted(world, site(world, count, version), *layers) as front:
        response = await front.client(Request("POST", f"https://{HOST}/", (), pieces()))
        assert await response.body.read() == version.encode()
    memory.check(amount)


BOTH = pytest.mark.parametrize("version", ["1.1", "2"])
WAYS = pytest.mark.parametrize("way", [download, upload])
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@LINUX
@BOTH
@WAYS
async def test_a_body_streams_with_constant_memory(world: World, way: Way, version: str) -> None:
    await way(world, 64 * MB, version, rewrite)


@LINUX
@BOTH
async def test_a_recorded_download_streams_with_constant_memory(
    world: World, version: str, tmp_path: Path
) -> None:
    await download(world, 64 * MB, version, mitm.record(tmp_path / "out.har"))
    kept = [each.stat().st_size for each in (tmp_path / "out.har.bodies").iterdir()]
    assert kept == [64 * MB // len(PIECE) * len(PIECE)]


@pytest.mark.soak
@pytest.mark.llama_timeout(900)
@LINUX
@BOTH
@WAYS
async def test_two_gigabytes_stream_with_constant_memory(world: World, way: Way, version: str) -> None:
    await way(world, 2048 * MB, version, rewrite)


async def test_exchanges_are_visible_while_they_stream(world: World) -> None:
    go = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: cloud 1\n\n"
        await go.wait()
        yield b"data: cloud 2\n\n"

    async def events(request: Request) -> Response:
        return Response(200, {"Content-Type": "text/event-stream"}, pieces())

    found: list[Recorded] = []
    async with fronted(world, world.https(events), mitm.record(found.append), rewrite) as front:
        response = await front.client(Request("GET", f"https://{HOST}/"))
        assert await response.body.read_chunk() == b"data: llama 1\n\n"
        go.set()
        assert await response.body.read_chunk() == b"data: llama 2\n\n"
        assert await response.body.read_chunk() == b""
    assert found[0].response_body.data == b"data: llama 1\n\ndata: llama 2\n\n"


async def test_an_upload_streams(world: World) -> None:
    async def count(request: Request) -> Response:
        size = 0
        async for chunk in request.body:
            size += len(chunk)
        return Response(200, body=str(size))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield PIECE

    async with fronted(world, world.https(count), rewrite) as front:
        response = await front.client(Request("POST", f"https://{HOST}/", (), pieces()))
        assert int(await response.body.read()) == 160 * len(PIECE)

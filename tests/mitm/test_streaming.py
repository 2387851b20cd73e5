"""Bodies of any size stream through: memory stays flat, and what flows is seen at once."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llama import layer, mitm
from llama.http import Exchange, Request, Response
from llama.mitm import Recorded
from tests.mitm.worlds import HOST, World, fronted

MB = 1 << 20
PIECE = (b"from the cloud " * 4400)[: 1 << 16]


@layer
async def rewrite(request: Request, inner: Exchange) -> Response:
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sized(amount: int) -> Exchange:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(amount // len(PIECE)):
            yield PIECE

    async def answer(request: Request) -> Response:
        return Response(200, {"Content-Type": "text/plain"}, pieces())

    return answer


async def flat(world: World, amount: int, *layers: object) -> None:
    """Download so much, and look at the memory meanwhile: of all three sides, for they are one process."""
    async with fronted(world, world.https(sized(amount)), *layers) as front:
        response = await front.client(Request("GET", f"https://{HOST}/"))
        got, most, base = 0, 0, 0
        async for chunk in response.body:
            got += len(chunk)
            if not base and got > 8 * MB:
                base = resident()
            most = max(most, resident())
    assert got == amount // len(PIECE) * len(PIECE)
    assert most - base < 16 * MB, f"{(most - base) / MB:.1f} MB more"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_a_download_streams_at_flat_memory(world: World) -> None:
    await flat(world, 64 * MB, rewrite)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_a_recorded_download_streams_at_flat_memory(world: World, tmp_path: Path) -> None:
    await flat(world, 64 * MB, mitm.record(tmp_path / "out.har"))
    kept = [each.stat().st_size for each in (tmp_path / "out.har.bodies").iterdir()]
    assert kept == [64 * MB // len(PIECE) * len(PIECE)]


@pytest.mark.soak
@pytest.mark.llama_timeout(900)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_two_gigabytes_stream_at_flat_memory(world: World) -> None:
    await flat(world, 2048 * MB, rewrite)


async def test_what_flows_is_seen_at_once(world: World) -> None:
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
        assert await response.body.chunk() == b"data: llama 1\n\n"
        go.set()
        assert await response.body.chunk() == b"data: llama 2\n\n"
        assert await response.body.chunk() == b""
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

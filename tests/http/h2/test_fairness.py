"""A stream that is not read holds up no other on its connection, whatever carries it and on which side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llama import Stream, Target, http, serve, stack, tcp
from llama.http import Request, Response
from llama.http._client.client import Client
from llama.http._messages.upgrade import UpgradedConnection

LARGE = 8_000_000  # more than all windows and sockets hold


async def app(request: Request) -> Response:
    """Much, or little, or what it was sent."""
    if request.path == "/much":
        return Response(200, body=[bytes(100_000)] * (LARGE // 100_000))
    if request.path == "/unread":
        await request.body.read_chunk()
        await asyncio.Event().wait()
    return Response(200, body=await request.body.read() or b"little")


@asynccontextmanager
async def world(way: str) -> AsyncGenerator[tuple[Client, list[Client]]]:
    """A client of the application with one connection, straight or through reverse proxies that have one each."""
    async with serve(tcp.server("127.0.0.1:0", stack(http.server(), app))) as server:
        target = server.addresses[0]
        if way == "straight":
            async with one_connection(target) as client:
                yield client, [client]
            return
        async with http.client(max_per_host=1) as between:
            proxy = http.reverse_proxy(f"h2c://{target}", client=between)
            async with (
                serve(tcp.server("127.0.0.1:0", stack(http.server(), proxy))) as front,
                one_connection(front.addresses[0]) as client,
            ):
                yield client, [client, between]


@asynccontextmanager
async def one_connection(address: str) -> AsyncGenerator[Client]:
    async with http.client(lambda _: tcp.connect()(Target.parse(address)), max_per_host=1) as client:
        yield client


async def little(client: Client) -> bytes:
    response = await client(Request("GET", "h2c://a/"))
    return await response.body.read()


@pytest.mark.parametrize("way", ["straight", "by a reverse proxy"])
async def test_a_response_that_nobody_reads(way: str) -> None:
    async with asyncio.timeout(30), world(way) as (client, all):
        slow = [await client(Request("GET", "h2c://a/much")) for _ in range(5)]
        for each in slow:
            await each.body.read_chunk()
        assert [await little(client) for _ in range(50)] == [b"little"] * 50
        assert [each.state.open().count for each in all] == [1] * len(all)
        for each in slow:  # and it goes on when it is read
            size = 0
            while chunk := await each.body.read_chunk():
                size += len(chunk)
            assert LARGE - 2_000_000 < size < LARGE


@pytest.mark.parametrize("way", ["straight", "by a reverse proxy"])
async def test_a_request_that_nobody_reads(way: str) -> None:
    sent = 0

    async def much() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100_000
            yield bytes(100_000)

    async with asyncio.timeout(30), world(way) as (client, all), asyncio.TaskGroup() as group:
        slow = [group.create_task(client(Request("POST", "h2c://a/unread", (), much()))) for _ in range(5)]
        for _ in range(10):
            small = [little(client) for _ in range(5)]
            assert await asyncio.gather(*small) == [b"little"] * 5
            response = await client(Request("POST", "h2c://a/", (), bytes(300_000)))
            assert len(await response.body.read()) == 300_000
        assert 0 < sent < 5 * LARGE
        assert [each.state.open().count for each in all] == [1] * len(all)
        for each in slow:
            each.cancel()


async def test_a_tunnel_that_nobody_reads() -> None:
    async def pour(stream: Stream) -> None:
        while True:
            await stream.write(bytes(100_000))

    async def mixed(request: Request) -> Response:
        return Response(200, upgrade=pour) if request.method == "CONNECT" else await app(request)

    async with (
        asyncio.timeout(30),
        serve(tcp.server("127.0.0.1:0", stack(http.server(), mixed))) as server,
        one_connection(server.addresses[0]) as client,
    ):
        request = Request("CONNECT", "b:443")
        request.scheme = "h2c"
        request.extensions.set(http.Origin.parse("h2c://a"))
        tunnel = await client(request)
        assert isinstance(tunnel.upgrade, UpgradedConnection)
        assert await tunnel.upgrade.stream.read(1) == b"\0"
        assert [await little(client) for _ in range(50)] == [b"little"] * 50
        assert client.state.open().count == 1
        await tunnel.aclose()

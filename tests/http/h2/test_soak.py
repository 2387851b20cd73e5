"""A minute of HTTP/2: a thousand streams at a time over ten connections, with nothing lost and nothing that grows."""

from __future__ import annotations

import asyncio
import gc
import random
import time

import pytest

from llama import http, serve, stack, tcp
from llama._core.target import Target
from llama.http import Request, Response
from llama.http._client.client import Client

SECONDS = 60.0
CONNECTIONS, STREAMS = 10, 100


async def app(request: Request) -> Response:
    if request.path == "/slow":
        await asyncio.sleep(random.random())
    body = await request.body.read(1_000_000)
    return Response(200, {"x-length": str(len(body))}, body)


async def one(client: Client, number: int) -> None:
    data = random.randbytes(random.choice((0, 10, 1_000, 50_000)))
    path = "/slow" if number % 3 == 0 else "/"
    response = await client(Request("POST", f"h2c://a{path}", (), data))
    if number % 50 == 49:  # some are not wanted after all
        await response.aclose()
        return
    assert await response.body.read(1_000_000) == data


async def busy(client: Client, end: float) -> int:
    done = 0
    while time.monotonic() < end:
        await one(client, done)
        done += 1
    return done


@pytest.mark.soak
@pytest.mark.llama_timeout(300)
async def test_a_thousand_streams_for_a_minute() -> None:
    async with serve(tcp.server("127.0.0.1:0", stack(http.server(), app))) as server:
        target = Target.parse(server.addresses[0])
        clients = [http.client(lambda _: tcp.connect()(target), max_per_host=1) for _ in range(CONNECTIONS)]
        before = 0
        try:
            for seconds in (5.0, SECONDS):
                end = time.monotonic() + seconds
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(busy(each, end)) for each in clients for _ in range(STREAMS)]
                assert all(task.result() for task in tasks)
                assert [each.state.pool.count for each in clients if each.state.pool is not None] == [1] * 10
                gc.collect()
                objects = len(gc.get_objects())
                assert not before or objects < before * 1.1 + 1000
                before = objects
        finally:
            for client in clients:
                await client.state.close()

"""HTTP/3 requests, so many at a time on as many connections, or many bytes through one; by our client.

The servers' CPU time is what is compared, and each has the same client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.load.driver import Options, options, report, wait_for_go
from llama import http
from llama.http import Request, RequestHandler

SLICE = bytes(range(256)) * 4096
KNOWN = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate", "User-Agent": "load/1.0"}


async def fetch(client: RequestHandler, url: str) -> int:
    """GET it: the bytes of the answer, which has to be 200."""
    response = await client(Request("GET", url, KNOWN))
    if response.status != 200:
        raise ValueError(f"{url} answered {response.status}")
    return sum([len(chunk) async for chunk in response.body])


async def bulk(clients: Sequence[RequestHandler], url: str, given: Options) -> int:
    """So many bytes, whole megabytes, in one request."""
    amount = given.amount // len(SLICE) * len(SLICE)
    if given.direction == "down":
        if await fetch(clients[0], f"{url}give?{amount}") != amount:
            raise ValueError("fewer bytes than were asked for came")
        return amount
    response = await clients[0](Request("POST", f"{url}take", KNOWN, SLICE * (amount // len(SLICE))))
    if await response.body.read() != str(amount).encode():
        raise ValueError("the server counted other bytes than were sent")
    return amount


async def requests(clients: Sequence[RequestHandler], url: str, given: Options) -> int:
    """So many requests: as many at a time on each connection as there are connections."""
    lanes = [client for client in clients for _ in range(given.connections)]
    times = given.amount // len(lanes)

    async def lane(client: RequestHandler) -> None:
        for _ in range(times):
            await fetch(client, url)

    async with asyncio.TaskGroup() as group:
        for client in lanes:
            group.create_task(lane(client))
    return times * len(lanes)


async def main() -> None:
    given = options()
    url = f"https://127.0.0.1:{given.address[1]}/"
    clients = [http.h3_client(verify=False) for _ in range(given.connections)]
    work = bulk if given.connections == 1 else requests
    for client in clients:  # the handshakes are not counted
        await fetch(client, url)
    await asyncio.to_thread(wait_for_go)
    async with asyncio.timeout(given.seconds + 30):
        done = await work(clients, url, given)
    await asyncio.to_thread(report, done if work is requests else done / 1e9)


if __name__ == "__main__":
    asyncio.run(main())

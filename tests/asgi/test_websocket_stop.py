"""What becomes of an application's WebSockets when the server stops."""

import asyncio
from typing import Any

from llama import asgi, http, serve, stack, tcp
from llama.ws._wire import Close
from tests.ws.talking import Raw, open_stream


async def test_a_stop_closes_with_1001_and_notifies_the_application() -> None:
    inside = asyncio.Event()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan here")
        await receive()
        await send({"type": "websocket.accept"})
        inside.set()
        seen.append(await receive())

    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        addresses: asyncio.Queue[str] = asyncio.Queue()

        async def run() -> None:
            async with serve(tcp.server("127.0.0.1:0", stack(http.server(), asgi(app)))) as server:
                addresses.put_nowait(str(server.addresses[0]))
                await stop.wait()

        group.create_task(run())
        client = Raw(await open_stream(await addresses.get()))
        await client.open()
        await inside.wait()
        stop.set()
        assert await client.hear() == Close(1001, "the server is going away")
        await client.say(client.frames.close(1001))
        assert await client.hear() is None
        client.stream.abort()
    assert seen == [{"type": "websocket.disconnect", "code": 1001, "reason": ""}]

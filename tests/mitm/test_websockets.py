"""WebSockets through the proxy that looks inside."""

import asyncio
import ssl
from pathlib import Path
from typing import cast

from websockets.asyncio.client import connect as peer_connect

from llama import Handler, http, mitm, stack, tls, ws
from llama.mitm import Recorded
from llama.mitm._har import to_entry
from tests.mitm.worlds import HOST, World, fronted


async def echo(socket: ws.WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


def shout(message: ws.Message) -> ws.Message:
    if isinstance(message.data, str) and message.from_client:
        message.data = message.data.upper()
    return message


def site(world: World) -> Handler:
    return stack(tls.server(*world.files()), http.server(), ws.server(), echo)


async def test_messages_go_through_hooks(world: World) -> None:
    found: list[Recorded] = []
    recorded = asyncio.Event()

    def sink(each: Recorded) -> None:
        found.append(each)
        recorded.set()

    layers = (mitm.record(sink), ws.inspect(shout))
    async with fronted(world, site(world), *layers) as front:
        async with ws.connect(f"wss://{HOST}/chat", client=front.client) as socket:
            await socket.send("hello")
            assert await socket.receive() == "HELLO"
            await socket.send(b"\x00\x01")
            assert await socket.receive() == b"\x00\x01"
        await recorded.wait()
    messages = [(each.from_client, each.data) for each in found[0].messages]
    assert messages == [(True, "hello"), (False, "HELLO"), (True, b"\x00\x01"), (False, b"\x00\x01")]
    entry = to_entry(found[0], Path())
    assert entry["_resourceType"] == "websocket"
    kept = cast("list[dict[str, object]]", entry["_webSocketMessages"])
    assert [(each["type"], each["opcode"], each["data"]) for each in kept] == [
        ("send", 1, "hello"),
        ("receive", 1, "HELLO"),
        ("send", 2, "AAE="),
        ("receive", 2, "AAE="),
    ]


async def test_other_peoples_clients(world: World) -> None:
    context = ssl.create_default_context(cafile=world.pem)
    async with fronted(world, site(world), ws.inspect(shout)) as front:
        proxy = f"http://127.0.0.1:{front.port}"
        async with peer_connect(f"wss://{HOST}/chat", proxy=proxy, ssl=context) as socket:
            await socket.send("hello")
            assert await socket.recv() == "HELLO"


async def test_messages_beyond_the_room_are_counted(world: World) -> None:
    found: list[Recorded] = []
    recorded = asyncio.Event()

    def sink(each: Recorded) -> None:
        found.append(each)
        recorded.set()

    async with fronted(world, site(world), mitm.record(sink, inline=10)) as front:
        async with ws.connect(f"wss://{HOST}/chat", client=front.client) as socket:
            for _ in range(3):
                await socket.send("hello")
                assert await socket.receive() == "hello"
        await recorded.wait()
    assert (len(found[0].messages), found[0].left_out) == (2, 4)

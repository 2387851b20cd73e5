"""WebSockets through the proxy that looks inside."""

import asyncio
import json
import ssl
from pathlib import Path
from typing import cast

import pytest
from websockets.asyncio.client import connect as peer_connect

from llama import ConnectionHandler, LlamaError, StreamClosedError, http, mitm, stack, tls, ws
from llama.mitm import Recorded
from llama.mitm._har.document import to_entry
from llama.mitm._har.file import document
from tests.mitm.worlds import HOST, World, fronted


async def echo(socket: ws.WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


def shout(message: ws.Message) -> ws.Message:
    if isinstance(message.data, str) and message.from_client:
        message.data = message.data.upper()
    return message


def site(world: World) -> ConnectionHandler:
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


async def test_websocket_clients_of_other_libraries(world: World) -> None:
    context = ssl.create_default_context(cafile=world.pem)
    async with fronted(world, site(world), ws.inspect(shout)) as front:
        proxy = f"http://127.0.0.1:{front.port}"
        async with peer_connect(f"wss://{HOST}/chat", proxy=proxy, ssl=context) as socket:
            await socket.send("hello")
            assert await socket.recv() == "HELLO"


async def test_messages_beyond_the_limit_are_counted(world: World, tmp_path: Path) -> None:
    found: list[Recorded] = []
    recorded = asyncio.Event()

    def sink(each: Recorded) -> None:
        found.append(each)
        recorded.set()

    async with fronted(world, site(world), mitm.record(sink, memory_limit=10)) as front:
        async with ws.connect(f"wss://{HOST}/chat", client=front.client) as socket:
            for _ in range(3):
                await socket.send("hello")
                assert await socket.receive() == "hello"
        await recorded.wait()
    assert (len(found[0].messages), found[0].dropped_messages) == (2, 4)
    (tmp_path / "out.har").write_text(json.dumps(document([to_entry(found[0], tmp_path)])))
    assert mitm.read_har(tmp_path / "out.har")[0].dropped_messages == 4
    replayed = mitm.replay_layer(tmp_path / "out.har", strict=True)
    async with fronted(world, site(world), replayed, connect_upstream_first=False) as front:
        with pytest.raises(LlamaError, match="502"):
            async with ws.connect(f"wss://{HOST}/chat", client=front.client):
                pass


async def test_a_websocket_is_replayed_without_the_upstream(world: World, tmp_path: Path) -> None:
    path = tmp_path / "out.har"
    async with (
        fronted(world, site(world), mitm.record(path)) as front,
        ws.connect(f"wss://{HOST}/chat", client=front.client) as socket,
    ):
        for data in ("one", b"\x00", "two"):
            await socket.send(data)
            assert await socket.receive() == data
    text = path.read_text().replace("https://", "wss://")  # as Chromium writes it
    (tmp_path / "wss.har").write_text(text)
    for har in (path, tmp_path / "wss.har"):
        replayed = mitm.replay_layer(har, strict=True, repeat=True)
        async with fronted(world, site(world), replayed, connect_upstream_first=False) as front:
            async with ws.connect(f"wss://{HOST}/chat", client=front.client) as socket:
                for data in ("one", b"\x00", "two"):
                    await socket.send(data)
                    assert await socket.receive() == data
            async with ws.connect(f"wss://{HOST}/chat", client=front.client) as socket:
                await socket.send("something else")
                with pytest.raises(StreamClosedError, match="1008 this message was not recorded"):
                    await socket.receive()
            with pytest.raises(LlamaError):
                async with ws.connect(f"wss://{HOST}/other", client=front.client):
                    pass
            assert front.to.targets == []


async def test_the_side_that_closed_first_is_recorded_and_replayed(world: World) -> None:
    async def goodbye(socket: ws.WebSocket) -> None:
        await socket.send("goodbye")
        await socket.close(4000, "enough")

    found: list[Recorded] = []
    upstream = stack(tls.server(*world.files()), http.server(), ws.server(), goodbye)
    layers = [mitm.record(found.append)]
    for replays in (False, True):
        if replays:
            layers = [mitm.replay_layer(found.copy(), strict=True)]
        async with (
            fronted(world, upstream, *layers, connect_upstream_first=not replays) as front,
            ws.connect(f"wss://{HOST}/chat", client=front.client) as socket,
        ):
            assert await socket.receive() == "goodbye"
            with pytest.raises(StreamClosedError, match="4000"):
                await socket.receive()
    assert (found[0].close_code, found[0].closed_by_client) == (4000, False)

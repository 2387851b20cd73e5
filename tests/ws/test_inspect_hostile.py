"""The inspected relay with peers that are slow, hostile or many, and with compression that differs on both sides."""

import asyncio
import logging
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect as peer_connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as peer_serve
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)

from llama import StreamClosedError, http, serve, stack, tcp, ws
from llama.ws import Message, RelayedWebSocket, WebSocket
from llama.ws._wire import Close
from tests.ws.talking import Raw, echo, open_stream, raw, serving
from tests.ws.test_inspect import Backend, inspecting, same


async def say_back(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


CLIENTS = [
    None,
    ClientPerMessageDeflateFactory(),
    ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
    ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
    ClientPerMessageDeflateFactory(client_max_window_bits=None),
]
SERVERS = [
    None,
    ServerPerMessageDeflateFactory(),
    ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
    ServerPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
]


@pytest.mark.parametrize("theirs", range(len(SERVERS)))
@pytest.mark.parametrize("ours", range(len(CLIENTS)))
async def test_each_side_has_its_own_compression(ours: int, theirs: int) -> None:
    client, server = CLIENTS[ours], SERVERS[theirs]
    seen: list[object] = []

    def count(message: Message) -> Message:
        seen.append(message.data)
        return message

    options: dict[str, Any] = {"compression": None}
    chance = random.Random(ours * 10 + theirs)
    messages: list[str | bytes] = [chance.randbytes(n) for n in (0, 1, 5000, 70_000)]
    messages += ["aaaa" * n for n in (0, 1, 3000, 100_000)] * 2
    async with peer_serve(
        say_back, "127.0.0.1", 0, extensions=[server] if server else None, **options
    ) as upstream:
        port = upstream.sockets[0].getsockname()[1]
        proxy = stack(ws.inspect(count), http.reverse_proxy(f"http://127.0.0.1:{port}"))
        async with (
            serving(proxy) as front,
            peer_connect(f"ws://{front}/", extensions=[client] if client else None, **options) as peer,
        ):
            for message in messages:
                await peer.send(message)
                assert await peer.recv() == message
    assert seen == [each for message in messages for each in (message, message)]


text_or_bytes = st.one_of(st.text(max_size=200), st.binary(max_size=200))


@settings(deadline=None, max_examples=15)
@given(st.lists(text_or_bytes, max_size=8), st.integers(0, 3))
def test_hooks_change_compressed_messages(said: list[str | bytes], drop: int) -> None:
    def change(message: Message) -> Message | None:
        if len(message.data) % 4 == drop:
            return None
        if message.from_client:
            message.data += "!" if isinstance(message.data, str) else b"!"  # type: ignore[operator]
        return message

    async def main() -> None:
        async with (
            inspecting(change, stack(ws.server(), echo)) as front,
            peer_connect(f"ws://{front}/") as peer,
        ):
            expected: list[str | bytes] = []
            for each in said:
                await peer.send(each)
                changed = each + "!" if isinstance(each, str) else each + b"!"
                if len(each) % 4 != drop and len(changed) % 4 != drop:
                    expected.append(changed)
            assert [await peer.recv() for _ in expected] == expected

    asyncio.run(main())


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_garbage_from_either_side_ends_the_conversation_alone(
    garbage: bytes, from_client: bool, compressed: bool
) -> None:
    async def main() -> None:
        backend = Backend()
        async with inspecting(same, stack(ws.server(), backend)) as front, raw(front) as client:
            lines = ["Sec-WebSocket-Extensions: permessage-deflate"] if compressed else []
            await client.open(*lines)
            server = await backend.opened.get()
            end = client.stream if from_client else server._end.stream
            await end.write(garbage)
            await end.aclose()
            try:
                if from_client:
                    while True:
                        await server.receive()
                else:
                    await client.stream.read()
            except (OSError, EOFError, ValueError):
                pass
            backend.done.set()

    logging.getLogger("llama.server").setLevel(logging.ERROR)
    try:
        asyncio.run(main())
    finally:
        logging.getLogger("llama.server").setLevel(logging.NOTSET)


async def test_a_hook_that_takes_its_time_holds_up_one_side_only() -> None:
    go = asyncio.Event()
    backend = Backend()

    async def slow(message: Message) -> Message:
        if message.from_client:
            await go.wait()
        return message

    async with inspecting(slow, stack(ws.server(), backend)) as front, ws.connect(f"ws://{front}/") as client:
        server = await backend.opened.get()
        await client.send("held up")
        for number in range(10):
            await server.send(str(number))
            assert await client.receive() == str(number)
        go.set()
        assert await server.receive() == "held up"
        backend.done.set()


async def test_a_hook_that_never_returns_does_not_outlive_its_client() -> None:
    inside = asyncio.Event()
    cancelled = asyncio.Event()

    async def stuck(message: Message) -> Message:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return message

    backend = Backend()
    async with inspecting(stuck, stack(ws.server(), backend)) as front, raw(front) as client:
        await client.open()
        server = await backend.opened.get()
        await client.say(client.frames.message("a"))
        await inside.wait()
        server._end.put_close(4000)
        await server._end.flush()
        assert await client.hear() == Close(4000, "")
        await server._end.stream.aclose()
        backend.done.set()
        await cancelled.wait()


async def test_many_conversations_at_once() -> None:
    closed: list[int | None] = []

    def note(conversation: RelayedWebSocket) -> None:
        closed.append(conversation.close_code)

    async def talk(front: str, number: int) -> None:
        async with ws.connect(f"ws://{front}/") as socket:
            for turn in range(5):
                await socket.send(f"{number} {turn}")
                assert await socket.receive() == f"{number} {turn}"

    async with (
        inspecting(same, stack(ws.server(), echo), on_close=note) as front,
        asyncio.TaskGroup() as group,
    ):
        for number in range(100):
            group.create_task(talk(front, number))
    assert closed == [1000] * 100


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_bomb_is_not_inflated_beyond_the_limit(compressed: bool) -> None:
    """A megabyte of zeros is a kilobyte on the wire."""
    seen: list[int] = []

    def note(message: Message) -> Message:
        seen.append(len(message.data))
        return message

    async with (
        inspecting(note, stack(ws.server(max_size=1 << 24), echo), max_size=100_000) as front,
        ws.connect(f"ws://{front}/", compression=compressed) as socket,
    ):
        await socket.send(b"\0" * 100_000)
        assert len(await socket.receive()) == 100_000
        await socket.send(b"\0" * 1_000_000)
        with pytest.raises(StreamClosedError, match="1009"):
            await socket.receive()
    assert seen == [100_000, 100_000]


async def test_a_server_that_is_torn_down_leaves_nothing() -> None:
    """A second signal cancels: hooks and both directions end with it."""
    backend = Backend()
    async with serving(stack(ws.server(), backend)) as address:
        proxy = stack(http.server(), ws.inspect(same), http.reverse_proxy(f"http://{address}"))
        clients: list[Raw] = []
        servers: list[WebSocket] = []
        with pytest.raises(RuntimeError, match="torn down"):
            async with serve(tcp.server("127.0.0.1:0", proxy)) as front:
                clients.append(Raw(await open_stream(str(front.addresses[0]))))
                await clients[0].open()
                servers.append(await backend.opened.get())
                raise RuntimeError("torn down")
        with pytest.raises((OSError, EOFError)):
            await servers[0].receive()
        backend.done.set()
        clients[0].stream.abort()


async def test_a_client_that_vanishes_within_a_frame_ends_the_conversation() -> None:
    backend = Backend()
    async with inspecting(same, stack(ws.server(), backend)) as front, raw(front) as client:
        await client.open()
        server = await backend.opened.get()
        await client.say(client.frames.message("whole") + client.frames.message("not whole")[:7])
        assert await server.receive() == "whole"
        await client.stream.aclose()
        with pytest.raises(EOFError):
            await server.receive()
        backend.done.set()


async def test_messages_before_a_close_are_not_lost() -> None:
    async def talkative(socket: WebSocket) -> None:
        for number in range(200):
            await socket.send(str(number) * 100)

    async with (
        inspecting(same, stack(ws.server(), talkative)) as front,
        ws.connect(f"ws://{front}/") as socket,
    ):
        assert [message async for message in socket] == [str(number) * 100 for number in range(200)]
        assert socket.close_code == 1000

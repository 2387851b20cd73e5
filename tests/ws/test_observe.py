"""`ws.observe`: observers see messages up to a size, and both sides see the bytes that the other one sent."""

import asyncio
import logging
import tracemalloc
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect as peer_connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as peer_serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from llama import ConfigError, Stream, http, stack, ws
from llama.http import Request, RequestHandler, Response
from llama.ws import Observation, ObservedMessage
from llama.ws._tap_wire import Seen, Tap
from llama.ws._wire import Close, Frames
from tests.ws.talking import handshake, open_stream, serving

LIMIT = 1000
SMALL, LARGE = "small", b"0123456789abcdef" * 80_000


class Notes:
    """What an observer saw."""

    def __init__(self) -> None:
        self.messages: list[tuple[bool, str | bytes | None, int]] = []
        self.closes: list[tuple[int | None, bool | None]] = []
        self.over = asyncio.Event()

    def message(self, message: ObservedMessage) -> None:
        self.messages.append((message.from_client, message.data, message.size))

    def closed(self, observation: Observation) -> None:
        self.closes.append((observation.close_code, observation.closed_by_client))
        self.over.set()


@asynccontextmanager
async def watching(address: str, max_size: int = LIMIT) -> AsyncGenerator[tuple[str, Notes]]:
    """A reverse proxy that observes, in front of an upstream."""
    notes = Notes()
    layer = ws.observe(notes.message, on_close=notes.closed, max_size=max_size)
    async with serving(stack(layer, http.reverse_proxy(f"http://{address}"))) as front:
        yield front, notes


async def say_back(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def backend(**options: Any) -> AsyncGenerator[str]:
    async with peer_serve(say_back, "127.0.0.1", 0, max_size=None, **options) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


NO_TAKEOVER = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)


@pytest.mark.parametrize("extensions", [None, [ServerPerMessageDeflateFactory()], [NO_TAKEOVER]])
@pytest.mark.parametrize("pieces", [1, 7])
async def test_messages_of_any_size_pass_and_large_ones_are_seen_without_data(
    extensions: list[Any] | None, pieces: int
) -> None:
    compression = "deflate" if extensions else None
    async with (
        backend(extensions=extensions, compression=None) as address,
        watching(address) as (front, notes),
    ):
        async with peer_connect(f"ws://{front}/", max_size=None, compression=compression) as client:
            for message in (SMALL, LARGE, b"", SMALL, "ä" * 10):
                size = len(message) // pieces + 1
                parts = [message[at : at + size] for at in range(0, max(1, len(message)), size)]
                await client.send(message if pieces == 1 else parts)
                assert await client.recv() == message
        await notes.over.wait()
    expected = [(SMALL, 5), (None, len(LARGE)), (b"", 0), (SMALL, 5), ("ä" * 10, 20)]
    for side in (True, False):
        assert [(data, size) for by_client, data, size in notes.messages if by_client is side] == expected
    assert notes.closes == [(1000, True)]


async def test_with_no_size_messages_are_counted() -> None:
    async with backend() as address, watching(address, 0) as (front, notes):
        async with peer_connect(f"ws://{front}/", compression=None) as client:
            await client.send(SMALL)
            assert await client.recv() == SMALL
        await notes.over.wait()
    assert notes.messages == [(True, None, 5), (False, None, 5)]


def script(reply: bytes, *fields: str, heard: list[bytes] | None = None) -> RequestHandler:
    """An upstream that accepts whatever is asked, reads four bytes, says something, and ends."""

    async def speak(stream: Stream) -> None:
        data = await stream.read()
        if heard is not None:
            heard.append(data)
        await stream.write(reply)
        await stream.write_eof()

    async def accept(request: Request) -> Response:
        lines = [("Upgrade", "websocket"), *(("Sec-WebSocket-Extensions", each) for each in fields)]
        return Response(101, lines, upgrade=speak)

    return accept


@pytest.mark.parametrize(
    ("said", "reply", "extension"),
    [
        (b"\xc1\x81\0\0\0\0x", b"\xc1\x01y", "x-unknown"),  # only both ends understand it
        (b"\x81\x01x", b"\x83\x01y", ""),  # not masked; an opcode that is not known
        (b"\xff\xff\xff\xff", b"\xff\xff\xff\xff", ""),
        (b"\x89\xfe\x01\x00\0\0\0\0", b"\x89\x7e\x01\x00", ""),  # a ping of 256 bytes
        (b"\x81\x81\0\0\0\0\xff", b"\x81\x01\xff", ""),  # text that is not UTF-8
        (b"\xc1\x82\0\0\0\0\xff\xff", b"\xc1\x02\xff\xff", "permessage-deflate"),  # not deflated
        (b"\x88\x81\0\0\0\0x", b"\x88\x01x", ""),  # half a close code
    ],
)
async def test_bytes_pass_as_they_are_whatever_they_mean(said: bytes, reply: bytes, extension: str) -> None:
    heard: list[bytes] = []
    upstream = script(reply, *filter(None, [extension]), heard=heard)
    async with serving(upstream) as address, watching(address) as (front, notes):
        stream = await open_stream(front)
        try:
            await stream.write(handshake(*([f"Sec-WebSocket-Extensions: {extension}"] if extension else [])))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += await stream.read(1)
            assert (f"sec-websocket-extensions: {extension}".encode() in head.lower()) is bool(extension)
            await stream.write(said)
            got = b""
            while data := await stream.read():
                got += data
        finally:
            stream.abort()
        await notes.over.wait()
    assert (heard, got) == ([said], reply)


async def test_an_observer_that_raises_is_logged_and_the_websocket_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(message: ObservedMessage) -> None:
        raise ZeroDivisionError("a bug of the observer")

    async with backend() as address:
        proxy = stack(ws.observe(fail), http.reverse_proxy(f"http://{address}"))
        async with serving(proxy) as front, peer_connect(f"ws://{front}/") as client:
            with caplog.at_level(logging.ERROR, "llama.server"):
                for _ in range(3):
                    await client.send(SMALL)
                    assert await client.recv() == SMALL
    failures = [each for each in caplog.records if each.exc_info]
    assert len(failures) == 2  # once for each side


async def test_other_upgrades_and_requests_pass_unseen() -> None:
    notes = Notes()

    async def other(request: Request) -> Response:
        if not request.upgrade_protocol:
            return Response(200, body=b"page")

        async def speak(stream: Stream) -> None:
            await stream.write(b"\x81\x01x")

        return Response(101, {"Upgrade": "x-other"}, upgrade=speak)

    async with serving(stack(ws.observe(notes.message, on_close=notes.closed), other)) as address:
        stream = await open_stream(address)
        try:
            await stream.write(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x-other\r\n\r\n"
            )
            got = b""
            while data := await stream.read():
                got += data
        finally:
            stream.abort()
        assert got.endswith(b"\x81\x01x")
    assert (notes.messages, notes.closes) == ([], [])


# frames


def frames_of(*messages: str | bytes, deflated: bool) -> bytes:
    _, deflate = ServerPerMessageDeflateFactory().process_request_params([], [])
    codec = Frames(is_client=True, deflate=deflate if deflated else None, max_size=1 << 30)
    return b"".join(map(codec.message, messages)) + codec.close(4000, "bye")


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("step", [1, 3, 100, 1 << 20])
def test_frames_are_read_in_any_pieces(deflated: bool, step: int) -> None:
    data = frames_of("a", b"b" * 200, "c" * 2000, b"", "d", deflated=deflated)
    tap = Tap(LIMIT, takeover=True if deflated else None)
    found = [event for at in range(0, len(data), step) for event in tap.feed(data[at : at + step])]
    expected = [Seen("a", 1), Seen(b"b" * 200, 200), Seen(None, 2000), Seen(b"", 0), Seen("d", 1)]
    assert found == [*expected, Close(4000, "bye")]
    assert tap.over


def test_a_large_message_is_not_held() -> None:
    def pieces() -> Iterable[bytes]:
        yield b"\x82\xff" + (100 << 20).to_bytes(8, "big") + b"\1\2\3\4"
        yield from (bytes(1 << 16) for _ in range(1600))

    tap = Tap(1 << 20, None)
    tracemalloc.start()
    try:
        found = [event for piece in pieces() for event in tap.feed(piece)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [Seen(None, 100 << 20)]
    assert peak < 4 << 20


def test_a_size_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_size=-1"):
        ws.observe(print, max_size=-1)

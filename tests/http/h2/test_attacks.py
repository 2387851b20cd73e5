"""Attacks over HTTP/2 on a real listener: each costs the attacker its connection, and another client nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from llama import http, serve, stack, tcp
from llama.http import Request, Response
from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import CONTINUATION, DATA, HEADERS, PING, frame, rst_stream
from llama.http._limits import H2Limits
from tests.http.h2.wire.h2_pair import GET, POST, Peer, Side

LIMITS = H2Limits(
    max_concurrent_streams=20,
    max_resets=50,
    max_control_frames=200,
    max_pending_replies=100,
    stall_timeout=0.3,
)
GREETING = frames.PREFACE + frame(frames.SETTINGS, 0, 0)


class World:
    """A server, and how many of its handlers run."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.port = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def app(self, request: Request) -> Response:
        if request.path == "/quick":
            return Response(200, body=b"quick")
        if request.path == "/large":
            return Response(200, body=bytes(1_000_000))
        self.running += 1
        self.idle.clear()
        self.most = max(self.most, self.running)
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()
        return Response(200)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def a_world() -> AsyncGenerator[World]:
    world = World()
    async with serve(tcp.server("127.0.0.1:0", stack(http.server(h2=LIMITS), world.app))) as server:
        world.port = int(server.addresses[0].rpartition(":")[2])
        yield world


class Bystander:
    """Another client, which is answered all the while."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.side = Side(client=True)

    async def ask(self) -> None:
        stream = self.side.open([*GET[:3], (":path", "/quick")])
        async with asyncio.timeout(5):
            while stream.state < 4:
                self.writer.write(self.side.engine.take())
                data = await self.reader.read(65_536)
                assert data, "the bystander lost its connection"
                self.side.engine.receive(data)
        assert self.side.bodies.pop(stream.id) == b"quick"

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def head(peer: Peer, id: int, *, path: str = "/", end: bool = True) -> bytes:
    return peer.head(id, [*(GET if end else POST)[:3], (":path", path)], end=end)


def rapid_reset(peer: Peer, at: int) -> bytes:
    return head(peer, 1 + 2 * at) + rst_stream(1 + 2 * at, frames.CANCEL)


def made_you_reset(peer: Peer, at: int) -> bytes:
    return head(peer, 1 + 2 * at) + frames.window_update(1 + 2 * at, 0)


def too_many_streams(peer: Peer, at: int) -> bytes:
    return head(peer, 1 + 2 * at)


def continuation_flood(peer: Peer, at: int) -> bytes:
    return frame(HEADERS, 0, 1, b"\x82") if not at else frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 50)


def ping_flood(peer: Peer, at: int) -> bytes:
    return frame(PING, 0, 0, bytes(8))


def settings_flood(peer: Peer, at: int) -> bytes:
    return frame(frames.SETTINGS, 0, 0, b"\0\4\0\1\0\0")


def empty_data_flood(peer: Peer, at: int) -> bytes:
    return head(peer, 1, end=False) if not at else frame(DATA, 0, 1)


def priority_flood(peer: Peer, at: int) -> bytes:
    return frame(frames.PRIORITY, 0, 3, b"\0\0\0\x01\0")


def hpack_bomb(peer: Peer, at: int) -> bytes:
    """A large field that goes into the table, and is referred to as often as a block can hold."""
    if not at:
        return frame(HEADERS, 5, 1, b"\x82\x86\x84\x41\x01a\x40\x01x\x7f\x80\x1e" + bytes([97] * 3967))
    return frame(HEADERS, 1, 1 + 2 * at, b"\xbe" * 16_000) + b"".join(
        frame(CONTINUATION, 0, 1 + 2 * at, b"\xbe" * 16_000) for _ in range(7)
    )


ATTACKS: list[Callable[[Peer, int], bytes]] = [
    rapid_reset, made_you_reset, too_many_streams, continuation_flood, ping_flood, settings_flood,
    empty_data_flood, priority_flood, hpack_bomb,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_an_attack_costs_its_connection_and_others_nothing(
    attack: Callable[[Peer, int], bytes],
) -> None:
    async with a_world() as world:
        bystander = Bystander(*await world.connect())
        await bystander.ask()
        reader, writer = await world.connect()
        peer = Peer()
        writer.write(GREETING)
        try:
            for at in range(3000):
                writer.write(attack(peer, at))
                await writer.drain()
                if at % 100 == 0:
                    await bystander.ask()
                if reader.at_eof():
                    break
        except OSError:
            pass
        assert await said(reader) == frames.ENHANCE_YOUR_CALM
        await bystander.ask()
        assert world.most <= LIMITS.max_concurrent_streams
        writer.close()
        await bystander.close()
        await world.idle.wait()


async def said(reader: asyncio.StreamReader) -> int:
    """The code of the GOAWAY that ended a connection; that of the attack's where its bytes crossed with the end."""
    try:
        async with asyncio.timeout(5):
            data = await reader.read()
    except OSError:
        return frames.ENHANCE_YOUR_CALM
    at = 0
    code = -1
    while len(data) - at >= 9:
        high, low, kind, _, _ = frames.unpack_header(data, at)
        if kind == frames.GOAWAY:
            code = int.from_bytes(data[at + 13 : at + 17], "big")
        at += 9 + (high << 8 | low)
    return code


async def test_who_gives_no_window_loses_the_connection() -> None:
    async with a_world() as world:
        bystander = Bystander(*await world.connect())
        reader, writer = await world.connect()
        peer = Peer()
        writer.write(GREETING + frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))
        for at in range(20):
            writer.write(head(peer, 1 + 2 * at, path="/large"))
        assert await said(reader) == frames.ENHANCE_YOUR_CALM
        await bystander.ask()
        await bystander.close()
        writer.close()


async def test_who_stalls_one_stream_loses_that_one_while_others_get_on() -> None:
    async with a_world() as world:
        reader, writer = await world.connect()
        side = Side(client=True)
        stalled = side.open([*GET[:3], (":path", "/large")])
        quick = side.open([*GET[:3], (":path", "/large")])
        async with asyncio.timeout(10):
            while stalled.state < 4:
                if len(side.engine.streams) < 2:
                    quick = side.open([*GET[:3], (":path", "/large")])
                writer.write(side.engine.take())
                data = await reader.read(65_536)
                assert data, side.lines[-5:]
                side.engine.receive(data)
                side.engine.consumed(quick, len(side.bodies.pop(quick.id, b"")))
        assert f"{stalled.id} reset CANCEL by peer" in side.lines
        writer.close()


async def test_who_does_not_read_loses_the_connection() -> None:
    async with a_world() as world:
        bystander = Bystander(*await world.connect())
        reader, writer = await world.connect()
        peer = Peer()
        most = (1 << 31) - 1
        writer.write(GREETING + frames.settings({frames.INITIAL_WINDOW_SIZE: most}))
        writer.write(frames.window_update(0, most - 65_535))
        for at in range(20):
            writer.write(head(peer, 1 + 2 * at, path="/large"))
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport has it
        for _ in range(4):
            await bystander.ask()
            await asyncio.sleep(0.2)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((OSError, AssertionError)):
            assert len(await reader.read()) > 20_000_000
        await bystander.ask()
        await bystander.close()
        writer.close()

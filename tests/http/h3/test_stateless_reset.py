"""Stateless resets: a server that has forgotten its connections tells their clients."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("qh3")

from llama import ConfigError, http
from llama.http import Request, Response
from llama.http._h3.server import packet_header
from llama.http._h3.server.packet_header import RESETS, Resets
from tests.http.h3.fixtures import GET, h3, raw
from tests.tls.sessions import pair_files

KEY = b"a secret of some length"
HERE = ("127.0.0.1", 4433)
ID = b"12345678"


async def hello(request: Request) -> Response:
    return Response(200, body=b"hello")


class Between(asyncio.DatagramProtocol):
    """Stands between a client and one server after the other."""

    def __init__(self) -> None:
        self.to = 0
        self._client: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if addr[1] == self.to:
            self._transport.sendto(data, self._client)
        elif addr[1] not in self.before:
            self._client = addr
            self._transport.sendto(data, ("127.0.0.1", self.to))

    before: frozenset[int] = frozenset()

    def change(self, to: int) -> None:
        """To another server; what the first still sends is lost."""
        self.before |= {self.to}
        self.to = to


@asynccontextmanager
async def between() -> AsyncGenerator[tuple[int, Between]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Between, ("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1], protocol
    finally:
        transport.close()


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_header, "SETTLE", 0.0)


async def test_a_client_of_a_server_that_was_started_anew_is_told() -> None:
    async with (
        h3(hello, reset_key=KEY) as first,
        h3(hello, reset_key=KEY) as second,
        between() as (port, way),
    ):
        way.change(first)
        async with raw(port) as peer:
            await peer.ask(*GET).over.wait()
            way.change(second)
            peer._quic.send_ping(1)
            peer.transmit()
            await asyncio.wait_for(asyncio.shield(peer.ended), 5)


async def test_another_key_ends_nothing() -> None:
    servers = h3(hello, reset_key=KEY), h3(hello, reset_key=KEY[::-1])
    async with servers[0] as first, servers[1] as second, between() as (port, way):
        way.change(first)
        async with raw(port) as peer:
            await peer.ask(*GET).over.wait()
            way.change(second)
            peer._quic.send_ping(1)
            peer.transmit()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(peer.ended), 0.3)
            way.before = frozenset()
            way.change(first)
            await peer.ask(*GET).over.wait()


async def test_what_is_answered_is_answered_with_less() -> None:
    loop = asyncio.get_running_loop()
    async with h3(hello) as port:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            for size in (1, 9, 21):
                await loop.sock_sendall(sock, bytes([0x40]) + os.urandom(size - 1))
            for size in (22, 30, 44, 1200):
                await loop.sock_sendall(sock, bytes([0x40]) + os.urandom(size - 1))
                answer = await asyncio.wait_for(loop.sock_recv(sock, 2048), 5)
                assert len(answer) == min(size - 1, 43) and answer[0] & 0xC0 == 0x40
            await loop.sock_sendall(sock, bytes([0xC0, 0, 0, 0, 1, 8]) + os.urandom(1194))  # a long header
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(sock, 2048), 0.1)


def test_a_token_belongs_to_an_id_and_an_address() -> None:
    resets = Resets(KEY, 0.0)
    token = resets.token(ID, HERE)
    assert len(token) == 16 and token == Resets(KEY, 9.0).token(ID, HERE)
    assert len({token, resets.token(ID[::-1], HERE), resets.token(ID, ("127.0.0.1", 4434))}) == 3
    answer = resets.answer(bytes(50), ID, HERE, 1.0)
    assert answer is not None and answer.endswith(token)


def test_resets_are_few_in_a_second() -> None:
    resets = Resets(KEY, 0.0)

    def given(now: float) -> int:
        return sum(resets.answer(bytes(50), ID, HERE, now) is not None for _ in range(3 * RESETS))

    assert (given(1.0), given(1.5), given(9.0)) == (RESETS, RESETS // 2, RESETS)


def test_nothing_is_reset_while_an_earlier_process_may_know_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_header, "SETTLE", 2.0)
    resets = Resets(KEY, 10.0)
    assert resets.answer(bytes(50), ID, HERE, 11.9) is None
    assert resets.answer(bytes(50), ID, HERE, 12.1) is not None


def test_a_key_has_sixteen_bytes() -> None:
    with pytest.raises(ConfigError, match="15 bytes"):
        http.h3_server(":0", hello, *pair_files("localhost"), reset_key=bytes(15))

"""Clients whose address changes while they are connected."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")

from qh3.tls import CipherSuite

from llama.http import Request, Response
from llama.http._h3.server import server_connection
from llama.http._h3.server.migration import PATHS, SAME_HOST, PathMigration
from llama.http._h3.server.packet_protection import Opened, PacketKeys
from tests.http.h3.caddy import caddy
from tests.http.h3.fixtures import GET, client, h3, raw
from tests.http.h3.nat import nat
from tests.http.peers import program
from tests.tls.sessions import ca_file

BIG = os.urandom(1_000_000)
SUITES = [
    CipherSuite.AES_128_GCM_SHA256,
    CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
]


async def hello(request: Request) -> Response:
    return Response(200, {}, b"hello" if request.path == "/" else BIG)


async def fetch(exchange: Any, url: str) -> bytes:
    response = await exchange(Request("GET", url))
    assert response.status == 200
    body: bytes = await response.body.read(1 << 24)
    return body


@pytest.mark.parametrize("hosts", [["127.0.0.1"], [f"127.0.0.{last}" for last in range(2, 34)]])
async def test_thirty_moves(hosts: list[str]) -> None:
    async with h3(hello) as server, nat(server) as (way, port), client() as ask:
        for count in range(31):
            assert await fetch(ask, f"https://localhost:{port}/") == b"hello"
            await way.move(hosts[count % len(hosts)])
        assert ask.state.connections == 1


async def test_a_client_that_moves_back_and_forth() -> None:
    async with h3(hello) as server, nat(server) as (way, port), client() as ask:
        await way.move("127.0.0.2")
        for count in range(20):
            way.current = count % 2
            assert await fetch(ask, f"https://localhost:{port}/") == b"hello"
        assert await fetch(ask, f"https://localhost:{port}/big") == BIG


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_a_download_goes_on_while_its_client_moves(host: str) -> None:
    async with h3(hello) as server, nat(server) as (way, port), client() as ask:
        response = await ask(Request("GET", f"https://localhost:{port}/big"))
        received = 0
        async for chunk in response.body:
            assert chunk == BIG[received : received + len(chunk)]
            if (received + len(chunk)) // 100_000 > received // 100_000:
                await way.move(host)
            received += len(chunk)
        assert received == len(BIG)
        assert len(way.outside) > 5


async def test_an_address_that_does_not_answer_gets_no_more_than_three_times_what_it_sent() -> None:
    async with h3(hello) as server, nat(server) as (way, port), raw(port) as connection:
        await connection.ask(*GET).ends(connection)
        await way.move("127.0.0.2", reply=False)
        connection.ask(*GET[:3], (b":path", b"/big"))
        for _ in range(20):
            connection._quic.send_ping(1)
            connection.transmit()
            await asyncio.sleep(0.01)
        assert 0 < way.down["127.0.0.2"] <= 3 * way.up["127.0.0.2"]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
async def test_moves_after_key_updates(suite: CipherSuite) -> None:
    async with h3(hello) as server, nat(server) as (way, port), raw(port, suites=[suite]) as connection:
        for count in range(6):
            answer = connection.ask(*GET[:3], (b":path", b"/big"))
            await answer.ends(connection)
            assert answer.body == BIG
            connection._quic.request_key_update()
            await way.move(f"127.0.0.{count + 2}")


async def test_a_client_that_retires_connection_ids_without_end_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_connection, "RETIRED_IDS", 10)
    async with h3(hello) as server, nat(server) as (way, port), raw(port) as connection:
        while not connection.ended.done():
            await connection.ask(*GET).ends(connection)
            with contextlib.suppress(ValueError):  # the server has not issued another one yet
                connection._quic.change_connection_id()
            await way.move()
        assert await connection.ended == 0x107


# the state of a connection, without sockets

HOME, NEAR, FAR = ("192.0.2.1", 4433), ("192.0.2.1", 4434), ("198.51.100.7", 4433)
SECRET, ID = bytes(32), b"12345678"
PING, PATH_CHALLENGE, PATH_RESPONSE = b"\x01" + bytes(20), 0x1A, 0x1B


def new_keys(secret: bytes = SECRET) -> PacketKeys:
    return PacketKeys(CipherSuite.AES_128_GCM_SHA256, secret, len(ID))


def packet(number: int, payload: bytes = PING, size: int = 0) -> bytes:
    header = b"\x41" + ID + (number & 0xFFFF).to_bytes(2, "big")
    return new_keys().seal(Opened(number, header, b""), payload.ljust(size - len(header) - 16, b"\0"))


class Client:
    """The other side of `PathMigration`."""

    def __init__(self) -> None:
        self.moves = PathMigration(HOME, new_keys(), new_keys())
        self.number = 0

    def sends(self, address: Any, payload: bytes = PING, size: int = 400) -> None:
        self.number += 1
        self.moves.heard(packet(self.number, payload, size), address, self.number)

    def gets(self, size: int = 100) -> tuple[Any, bytes]:
        """The address that a packet goes to, and the challenge in it."""
        self.number += 1
        [(data, address)] = self.moves.route([packet(self.number, size=size)], self.number)
        opened = new_keys().open(data, 1 << 20)
        assert opened is not None
        return address, opened.payload[1:9] if opened.payload[0] == PATH_CHALLENGE else b""


def test_another_host_gets_three_times_what_it_sent_until_it_has_answered() -> None:
    client = Client()
    assert client.gets() == (HOME, b"")
    client.sends(FAR, size=400)
    address, challenge = client.gets(100)
    assert (address, len(challenge)) == (FAR, 8)
    assert client.gets(1100)[0] == HOME
    client.sends(FAR, bytes([PATH_RESPONSE]) + bytes(8) + PING)
    assert client.gets(1300)[0] == HOME
    client.sends(FAR, bytes([PATH_RESPONSE]) + challenge)
    assert client.moves.is_settled
    assert client.gets(1300) == (FAR, b"")


def test_another_port_of_the_same_host_gets_more_before_it_has_answered() -> None:
    client = Client()
    client.sends(NEAR)
    assert [client.gets(1300)[0] for _ in range(SAME_HOST // 1400)] == [NEAR] * (SAME_HOST // 1400)
    assert [client.gets(1300)[0] for _ in range(100)][-1] == HOME


def test_a_probe_is_answered_where_it_came_from_and_moves_nothing() -> None:
    client = Client()
    asked = b"question"
    client.sends(FAR, bytes([PATH_CHALLENGE]) + asked, 1200)
    assert client.gets() == (HOME, b"")
    client.number += 1
    answer = packet(client.number, bytes([PATH_RESPONSE]) + asked, 100)
    [(data, address)] = client.moves.route([answer], client.number)
    assert address == FAR
    assert len(data) == 1200
    assert client.moves.is_settled


def test_a_packet_that_arrives_late_does_not_move_a_client_back() -> None:
    client = Client()
    late = packet(1)
    client.number = 5
    client.sends(FAR)
    client.moves.heard(late, HOME, 6)
    assert client.moves.active == FAR
    client.sends(HOME)
    assert client.moves.active == HOME


@pytest.mark.parametrize("forged", [b"", b"\x41", os.urandom(100), packet(9)[:-1] + b"\0"], ids=len)
def test_a_packet_that_is_not_authentic_moves_nothing(forged: bytes) -> None:
    moves = PathMigration(HOME, new_keys(), new_keys())
    assert not moves.heard(forged, FAR, 1)
    assert moves.active == HOME


def test_the_addresses_that_are_remembered_are_bounded() -> None:
    client = Client()
    for port in range(1, 5000):
        client.sends((HOME[0], port), bytes([PATH_CHALLENGE]) + bytes(8) + (PING if port % 2 else b""))
    assert len(client.moves._paths) == PATHS
    assert HOME in client.moves._paths


@pytest.mark.parametrize("number", [0, 1, 127, 40_000, 70_000, 1 << 20, 3_000_000])
def test_a_packet_number_is_found_by_its_lower_bits(number: int) -> None:
    opened = new_keys().open(packet(number), number)
    assert opened is not None
    assert opened.number == number


# with other programs


@pytest.mark.peer
@pytest.mark.parametrize("changes_ids", [False, True])
async def test_aioquic_moves(changes_ids: bool) -> None:
    aioquic = pytest.importorskip("aioquic.asyncio")
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.h3.connection import H3Connection
    from aioquic.h3.events import DataReceived
    from aioquic.quic.configuration import QuicConfiguration

    class Asking(QuicConnectionProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.http = H3Connection(self._quic)
            self.answered = asyncio.Event()

        def quic_event_received(self, event: Any) -> None:
            for each in self.http.handle_event(event):
                if isinstance(each, DataReceived) and each.stream_ended:
                    self.answered.set()

    settings = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost")
    settings.load_verify_locations(ca_file())
    async with (
        h3(hello) as server,
        nat(server) as (way, port),
        aioquic.connect("127.0.0.1", port, configuration=settings, create_protocol=Asking) as protocol,
    ):
        for count in range(31):
            protocol.answered.clear()
            protocol.http.send_headers(
                protocol._quic.get_next_available_stream_id(), list(GET), end_stream=True
            )
            protocol.transmit()
            await protocol.answered.wait()
            await way.move(f"127.0.0.{count + 2}")
            if changes_ids:
                protocol._quic.change_connection_id()


@pytest.mark.peer
async def test_ngtcp2_is_moved_by_each_of_its_requests(tmp_path: Path) -> None:
    moves: list[Callable[[], Awaitable[None]]] = []

    async def answer(request: Request) -> Response:
        await moves[0]()
        return Response(200, {}, BIG[:50_000])

    async with h3(answer) as server, nat(server) as (way, port):
        moves.append(way.move)
        urls = [f"https://localhost:{port}/{number}" for number in range(30)]
        options = ("-q", "--exit-on-all-streams-close", "--sni=localhost", f"--download={tmp_path}")
        done = await program("gtlsclient", *options, "127.0.0.1", str(port), *urls)
        assert done.code == 0, done
        assert len(way.outside) == 31
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [BIG[:50_000]] * 30


@pytest.mark.peer
async def test_our_client_is_moved_in_front_of_caddy(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    async with caddy(tmp_path) as server, nat(server) as (way, port), client() as ask:
        for count in range(31):
            assert await fetch(ask, f"https://localhost:{port}/a") == b"hello"
            await way.move(f"127.0.0.{count + 2}")
        assert ask.state.connections == 1

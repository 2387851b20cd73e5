"""Attacks over HTTP/3 on a real listener: each costs the attacker its connection, and another client nothing."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")

from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError

from llama import http, serve
from llama.http import Request, Response
from llama.http._h3.server.packet_header import Tokens, long_header
from tests.http.h3.fixtures import GET, Answer, Raw, client, h3, raw
from tests.tls.sessions import pair_files

RETRY = 0xF0
EXCESSIVE_LOAD = 0x107


async def app(request: Request) -> Response:
    if request.path == "/wait":
        await asyncio.Event().wait()
    return Response(200, body=await request.body.read())


@asynccontextmanager
async def attacked(**options: Any) -> AsyncGenerator[int]:
    """The port of a server; a bystander's connection is as good after the attack as before it."""
    async with h3(app, **options) as port, client() as ask:

        async def well() -> None:
            async with asyncio.timeout(10):
                response = await ask(Request("POST", f"https://localhost:{port}/", body=b"well"))
                assert await response.body.read() == b"well"

        await well()
        yield port
        await well()
        async with client() as other:  # nor are newcomers kept out
            async with asyncio.timeout(10):
                response = await other(Request("GET", f"https://localhost:{port}/"))
                await response.aclose()


class Socket:
    """Sends packets, and keeps what comes back."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        self._socket.connect(("127.0.0.1", port))
        self.sent = 0
        self.heard: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self.sent += len(data)
        await asyncio.get_running_loop().sock_sendall(self._socket, data)
        await asyncio.sleep(0)
        self.listen()

    def listen(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.heard.append(self._socket.recv(65536))

    async def hear(self, is_enough: Callable[[list[bytes]], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not is_enough(self.heard):
                data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
                self.heard.append(data)

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def sockets(port: int) -> AsyncGenerator[Socket]:
    sock = Socket(port)
    try:
        yield sock
    finally:
        sock.close()


def hello() -> list[bytes]:
    """What a client sends first."""
    configuration = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost", is_client=True)
    quic = QuicConnection(configuration=configuration)
    quic.connect(("127.0.0.1", 1), 0.0)
    return [data for data, _ in quic.datagrams_to_send(0.0)]


def first() -> bytes:
    """A first packet that looks like one, until it is decrypted."""
    return b"\xc0\0\0\0\1\x08" + os.urandom(8) + b"\x08" + os.urandom(8) + b"\0\x44\x9e" + os.urandom(1176)


async def test_first_packets_that_are_not_in_order_leave_nothing() -> None:
    async with attacked(retry_threshold=1, max_connections=2) as port, sockets(port) as sock:
        for _ in range(300):
            await sock.send(first())
        # Each was gone before the next came: nobody had to prove an address, and there is still room.
        assert [data for data in sock.heard if data[0] & RETRY == RETRY] == []


async def test_a_flood_of_clients_that_are_not_there_is_asked_back() -> None:
    async with attacked(retry_threshold=8, handshake_timeout=1) as port, sockets(port) as sock:
        for _ in range(40):
            for data in hello():
                await sock.send(data)
        asked = [data for data in sock.heard if data[0] & RETRY == RETRY]
        assert len(asked) >= 30 and max(map(len, asked)) < 200
        # They wait for eight and no more; the bystander's new connection proves its address meanwhile.
        assert len({data[6:14] for data in sock.heard if data[0] & 0xF0 == 0xC0}) <= 9


async def test_who_has_not_proven_its_address_gets_no_more_than_three_times_what_it_sent(
    tmp_path: Path,
) -> None:
    cert, key = pair_files("localhost")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(Path(cert).read_bytes() * 12)
    server = http.h3_server("127.0.0.1:0", app, chain, key, handshake_timeout=2)
    async with serve(server) as serving:
        port = int(serving.addresses[0].rpartition(":")[2])
        async with sockets(port) as sock:
            for data in hello():
                await sock.send(data)
            with suppress(TimeoutError):  # with all that is sent again
                await sock.hear(lambda heard: False, 2.5)
            assert sock.sent < sum(map(len, sock.heard)) <= 3 * sock.sent
        async with client() as ask:
            response = await ask(Request("POST", f"https://localhost:{port}/", body=b"well"))
            assert await response.body.read() == b"well"


class Ended(logging.Handler):
    """Waits for handshakes that took too long."""

    def __init__(self, wanted: int) -> None:
        super().__init__("INFO")
        self.wanted = wanted
        self.all = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.wanted -= "no handshake within 0.5 s" in record.getMessage()
        if not self.wanted:
            self.all.set()


async def test_slow_handshakes_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "llama.http3")
    ended = Ended(10)
    logging.getLogger("llama.http3").addHandler(ended)
    try:
        async with attacked(handshake_timeout=0.5, max_connections=12) as port, sockets(port) as sock:
            for _ in range(10):
                for data in hello():
                    await sock.send(data)
            await asyncio.wait_for(ended.all.wait(), 10)
    finally:
        logging.getLogger("llama.http3").removeHandler(ended)


def test_a_token_is_good_where_it_was_given() -> None:
    tokens, here = Tokens(b"secret"), ("192.0.2.1", 4433)
    token = tokens.make(here, b"original", b"source")
    assert tokens.read(here, token) == (b"original", b"source")
    assert tokens.read(("192.0.2.2", 4433), token) is None
    assert tokens.read(here, token[:-1]) is None
    assert Tokens(b"other").read(here, token) is None


async def test_a_token_of_another_server_is_as_good_as_none() -> None:
    async with attacked(retry_threshold=0) as port, sockets(port) as sock:
        await sock.send(
            b"\xc0\0\0\0\1\x08" + os.urandom(8) + b"\0\x20" + os.urandom(32) + b"\x44\x9e" + bytes(1200)
        )
        await sock.hear(lambda heard: any(data[0] & RETRY == RETRY for data in heard))


async def until_it_ends(peer: Raw, send: Callable[[], None], most: int = 1_000_000) -> int:
    """Attack until the connection is closed; its error code."""
    with suppress(QuicConnectionError):
        for _ in range(most):
            if peer.ended.done():
                break
            if peer._quic.get_send_buffer_size() < 1 << 16:
                send()
                peer.transmit()
            await asyncio.sleep(0)
    async with asyncio.timeout(20):
        return await peer.ended


def control(peer: Raw) -> int:
    number = peer.http._local_control_stream_id
    assert number is not None
    return number


FLOODS: dict[str, tuple[bytes, int]] = {
    "unknown frames": (b"\x21\x08" + bytes(8), EXCESSIVE_LOAD),
    "empty unknown frames": (b"\x21\0", EXCESSIVE_LOAD),
    "settings": (b"\x04\0", 0x105),
    "push ids": (b"\x0d\x01\x09", EXCESSIVE_LOAD),
    "data": (b"\0\x01a", 0x105),
    "goaways": (b"\x07\x01\0", EXCESSIVE_LOAD),
}


@pytest.mark.parametrize(("frames", "code"), FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_on_the_control_stream_ends_its_connection(frames: bytes, code: int) -> None:
    async with attacked() as port, raw(port) as peer:
        flood = frames * (4096 // len(frames))
        ended = await until_it_ends(peer, lambda: peer._quic.send_stream_data(control(peer), flood))
        assert ended == code


async def test_unknown_frames_before_a_request_end_its_connection() -> None:
    async with attacked() as port, raw(port) as peer:
        number = peer._quic.get_next_available_stream_id()
        flood = b"\x21\0" * 4096
        ended = await until_it_ends(peer, lambda: peer._quic.send_stream_data(number, flood))
        assert ended == EXCESSIVE_LOAD


async def test_heads_that_wait_for_fields_that_never_come_end_their_connection() -> None:
    """Each begins with a Required Insert Count, and holds on to what comes after it (RFC 9204 section 2.1.2)."""
    async with attacked() as port, raw(port) as peer:

        def ask() -> None:
            number = peer._quic.get_next_available_stream_id()
            if number // 4 < peer._quic.max_concurrent_bidi_streams:
                block = b"\x02\0" + b"\x50\x7f" + bytes(200_000)
                frame = b"\x01" + (0x8000_0000 | len(block)).to_bytes(4, "big") + block
                peer._quic.send_stream_data(number, frame)

        assert await until_it_ends(peer, ask) in (EXCESSIVE_LOAD, 0x200)


async def test_a_small_head_that_becomes_a_large_one_reaches_no_exchange() -> None:
    """One long field, put into the table once, and named again and again."""
    async with attacked() as port, raw(port) as peer:
        encoder = peer.http._local_encoder_stream_id
        assert encoder is not None
        value = b"v" * 4000
        capacity = b"\x3f\xe1\x1f"  # 4096
        insert = b"\x43x-a" + b"\x7f" + b"\xa1\x1e" + value
        peer._quic.send_stream_data(encoder, capacity + insert)
        named = b"\x80" * 5000
        block = b"\x02\0" + b"\xd1\xd7\xc1" + b"\x50\x09localhost" + named
        number = peer._quic.get_next_available_stream_id()
        frame = b"\x01" + (0x4000 | len(block)).to_bytes(2, "big") + block
        peer._quic.send_stream_data(number, frame, end_stream=True)
        answer = peer.answers[number] = Answer()
        peer.transmit()
        await asyncio.wait_for(answer.ends(peer), 10)
        assert answer.heads == [] or answer.heads[0][0] == (b":status", b"431")
        assert answer.heads or answer.reset is not None or peer.ended.done()


async def test_streams_that_never_end_are_as_many_as_were_allowed() -> None:
    async with attacked() as port, raw(port) as peer:
        wait = [*GET[:3], (b":path", b"/wait")]
        while peer._quic.get_next_available_stream_id() // 4 < peer._quic.max_concurrent_bidi_streams:
            peer.ask(*wait)
        assert len(peer.answers) == 100
        await asyncio.wait_for(peer.ping(), 10)
        assert not peer.ended.done()


async def test_more_streams_than_were_allowed_end_the_connection() -> None:
    aioquic = pytest.importorskip("aioquic.asyncio")
    from aioquic.quic.configuration import QuicConfiguration as Configuration
    from aioquic.quic.events import ConnectionTerminated

    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Greedy(aioquic.QuicConnectionProtocol):  # type: ignore[name-defined,misc]  # it may be missing
        def quic_event_received(self, event: Any) -> None:
            if isinstance(event, ConnectionTerminated):
                ended.set_result(event.error_code)

    async with attacked() as port:
        settings = Configuration(alpn_protocols=["h3"], server_name="localhost", verify_mode=0)
        connected = aioquic.connect("127.0.0.1", port, configuration=settings, create_protocol=Greedy)
        async with connected as protocol:
            protocol._quic._remote_max_streams_bidi = 1 << 20
            protocol._quic.send_stream_data(4 * 5000, b"\x01")
            protocol.transmit()
            async with asyncio.timeout(10):
                assert await ended == 0x4


def test_what_the_tests_send_is_read_as_what_it_claims_to_be() -> None:
    header = long_header(first())
    assert header is not None and header.is_initial and len(header.destination) == 8

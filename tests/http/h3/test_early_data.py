"""Early data: who comes back is answered at once, and what is played again is not."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")

from qh3._hazmat import pull_quic_header
from qh3.quic.packet import QuicPacketType

from llama import ConfigError, http
from llama.http import Request, RequestHandler, Response
from llama.http._h3.early_data import TICKETS, ServerTickets
from llama.testing._stream_suite.helpers import spin
from tests.http.h3.fixtures import client, h3
from tests.http.peers import program
from tests.tls.sessions import ca_file, pair_files


class Seen:
    """Notes what it is asked, and whether that came early."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    async def __call__(self, request: Request) -> Response:
        self.asked.append((request.method, request.headers.get("early-data") == "1"))
        return Response(200, body=b"hello")


class Wire(asyncio.DatagramProtocol):
    """Stands between a client and a server; keeps what the client sends, and lets through what it is told."""

    def __init__(self) -> None:
        self.to = 0
        self.sent: list[bytes] = []
        self.client: Any = None
        self.passes: Callable[[bytes], bool] = lambda data: True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if addr[1] == self.to:
            self.transport.sendto(data, self.client)
            return
        self.client = addr
        self.sent.append(data)
        if self.passes(data):
            self.transport.sendto(data, ("127.0.0.1", self.to))


def is_early(data: bytes) -> bool:
    """Whether a datagram holds nothing but what a client sends before it has heard of its server."""
    kinds: set[int] = set()
    offset = 0
    while offset < len(data) and data[offset]:
        header = pull_quic_header(data, offset, 8)
        kinds.add(header[1])
        offset = header[9]
    return kinds <= {QuicPacketType.INITIAL, QuicPacketType.ZERO_RTT}


@asynccontextmanager
async def wire(to: int) -> AsyncGenerator[tuple[str, Wire]]:
    """A URL that leads to a port by a wire."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Wire, ("127.0.0.1", 0))
    protocol.to = to
    try:
        yield f"https://localhost:{transport.get_extra_info('sockname')[1]}/", protocol
    finally:
        transport.close()


def early(exchange: RequestHandler, **options: Any) -> AbstractAsyncContextManager[int]:
    """A server that takes early data."""
    return h3(exchange, early_data=True, handshake_timeout=1, **options)


async def told(ask: RequestHandler, url: str, method: str = "GET", **options: Any) -> bytes:
    response = await ask(Request(method, url, **options))
    assert response.status == 200
    return await response.body.read()


async def hang_up(ask: Any) -> None:
    """End the connections, when their tickets have come."""
    while not ask.state.tickets._known:
        await spin(1)
    for place in tuple(ask.state.origin_pools.values()):
        for each in tuple(place.connections):
            each.close()


async def test_who_comes_back_is_answered_before_hands_are_shaken() -> None:
    seen = Seen()
    async with (
        early(seen) as port,
        wire(port) as (url, between),
        client(early_data=True) as ask,
    ):
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        between.passes = is_early  # the server does not hear that hands are shaken
        assert await told(ask, url) == b"hello"
        assert seen.asked == [("GET", False), ("GET", True)]


async def test_only_what_is_safe_goes_early() -> None:
    seen = Seen()
    async with early(seen) as port, client(early_data=True) as ask:
        url = f"https://localhost:{port}/"
        assert await told(ask, url) == b"hello"
        for method, body in (("POST", b""), ("DELETE", b""), ("GET", b"a body"), ("HEAD", b"")):
            await hang_up(ask)
            await told(ask, url, method, body=body)
    assert seen.asked == [("GET", False), ("POST", False), ("DELETE", False), ("GET", False), ("HEAD", True)]


async def test_what_waits_for_hands_to_be_shaken_waits_beside_what_does_not() -> None:
    seen = Seen()
    async with early(seen) as port, client(early_data=True) as ask:
        url = f"https://localhost:{port}/"
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        await asyncio.gather(*(told(ask, url, method) for method in ("GET", "POST", "GET", "POST")))
    assert sorted(seen.asked[1:]) == [("GET", True), ("GET", True), ("POST", False), ("POST", False)]


async def test_it_is_off_unless_both_sides_want_it() -> None:
    for ours, theirs in ((True, False), (False, True)):
        seen = Seen()
        async with h3(seen, early_data=theirs) as port, client(early_data=ours) as ask:
            url = f"https://localhost:{port}/"
            assert await told(ask, url) == b"hello"
            for place in tuple(ask.state.origin_pools.values()):
                place.connections[0].close()
            assert await told(ask, url) == b"hello"
        assert seen.asked == [("GET", False), ("GET", False)]


def always(request: Request) -> bool:
    """Takes every request for safe."""
    return True


class Player(asyncio.DatagramProtocol):
    """Plays packets again, and hears whether they are answered."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.set()


async def test_what_is_played_again_is_not_answered() -> None:
    seen = Seen()
    loop = asyncio.get_running_loop()
    async with (
        early(seen) as port,
        wire(port) as (url, between),
        client(early_data=True) as ask,
    ):
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        between.sent.clear()
        assert await told(ask, url) == b"hello"
        assert seen.asked == [("GET", False), ("GET", True)]
        first = [each for each in between.sent if is_early(each)]
        await hang_up(ask)
        transport, player = await loop.create_datagram_endpoint(Player, remote_addr=("127.0.0.1", port))
        try:
            while not player.heard.is_set():  # until the first one's connection is gone, it takes them
                for each in first:
                    transport.sendto(each)
                with suppress(TimeoutError):
                    await asyncio.wait_for(player.heard.wait(), 0.1)
            assert await told(ask, url, "POST") == b"hello"
        finally:
            transport.close()
        assert seen.asked[2:] == [("POST", False)]


async def test_a_server_that_has_forgotten_the_ticket_answers_after_the_handshake() -> None:
    seen = Seen()
    first, second = early(seen), early(seen)
    async with first as port, second as other, wire(port) as (url, between), client(early_data=True) as ask:
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        between.to = other
        assert await told(ask, url) == b"hello"
        assert await told(ask, url) == b"hello"
    assert seen.asked == [("GET", False)] * 3


async def test_a_server_that_does_not_answer_in_time_is_asked_anew() -> None:
    seen = Seen()
    ask = client(early_data=True, connect_timeout=2)
    async with ask, early(seen) as port, wire(port) as (url, between):
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        known = {data[6:14] for data in between.sent if data[0] & 0x80}
        new: list[bytes] = []

        def passes(data: bytes) -> bool:
            """Not what a new connection is begun with, but what the next one is."""
            if data[0] & 0x80 and data[6:14] not in known:
                new.append(data[6:14])
            return not new or new[-1] != new[0]

        between.passes = passes
        assert await told(ask, url) == b"hello"
    assert seen.asked == [("GET", False)] * 2


async def test_too_early_is_asked_again_after_the_handshake() -> None:
    statuses: list[int] = []

    async def app(request: Request) -> Response:
        statuses.append(425 if request.headers.get("early-data") == "1" else 200)
        return Response(statuses[-1], body=b"hello")

    async with early(app) as port, client(early_data=True) as ask:
        url = f"https://localhost:{port}/"
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        # One that came early to whoever asks is theirs to ask again (RFC 8470 section 5.2).
        response = await ask(Request("GET", url, {"Early-Data": "1"}))
        assert response.status == 425
        await response.aclose()
    assert statuses == [200, 425, 200, 425]


async def test_what_is_not_safe_is_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama.http._h3.client.client.may_be_early", always)
    seen = Seen()
    async with early(seen) as port, client(early_data=True) as ask:
        url = f"https://localhost:{port}/"
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        response = await ask(Request("POST", url, {"Early-Data": "1"}))
        assert response.status == 425
        await response.aclose()
    assert seen.asked == [("GET", False)]


async def test_clients_are_asked_back_with_early_data_too() -> None:
    seen = Seen()
    async with early(seen, retry_threshold=0) as port, client(early_data=True) as ask:
        url = f"https://localhost:{port}/"
        assert await told(ask, url) == b"hello"
        await hang_up(ask)
        assert await told(ask, url) == b"hello"
    assert [method for method, _ in seen.asked] == ["GET", "GET"]


def test_a_ticket_is_good_once_and_the_oldest_go() -> None:
    class Ticket:
        def __init__(self, number: int) -> None:
            self.ticket = number.to_bytes(4, "big")

    tickets = ServerTickets()
    all_of_them: list[Any] = [Ticket(number) for number in range(TICKETS + 1)]
    for each in all_of_them:
        tickets.keep(each)
    assert tickets.take(all_of_them[0].ticket) is None
    assert [tickets.take(all_of_them[1].ticket) for _ in range(2)] == [all_of_them[1], None]


def test_early_data_goes_without_a_fallback() -> None:
    with pytest.raises(ConfigError, match="fallback"):
        http.h3_client(early_data=True, fallback=http.client())


@pytest.mark.peer
async def test_ngtcp2_comes_back_early(tmp_path: Path) -> None:
    seen = Seen()
    files = (f"--session-file={tmp_path}/session", f"--tp-file={tmp_path}/parameters")
    told = ("-q", "--exit-on-all-streams-close", "--sni=localhost", *files)
    async with early(seen) as port:
        for _ in range(2):
            done = await program("gtlsclient", *told, "127.0.0.1", str(port), f"https://localhost:{port}/")
            assert done.code == 0, done
    assert seen.asked == [("GET", False), ("GET", True)]


@pytest.mark.peer
async def test_aioquic_comes_back_early() -> None:
    aioquic = pytest.importorskip("aioquic.asyncio")
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.h3.connection import H3Connection
    from aioquic.h3.events import DataReceived
    from aioquic.quic.configuration import QuicConfiguration

    class Asking(QuicConnectionProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.over = asyncio.Event()
            self.http: Any = None

        def ask(self) -> None:
            self.http = H3Connection(self._quic)
            number = self._quic.get_next_available_stream_id()
            fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
            self.http.send_headers(number, fields, end_stream=True)
            self.transmit()

        def quic_event_received(self, event: Any) -> None:
            for each in self.http.handle_event(event) if self.http else ():
                if isinstance(each, DataReceived) and each.stream_ended:
                    self.over.set()

    seen = Seen()
    tickets: asyncio.Queue[Any] = asyncio.Queue()
    settings = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost")
    settings.load_verify_locations(ca_file())
    async with early(seen) as port:
        for ticket in (None, tickets):
            settings.session_ticket = await tickets.get() if ticket else None
            async with aioquic.connect(
                "127.0.0.1",
                port,
                configuration=settings,
                create_protocol=Asking,
                session_ticket_handler=tickets.put_nowait,
                wait_connected=False,
            ) as protocol:
                protocol.ask()
                await protocol.over.wait()
    assert seen.asked == [("GET", False), ("GET", True)]


@pytest.mark.peer
async def test_an_aioquic_server_is_asked_early() -> None:
    aioquic = pytest.importorskip("aioquic.asyncio")
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.h3.connection import H3Connection
    from aioquic.h3.events import HeadersReceived
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import HandshakeCompleted

    asked: list[bool] = []

    class Answering(QuicConnectionProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.http = H3Connection(self._quic)
            self.shaken = False

        def quic_event_received(self, event: Any) -> None:
            self.shaken = self.shaken or isinstance(event, HandshakeCompleted)
            for each in self.http.handle_event(event):
                if isinstance(each, HeadersReceived):
                    asked.append(not self.shaken)
                    self.http.send_headers(each.stream_id, [(b":status", b"200")])
                    self.http.send_data(each.stream_id, b"hello", end_stream=True)
                    self.transmit()

    tickets: dict[bytes, Any] = {}

    def keep(ticket: Any) -> None:
        tickets[ticket.ticket] = ticket

    settings = QuicConfiguration(alpn_protocols=["h3"], is_client=False)
    settings.load_cert_chain(*pair_files("localhost"))
    server = await aioquic.serve(
        "127.0.0.1",
        0,
        configuration=settings,
        create_protocol=Answering,
        session_ticket_handler=keep,
        session_ticket_fetcher=tickets.pop,
    )
    try:
        async with client(early_data=True) as ask:
            url = f"https://localhost:{server._transport.get_extra_info('sockname')[1]}/"
            assert await told(ask, url) == b"hello"
            await hang_up(ask)
            assert await told(ask, url) == b"hello"
    finally:
        server.close()
    assert asked == [False, True]

"""An HTTP/3 server and clients for it, over UDP in one process."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from qh3.asyncio.client import connect
from qh3.asyncio.protocol import QuicConnectionProtocol
from qh3.h3.connection import H3Connection
from qh3.h3.events import DataReceived, HeadersReceived, InformationalHeadersReceived, StreamReset
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.events import ConnectionTerminated, QuicEvent

from llama import Stream, http, serve
from llama.http import RequestHandler, Response
from tests.tls.sessions import ca_file, pair_files


@asynccontextmanager
async def h3(exchange: RequestHandler, **options: Any) -> AsyncGenerator[int]:
    """The UDP port at which an exchange is served."""
    async with serve(http.h3_server("127.0.0.1:0", exchange, *pair_files("localhost"), **options)) as server:
        yield int(server.addresses[0].rpartition(":")[2])


def client(**options: Any) -> Any:
    """Our own client, which trusts the tests' authority."""
    if options.get("verify", True):
        options.setdefault("ca", ca_file())
    return http.h3_client(**options)


@asynccontextmanager
async def tunnel(**options: Any) -> AsyncGenerator[tuple[Stream, Stream]]:
    """Both ends of what a CONNECT opens."""
    ends: asyncio.Queue[Stream] = asyncio.Queue()
    over = asyncio.Event()

    async def upgrade(stream: Stream) -> None:
        ends.put_nowait(stream)
        await over.wait()

    async def accept(request: http.Request) -> Response:
        return Response(200, upgrade=upgrade)

    async with h3(accept) as port, client() as ask:
        request = http.Request("CONNECT", f"localhost:{port}")
        request.extensions.set(http.Origin.parse(f"https://localhost:{port}"))
        response = await ask(request)
        try:
            yield response.upgrade.stream, await ends.get()
        finally:
            over.set()
            await response.aclose()


@dataclass
class Answer:
    """What came on one stream."""

    heads: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    reset: int | None = None
    informed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once an informational response has come."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def ends(self, connection: "Raw") -> None:
        """Return when the stream has ended, or the connection."""
        connection.ended.add_done_callback(lambda _: self.over.set())
        await self.over.wait()


class Raw(QuicConnectionProtocol):
    """A client that sends what it is told, fields that break the rules among it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)
        self.answers: dict[int, Answer] = {}
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.ended.set_result(event.error_code)
        for each in self.http.handle_event(event):
            if isinstance(each, InformationalHeadersReceived):
                answer = self.answers.setdefault(each.stream_id, Answer())
                answer.heads.append(each.headers)
                answer.informed.set()
            if not isinstance(each, HeadersReceived | DataReceived | StreamReset):
                continue
            answer = self.answers.setdefault(each.stream_id, Answer())
            if isinstance(each, HeadersReceived):
                answer.heads.append(each.headers)
            elif isinstance(each, DataReceived):
                answer.body += each.data
            if isinstance(each, StreamReset):
                answer.reset = each.error_code
            if isinstance(each, StreamReset) or each.stream_ended:
                answer.over.set()

    def ask(self, *fields: tuple[bytes, bytes], body: bytes | None = None, end: bool = True) -> Answer:
        """Send a request with these fields."""
        number = self._quic.get_next_available_stream_id()
        self.http.send_headers(number, list(fields), end_stream=end and body is None)
        if body is not None:
            self.http.send_data(number, body, end_stream=end)
        self.transmit()
        return self.answers.setdefault(number, Answer())


GET = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/"))
POST = ((b":method", b"POST"), *GET[1:])


@asynccontextmanager
async def raw(port: int, ca: str | None = None, suites: Any = None) -> AsyncGenerator[Raw]:
    """A connection of a client that knows no rules."""
    configuration = QuicConfiguration(
        alpn_protocols=["h3"], server_name="localhost", cafile=ca or ca_file(), cipher_suites=suites
    )
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Raw) as protocol:
        assert isinstance(protocol, Raw)
        yield protocol

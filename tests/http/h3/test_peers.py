"""HTTP/3 with other libraries: aioquic, niquests, curl_cffi."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("qh3")

from llama.http import Request, Response
from tests.http.h3.fixtures import client, h3
from tests.tls.sessions import ca_file, pair_files

pytestmark = pytest.mark.peer
SIZE = 300_000


async def sized(request: Request) -> Response:
    """Says how it was asked, and how much it was sent."""
    body = await request.body.read(1 << 24)
    return Response(200, {"content-type": "text/html"}, f"<p>HTTP/{request.version} {len(body)}</p>")


async def test_aioquic_is_served() -> None:
    aioquic = pytest.importorskip("aioquic.asyncio")
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.h3.connection import H3Connection
    from aioquic.h3.events import DataReceived
    from aioquic.quic.configuration import QuicConfiguration

    class Asking(QuicConnectionProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.http = H3Connection(self._quic)
            self.body = b""
            self.over = asyncio.Event()

        def quic_event_received(self, event: Any) -> None:
            for each in self.http.handle_event(event):
                if isinstance(each, DataReceived):
                    self.body += each.data
                    if each.stream_ended:
                        self.over.set()

    async with h3(sized) as port:
        settings = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost", cafile=ca_file())
        settings.load_verify_locations(ca_file())
        async with aioquic.connect(
            "127.0.0.1", port, configuration=settings, create_protocol=Asking
        ) as protocol:
            number = protocol._quic.get_next_available_stream_id()
            fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]
            protocol.http.send_headers(number, fields)
            protocol.http.send_data(number, bytes(SIZE), end_stream=True)
            protocol.transmit()
            await protocol.over.wait()
            assert protocol.body == b"<p>HTTP/3 %d</p>" % SIZE


async def test_an_aioquic_server_is_asked() -> None:
    aioquic = pytest.importorskip("aioquic.asyncio")
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.h3.connection import H3Connection
    from aioquic.h3.events import DataReceived, HeadersReceived
    from aioquic.quic.configuration import QuicConfiguration

    class Answering(QuicConnectionProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.http = H3Connection(self._quic)
            self.size: dict[int, int] = {}

        def quic_event_received(self, event: Any) -> None:
            for each in self.http.handle_event(event):
                if isinstance(each, DataReceived):
                    self.size[each.stream_id] = self.size.get(each.stream_id, 0) + len(each.data)
                if isinstance(each, DataReceived | HeadersReceived) and each.stream_ended:
                    self.http.send_headers(each.stream_id, [(b":status", b"200")])
                    text = b"%d bytes" % self.size.get(each.stream_id, 0)
                    self.http.send_data(each.stream_id, text, end_stream=True)
                    self.transmit()

    settings = QuicConfiguration(alpn_protocols=["h3"], is_client=False)
    settings.load_cert_chain(*pair_files("localhost"))
    server = await aioquic.serve("127.0.0.1", 0, configuration=settings, create_protocol=Answering)
    port = server._transport.get_extra_info("sockname")[1]
    try:
        async with client() as ask:
            for size in (0, SIZE):
                response = await ask(Request("POST", f"https://localhost:{port}/", body=bytes(size)))
                assert await response.body.read() == b"%d bytes" % size
    finally:
        server.close()
        await asyncio.sleep(0)


async def test_niquests_is_served() -> None:
    niquests = pytest.importorskip("niquests")

    async with h3(sized) as port:

        def ask() -> tuple[int, str]:
            with niquests.Session() as session:
                session.quic_cache_layer.add_domain("localhost", port, port)
                answer = session.post(f"https://localhost:{port}/", data=bytes(SIZE), verify=ca_file())
                return answer.http_version, answer.text

        assert await asyncio.to_thread(ask) == (30, f"<p>HTTP/3 {SIZE}</p>")


async def test_curl_over_ngtcp2_is_served() -> None:
    curl = pytest.importorskip("curl_cffi")

    async with h3(sized) as port:

        def ask() -> tuple[int, str]:
            with curl.Session(http_version=curl.CurlHttpVersion.V3ONLY, verify=ca_file()) as session:
                answer = session.post(f"https://localhost:{port}/", data=bytes(SIZE))
                return answer.http_version, answer.text

        assert await asyncio.to_thread(ask) == (30, f"<p>HTTP/3 {SIZE}</p>")

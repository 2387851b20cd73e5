"""Field sections that decode to more than a limit, over HTTP/3: what is read of them, and what ends a connection."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("qh3")

from qh3._hazmat import QpackEncoder
from qh3.h3.connection import FieldSectionTooLarge
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnectionError

from llama.http import Limits, Request, Response
from llama.http._h3.qpack_limits import H3
from tests.http.h3.fixtures import GET, Answer, Raw, h3, raw

EXCESSIVE_LOAD = 0x107
REQUEST = b"\xd1\xd7\xc1\x50\x09localhost"
NOT_INDEXED = b"\x02\0" + REQUEST
STATIC = b"\0\0" + REQUEST


async def app(request: Request) -> Response:
    return Response(200)


def insert(value: bytes) -> bytes:
    """The capacity of the encoder's table, and one entry."""
    size = len(value) - 127
    return b"\x3f\xe1\x1f" + b"\x43x-a" + b"\x7f" + bytes([size & 127 | 128, size >> 7]) + value


BOMBS: dict[str, bytes] = {
    "references to one large entry, more than is decoded": NOT_INDEXED + b"\x80" * 5000,
    "references to one large entry, as many as are decoded": NOT_INDEXED + b"\x80" * 30,
    "references to a static field": STATIC + b"\xd1" * 3000,
    "empty literals": STATIC + b"\x21a\0" * 3000,
    "somewhat too many fields": STATIC + b"\x21a\0" * 300,
}


def request(peer: Raw, section: bytes) -> Answer:
    """Send a request whose field section is written by hand."""
    number = peer._quic.get_next_available_stream_id()
    frame = b"\x01" + (0x8000_0000 | len(section)).to_bytes(4, "big") + section
    peer._quic.send_stream_data(number, frame, end_stream=True)
    peer.transmit()
    return peer.answers.setdefault(number, Answer())


class Deaf:
    """An encoder that ignores acknowledgements."""

    def __init__(self, encoder: QpackEncoder) -> None:
        self.apply_settings = encoder.apply_settings

    def feed_decoder(self, data: bytes) -> None: ...


@pytest.mark.parametrize("section", BOMBS.values(), ids=BOMBS)
async def test_a_client_that_sends_bombs_loses_its_connection(
    section: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with h3(app) as port, raw(port) as peer:
        # The client's encoder does not know the sections that it is to take acknowledgements of.
        monkeypatch.setattr(peer.http, "_encoder", Deaf(peer.http._encoder))
        encoder = peer.http._local_encoder_stream_id
        assert encoder is not None
        peer._quic.send_stream_data(encoder, insert(b"v" * 3900))
        requests = 0
        async with asyncio.timeout(10):
            with suppress(QuicConnectionError):
                while not peer.ended.done():
                    answer = request(peer, section)
                    requests += 1
                    await answer.ends(peer)
                    assert not answer.heads or answer.heads[0][0] == (b":status", b"431")
            assert await peer.ended == EXCESSIVE_LOAD
        assert requests <= 210


@pytest.mark.parametrize("crumbs", [17, 30])
async def test_an_oversized_cookie_on_thirty_streams_gets_thirty_431(crumbs: int) -> None:
    async with h3(app) as port, raw(port) as peer, asyncio.timeout(10):
        for _ in range(30):
            answer = peer.ask(*GET, *[(b"cookie", b"c" * 4096)] * crumbs)
            await answer.ends(peer)
            assert answer.heads[0][0] == (b":status", b"431")
        answer = peer.ask(*GET)
        await answer.ends(peer)
        assert answer.heads[0][0] == (b":status", b"200")


@pytest.mark.parametrize(
    ("count", "is_decoded"), [(128, True), (128 * 9 + 6, True), (128 * 9 + 7, False), (3900, False)]
)
@pytest.mark.parametrize("is_client", [False, True])
def test_a_section_with_far_too_many_fields_is_refused(
    count: int, *, is_decoded: bool, is_client: bool
) -> None:
    http = unconnected(Limits(), is_client=is_client)
    section = b"\0\0" + b"\x21a\0" * count
    if is_decoded:
        assert len(http._decode_headers(0, section)) == count
        return
    with pytest.raises(FieldSectionTooLarge):
        http._decode_headers(0, section)


def test_a_section_is_decoded_up_to_twice_the_head() -> None:
    http = unconnected(Limits(max_head=1000))
    for size, is_decoded in ((1967, True), (1968, False)):
        length = size - 127
        section = b"\0\0\x21a\x7f" + bytes([length & 127 | 128, length >> 7]) + b"v" * size
        if is_decoded:
            assert http._decode_headers(0, section) == [(b"a", b"v" * size)]
            continue
        with pytest.raises(FieldSectionTooLarge):
            http._decode_headers(0, section)


def test_the_limits_are_announced() -> None:
    settings = unconnected(Limits(max_head=1000))._sent_settings
    assert settings is not None
    assert (settings[0x1], settings[0x6], settings[0x7]) == (4096, 2000, 16)


class Unconnected:
    """A QUIC connection that sends nothing."""

    _quic_logger = None

    def __init__(self, *, is_client: bool) -> None:
        self.configuration = QuicConfiguration(is_client=is_client)
        self._next = 2

    def get_next_available_stream_id(self, is_unidirectional: bool = False) -> int:
        self._next += 4
        return self._next

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None: ...


def unconnected(limits: Limits, *, is_client: bool = False) -> H3:
    connection: Any = Unconnected(is_client=is_client)
    return H3(connection, limits)

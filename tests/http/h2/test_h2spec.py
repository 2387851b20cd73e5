"""The server held against the usual conformance suite, where that is installed, and its legal cases without it.

What a peer may not do is in `wire/test_h2_conformance.py`, section by section; here is what it may do, all of which has
to be answered, over a connection. The suite, h2spec, is run whole, in the clear and over TLS.
"""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import ExitStack
from xml.etree import ElementTree as ET

import pytest

from llama import LlamaError, http, serve, stack, tcp, tls
from llama.http import Request, Response
from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WITH_PRIORITY,
    frame,
    unpack_header,
)
from llama.http._h2.wire.hpack_decode import Decoder
from llama.http._h2.wire.hpack_encode import Encoder
from tests.http.h2.test_upstreams import accepts, free_port, running
from tests.http.peers import program
from tests.http.serving import Client, client_of
from tests.socks5.programs import installed
from tests.tls.sessions import pair_files

GET = b"\x82\x86\x84\x41\x01a"
POST = b"\x83\x86\x84\x41\x01a"
BOTH = END_STREAM | END_HEADERS
ASKED = frame(HEADERS, BOTH, 1, GET)
OPENED = frame(HEADERS, END_HEADERS, 1, POST)
PRIORITIZED = b"\0\0\0\0\xff"
TRAILERS = frame(HEADERS, BOTH, 1, b"\x00\x01a\x01b")


async def page(request: Request) -> Response:
    body = await request.body.read(1_000_000)
    return Response(200, body=f"{request.method} {request.path} {len(body)} bytes")


class Wire:
    """A connection on which frames are written and read by hand."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.decoder = Decoder()
        self.rest = b""

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame: its type, flags, stream and payload."""
        while len(self.rest) < 9 or len(self.rest) < self._size():
            data = await self.client.stream.read()
            assert data, "the server left"
            self.rest += data
        size = self._size()
        _, _, kind, flags, id = unpack_header(self.rest, 0)
        payload, self.rest = self.rest[9:size], self.rest[size:]
        return kind, flags, id, payload

    def _size(self) -> int:
        high, low, *_ = unpack_header(self.rest, 0)
        return 9 + int(high << 8 | low)

    async def answer(self, stream: int = 1) -> tuple[str, bytes]:
        """The status and the body of the answer on a stream."""
        status, body = "", b""
        while True:
            kind, flags, id, payload = await self.frame()
            assert kind not in (GOAWAY, RST_STREAM), payload
            if kind == HEADERS:
                fields = dict(self.decoder.decode(payload))
                status = fields.get(":status", status) if id == stream else status
            if kind == DATA and id == stream:
                body += payload
            if kind in (HEADERS, DATA) and id == stream and flags & END_STREAM:
                return status, body

    async def say(self, data: bytes) -> None:
        await self.client.say(data)

    async def until(self, kind: int, flags: int = 0) -> tuple[int, bytes]:
        """The stream and the payload of the next frame of a type."""
        while True:
            each, marks, id, payload = await self.frame()
            if each == kind and marks & flags == flags:
                return id, payload


def settings(key: int, value: int) -> bytes:
    return frames.settings({key: value})


def literal(first: int, name: str = "", *, huffman: bool = False) -> bytes:
    """A field that is not in a table: `first` is its form, with the index of its name if that is."""
    encoded = {"user-agent": b"\x87\xb5\x05\xb1\x61\xcc\x5a\x93", "test": b"\x83\x49\x50\x9f", "": b""}[name]
    plain = bytes([len(name)]) + name.encode() if name else b""
    value = b"\x83\x49\x50\x9f" if huffman else b"\x04test"
    return bytes([first]) + (encoded if huffman else plain) + value


ACCEPTED = {
    "2/1 PRIORITY while idle": frame(PRIORITY, 0, 1, PRIORITIZED) + ASKED,
    "2/2 WINDOW_UPDATE while half-closed": ASKED + frames.window_update(1, 100),
    "2/3 PRIORITY while half-closed": ASKED + frame(PRIORITY, 0, 1, PRIORITIZED),
    "3.1/1 DATA": OPENED + frame(DATA, END_STREAM, 1, b"test"),
    "3.1/2 DATA twice": OPENED + frame(DATA, 0, 1, b"test") + frame(DATA, END_STREAM, 1, b"test"),
    "3.1/3 DATA with padding": OPENED + frame(DATA, END_STREAM | PADDED, 1, b"\x05test\0\0\0\0\0"),
    "3.2/1 HEADERS": ASKED,
    "3.2/2 HEADERS with padding": frame(HEADERS, BOTH | PADDED, 1, b"\x02" + GET + b"\0\0"),
    "3.2/3 HEADERS with a priority": frame(HEADERS, BOTH | WITH_PRIORITY, 1, PRIORITIZED + GET),
    "3.3/2 PRIORITY with the least weight": frame(PRIORITY, 0, 1, bytes(5)) + ASKED,
    "3.3/3 PRIORITY on another": frame(PRIORITY, 0, 1, b"\0\0\0\x03\x10") + ASKED,
    "3.3/4 PRIORITY, exclusive": frame(PRIORITY, 0, 1, b"\x80\0\0\x03\x10") + ASKED,
    "3.3/5 PRIORITY of a later stream": frame(PRIORITY, 0, 5, PRIORITIZED) + ASKED,
    "3.9/1 WINDOW_UPDATE of the connection": frames.window_update(0, 1) + ASKED,
    "3.10/1 CONTINUATION": frame(HEADERS, END_STREAM, 1, GET[:2])
    + frame(CONTINUATION, END_HEADERS, 1, GET[2:]),
    "3.10/2 CONTINUATION twice": frame(HEADERS, END_STREAM, 1, GET[:2])
    + frame(CONTINUATION, 0, 1, GET[2:3])
    + frame(CONTINUATION, END_HEADERS, 1, GET[3:]),
    "4/4 trailers": OPENED + frame(DATA, 0, 1, b"test") + TRAILERS,
    "5/1 an index": frame(HEADERS, BOTH, 1, GET + b"\x90"),
    "5/2 literal, indexed, name from the table": frame(HEADERS, BOTH, 1, GET + literal(0x7A)),
    "5/3 literal, indexed, name from the table, by Huffman": frame(
        HEADERS, BOTH, 1, GET + literal(0x7A, huffman=True)
    ),
    "5/4 literal, indexed, new name": frame(HEADERS, BOTH, 1, GET + literal(0x40, "test")),
    "5/5 literal, indexed, new name, by Huffman": frame(
        HEADERS, BOTH, 1, GET + literal(0x40, "test", huffman=True)
    ),
    "5/6 literal, not indexed, name from the table": frame(HEADERS, BOTH, 1, GET + b"\x0f\x2b\x04test"),
    "5/8 literal, not indexed, new name": frame(HEADERS, BOTH, 1, GET + literal(0x00, "test")),
    "5/9 literal, not indexed, new name, by Huffman": frame(
        HEADERS, BOTH, 1, GET + literal(0x00, "test", huffman=True)
    ),
    "5/10 literal, never indexed, name from the table": frame(HEADERS, BOTH, 1, GET + b"\x1f\x2b\x04test"),
    "5/12 literal, never indexed, new name": frame(HEADERS, BOTH, 1, GET + literal(0x10, "test")),
    "5/14 a change of the table's size": frame(HEADERS, BOTH, 1, b"\x3f\x61" + GET),
    "5/15 two of them": frame(HEADERS, BOTH, 1, b"\x20\x3f\x61" + GET),
    "4.2/1 DATA as large as was agreed on": OPENED + frame(DATA, END_STREAM, 1, bytes(16_384)),
    "6.5.2/5 an unknown setting": settings(0xFF, 1) + ASKED,
    "5.5/1 an unknown frame": frame(0xFF, 0, 0, b"12345678") + ASKED,
    "7/2 RST_STREAM with an unknown code": OPENED
    + frame(RST_STREAM, 0, 1, b"\0\0\0\xff")
    + frame(HEADERS, BOTH, 3, GET),
    "3.8/1 GOAWAY": frame(GOAWAY, 0, 0, bytes(8)) + ASKED,
    "7/1 GOAWAY with an unknown code": frame(GOAWAY, 0, 0, bytes(4) + b"\0\0\0\xff") + ASKED,
}


@pytest.mark.parametrize("said", ACCEPTED.values(), ids=ACCEPTED)
async def test_what_a_client_may_say_is_answered(said: bytes) -> None:
    async with client_of(stack(http.server(), page)) as client:
        wire = Wire(client)
        await wire.say(PREFACE + frame(SETTINGS, 0, 0) + said)
        stream = 3 if frame(HEADERS, BOTH, 3, GET) in said else 1
        status, body = await wire.answer(stream)
        assert (status, body.split()[0]) == ("200", b"POST" if OPENED in said and stream == 1 else b"GET")


async def test_frames_on_a_stream_that_was_answered_do_not_matter() -> None:
    async with client_of(stack(http.server(), page)) as client:
        wire = Wire(client)
        await wire.say(PREFACE + frame(SETTINGS, 0, 0) + ASKED)
        await wire.answer()
        late = (
            frame(PRIORITY, 0, 1, PRIORITIZED)
            + frames.window_update(1, 9)
            + frame(RST_STREAM, 0, 1, bytes(4))
        )
        await wire.say(late + frame(PING, 0, 0, b"a marker"))
        assert await wire.until(PING, frames.ACK) == (0, b"a marker")
        await wire.say(frame(HEADERS, BOTH, 3, Encoder().encode([(":method", "HEAD"), *REST])))
        assert await wire.answer(3) == ("200", b"")


REST = [(":scheme", "http"), (":authority", "a"), (":path", "/")]


async def test_a_first_window_that_grows_lets_go_what_waits_for_it() -> None:
    """6.9.2/1 of the suite, with the answer waiting already when the window grows; then 6.9.2/2, a negative one."""
    async with client_of(stack(http.server(), page)) as client:
        wire = Wire(client)
        await wire.say(PREFACE + settings(frames.INITIAL_WINDOW_SIZE, 0) + ASKED)
        while (await wire.frame())[0] != HEADERS:
            pass
        await wire.say(frame(PING, 0, 0, b"a marker"))  # a round trip, in which the body could have come
        assert await wire.until(PING, frames.ACK) == (0, b"a marker")
        await wire.say(settings(frames.INITIAL_WINDOW_SIZE, 3))
        assert await wire.until(DATA) == (1, b"GET")
        await wire.say(settings(frames.INITIAL_WINDOW_SIZE, 2))
        await wire.say(frames.window_update(1, 2))
        assert await wire.until(DATA) == (1, b" ")
        await wire.say(settings(frames.INITIAL_WINDOW_SIZE, 100))
        assert await wire.until(DATA) == (1, b"/ 0 bytes")


REASONS = {
    (
        "clear",
        "http2/3.5/2",
    ): "a port in the clear serves HTTP/1.1 as well: what does not begin with the preface of "
    "HTTP/2 is answered by 400 of HTTP/1.1, which the suite takes for a malformed frame",
}
"""Cases that do not pass, and why."""


@pytest.mark.peer
@pytest.mark.llama_timeout(120)
@pytest.mark.parametrize("how", ["clear", "TLS"])
async def test_h2spec_passes(how: str) -> None:
    installed("h2spec")
    handler = stack(http.server(), page)
    if how == "TLS":
        handler = stack(tls.server(*pair_files("localhost")), http.server(), page)
    async with serve(tcp.server("127.0.0.1:0", handler)) as server, asyncio.timeout(100):
        port = server.addresses[0].rpartition(":")[2]
        more = ("-t", "-k") if how == "TLS" else ()
        done = await program("h2spec", "--strict", "-p", port, "-j", "/dev/stderr", *more)
    failed, count = failures(ET.fromstring(done.err))
    assert count > 140, done.out.decode()
    assert failed <= {case for kind, case in REASONS if kind == how}, done.out.decode()


def failures(report: ET.Element) -> tuple[set[str], int]:
    """The cases that failed, as PART/SECTION/NUMBER, and how many there are in all."""
    failed: set[str] = set()
    count = 0
    for suite in report.iter("testsuite"):
        for number, case in enumerate(suite.iter("testcase"), 1):
            count += 1
            if len(case):
                failed.add(f"{suite.get('package')}/{number}")
    return failed, count


@pytest.mark.peer
@pytest.mark.llama_timeout(120)
async def test_our_client_passes_h2specd() -> None:
    """The suite's servers each do one thing that a client has to take or to object to."""
    first = free_ports(100)
    command = (installed("h2specd"), "--strict", "-o", "5", "-p", str(first), "-f", str(first + 1))
    async with asyncio.timeout(110), running(*command):
        await accepts(first)
        report = await page_of(f"http://127.0.0.1:{first}/")
        urls = re.findall(r"http://(127\.0\.0\.1:\d+/)", report)
        assert len(set(urls)) > 50, report
        await asyncio.gather(*[ask_once(f"h2c://{url}") for url in dict.fromkeys(urls)])
        found = None
        while found is None or sum(map(int, found.groups()[1:])) < int(found[1]):
            report = await page_of(f"http://127.0.0.1:{first}/")
            found = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", report)
        assert found[1] == found[2], report


async def page_of(url: str) -> str:
    async with http.client() as client:
        return (await (await client(Request("GET", url))).body.read()).decode()


async def ask_once(url: str) -> None:
    """Ask for a page, and go on listening for a while after it came: some cases come late."""
    try:
        async with asyncio.timeout(3), http.client() as client:
            response = await client(Request("GET", url))
            await response.body.read()
            await asyncio.sleep(0.3)
    except (LlamaError, TimeoutError):
        pass


def free_ports(count: int) -> int:
    """The first of so many ports in a row that are free now."""
    while True:
        first = free_port()
        try:
            with ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
                return first
        except (OSError, OverflowError):
            continue

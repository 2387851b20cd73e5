"""Messages with randomly broken framing: two independent parsers agree about the output of the proxy."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama import Stream, stack, testing
from llama.http import RequestHandler, server
from tests.http.serving import plain
from tests.http.smuggling.cases import Backend, forward, ok, reverse, take_request, to_forward
from tests.http.upstreams import Upstream

h11 = pytest.importorskip("h11")
LONG = b"5;x=y\r\nhello\r\na\r\n0123456789\r\n0\r\nX: 1\r\n\r\n"
SEEDS = [
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n" + LONG,
    b"GET /d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /e HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
    b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /g HTTP/1.1\r\nHost: a\r\n\r\n\r\n",
    b"POST /h HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nhi",
]
PIECES = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\x0b", b" ", b"\t", b":", b",", b";", b"0", b"5", b"+", b"-", b"x",
    b"_", b'"', b"\xa0", b"0x", b"0\r\n\r\n", b"5\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"transfer-encoding:chunked\r\n",
    b"Content-Length", b"Transfer-Encoding", b", chunked", b", 5", b"\r\n ", b"Host: b\r\n", b"HTTP/1.0", b"HTTP/1.1",
    b"Connection: close\r\n", b"Connection: Content-Length\r\n", b"Upgrade: h2c\r\n", b"HEAD", b"CONNECT",
    b"GET /z HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\nGET /z HTTP/1.1\r\nHost: a\r\n\r\n", b"ffffffffffffffff",
]  # fmt: skip
Change = tuple[float, int, bytes]
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1), st.integers(0, 3), st.sampled_from(PIECES) | st.binary(min_size=1, max_size=2)
    ),
    max_size=4,
)
Make = Callable[[Upstream, float | None], RequestHandler]
PATIENCE = 1.0  # seconds to wait for an incomplete response


def changed(raw: bytes, changes: list[Change]) -> bytes:
    """Return the message with pieces inserted, or replacing bytes, at the given positions."""
    for place, gone, piece in changes:
        at = int(place * len(raw))
        raw = raw[:at] + piece + raw[at + gone :]
    return raw


async def exchange(said: bytes, origin: Callable[[Stream], object], make: Make) -> bytes:
    """Send this and half-close; return all responses, complete or not."""
    upstream = Upstream(origin)  # type: ignore[arg-type]  # it is a handler
    proxy = make(upstream, PATIENCE)
    fetcher = proxy.client  # type: ignore[attr-defined]
    heard = b""
    async with (
        testing.clock(autojump=True),
        fetcher,
        testing.connect(stack(server(half_close=True), proxy)) as stream,
    ):
        try:
            await stream.write(said)
            await stream.write_eof()
            while data := await stream.read():
                heard += data
        except OSError:
            pass
    return plain(heard)


def by_h11(wire: bytes) -> list[tuple[str, bytes]]:
    """Return the requests that an independent parser finds: targets and bodies."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(wire)
    found: list[tuple[str, bytes]] = []
    target, body = "", b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            target, body = event.target.decode(), b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            found.append((target, body))
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.states[h11.SERVER] is not h11.DONE:
                return found
            connection.start_next_cycle()
        else:
            return found


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2), CHANGES, st.sampled_from([reverse, forward]))
async def test_the_backend_sees_the_requests_that_were_answered(
    seeds: list[bytes], changes: list[Change], make: Make
) -> None:
    said = changed(b"".join(seeds), changes)
    backend = Backend()
    heard = await exchange(to_forward(said) if make is forward else said, backend, make)
    assert backend.errors == []
    answered = re.findall(rb"HTTP/1\.1 200 OK\r\nContent-Length: (\d+)\r\n", heard)
    assert [int(each) for each in answered] == [len(each.target) + 2 for each in backend.requests]
    for wire, rest in zip(backend.wires, backend.rests, strict=True):
        whole = wire[: len(wire) - len(rest)]
        mine: list[tuple[str, bytes]] = []
        while found := take_request(whole):
            mine.append((found[0].target, found[0].body))
            whole = found[1]
        if wire.isascii():  # h11 accepts only ASCII in a target
            assert by_h11(wire[: len(wire) - len(rest)]) == mine


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + LONG,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled...",
]
ANSWER_PIECES = [
    *PIECES,
    b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
    b"200",
    b"204",
    b"101",
    b"HTTP/1.1 100 \r\n\r\n",
]
ANSWER_CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1), st.integers(0, 3), st.sampled_from(ANSWER_PIECES) | st.binary(min_size=1, max_size=2)
    ),
    max_size=4,
)


def answers_by_h11(heard: bytes) -> list[tuple[int, bytes, bool]]:
    """Return the responses that an independent parser finds: status, body, and whether it was complete."""
    found: list[tuple[int, bytes, bool]] = []
    connection = h11.Connection(h11.CLIENT)
    connection.receive_data(heard)
    connection.receive_data(b"")
    while len(found) < 3:
        if connection.states[h11.CLIENT] is not h11.IDLE:
            return found
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        status, body, whole = 0, b"", False
        try:
            while not whole:
                event = connection.next_event()
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    whole = True
                elif not isinstance(event, h11.InformationalResponse):
                    return found
        except h11.RemoteProtocolError:
            return [*found, (status, body, False)] if status else found
        found.append((status, body, True))
        if connection.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return found
        connection.start_next_cycle()
    return found


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ANSWERS), ANSWER_CHANGES, st.sampled_from([reverse, forward]))
async def test_the_next_request_gets_its_own_response(
    answer: bytes, changes: list[Change], make: Make
) -> None:
    raw = changed(answer, changes)

    async def origin(stream: Stream) -> None:
        got = b""
        while data := await stream.read():
            got += data
            while (found := take_request(got)) is not None:
                seen, got = found
                await stream.write(raw if seen.target == "/first" else ok(seen))
                if seen.target == "/first" and b"HTTP/1.0" in raw:
                    return

    said = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\n\r\n"
    heard = await exchange(to_forward(said) if make is forward else said, origin, make)
    first, *others = answers_by_h11(heard) or [(0, b"", False)]
    assert others == ([(200, b"</last>", True)] if first[2] else [])
    if first[2]:
        assert first[0] in range(200, 600)

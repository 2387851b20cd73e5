"""One port for several protocols: who gets which connection, and every byte of it."""

import asyncio

import pytest

from llama import (
    ConfigError,
    ConnectionHandler,
    ProtocolError,
    Shutdown,
    Stream,
    describe,
    http,
    socks5,
    stack,
    tcp,
    testing,
    tls,
)
from llama.http import Request, Response
from llama.tcp._protocol_detection import begins_with, is_http1
from tests.layers.calling import call
from tests.tls.sessions import pair_files

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Noting:
    """A handler that notes all the bytes that it gets."""

    def __init__(self) -> None:
        self.calls = 0
        self.data = b""

    async def __call__(self, stream: Stream) -> None:
        self.calls += 1
        while data := await stream.read():
            self.data += data


def everything() -> tuple[dict[str, Noting], ConnectionHandler]:
    notes = {name: Noting() for name in ("ssh", "tls", "socks5", "socks4", "http", "http2", "default")}
    return notes, tcp.route(
        (b"SSH-", notes["ssh"]),
        tls=notes["tls"],
        socks5=notes["socks5"],
        socks4=notes["socks4"],
        http=notes["http"],
        http2=notes["http2"],
        default=notes["default"],
    )


async def send(handler: ConnectionHandler, data: bytes, step: int = 65536) -> None:
    async with testing.connect(handler) as stream:
        for start in range(0, len(data), step):
            await stream.write(data[start : start + step])
            await asyncio.sleep(0)
        await stream.write_eof()
        assert await stream.read() == b""


# who gets it


@pytest.mark.parametrize("step", [1, 2, 5, 65536])
@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (HELLO, "tls"),
        (b"\x05\x01\x00", "socks5"),
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "socks4"),
        (b"GET / HTTP/1.1\r\n\r\n", "http"),
        (b"get /a HTTP/1.1\r\n\r\n", "http"),
        (b"M-SEARCH * HTTP/1.1\r\n\r\n", "http"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", "http"),
        (b"POST https://a.example/ HTTP/1.1\r\n\r\n", "http"),
        (b"CONNECT a.example:443 HTTP/1.1\r\n\r\n", "http"),
        (b"CONNECT [::1]:443 HTTP/1.1\r\n\r\n", "http"),
        (b"PRI * HTTP/1.1\r\n\r\n", "http"),
        (PREFACE + b"\0\0\0\4\0\0\0\0\0", "http2"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "ssh"),
        (b"SSL", "default"),
        (b"\x16\x02\x00", "default"),
        (b"\x16", "default"),
        (b"GE", "default"),
        (b"GET ", "default"),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", "default"),
        (b"EHLO a.example\r\n", "default"),
        (b"A" * 33 + b" / HTTP/1.1\r\n\r\n", "default"),
        (b" / HTTP/1.1\r\n\r\n", "default"),
        (b"\r\n\r\n\0\r\nQUIT\n", "default"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "default"),
        (b"", "default"),
    ],
)
async def test_the_first_bytes_select_the_handler_and_stay_in_the_stream(
    data: bytes, taken: str, step: int
) -> None:
    notes, handler = everything()
    await send(handler, data, step)
    assert {name: note.data for name, note in notes.items() if note.calls} == {taken: data}


async def test_http2_goes_to_the_http_handler_by_default() -> None:
    note, other = Noting(), Noting()
    await send(tcp.route(http=note), PREFACE, 3)
    await send(tcp.route(http2=other), PREFACE, 3)
    assert note.data == other.data == PREFACE


async def test_routing_waits_only_for_the_bytes_that_it_needs() -> None:
    got: list[bytes] = []

    async def once(stream: Stream) -> None:
        got.append(await stream.read())

    for handler, data in (
        (tcp.route(socks5=once, http=once), b"\x05"),
        (tcp.route(tls=once), b"\x16\x03"),
        (tcp.route(http=once, socks5=once), b"GET /"),
        (tcp.route(http=once, default=once), b"G1"),
        (tcp.route(default=once, http=once), b"CONNECT a"),
    ):
        async with testing.connect(handler) as stream:
            await stream.write(data)
            assert await stream.read() == b"", data  # the handler has ended
    assert len(got) == 5


async def test_a_default_alone_gets_the_connection_immediately() -> None:
    async def greets(stream: Stream) -> None:
        await stream.write(b"220 mail\r\n")

    async with testing.connect(tcp.route(default=greets)) as stream:
        assert await stream.read() == b"220 mail\r\n"


# rules of one's own


async def test_a_matcher_that_needs_more_bytes_keeps_its_precedence() -> None:
    first, second = Noting(), Noting()

    def is_long(data: bytes) -> bool | None:
        return len(data) >= 20 or None

    handler = tcp.route((is_long, first), http=second)
    await send(handler, b"GET / HTTP/1.1\r\n\r\n and more", 4)
    await send(handler, b"GET / HTTP", 4)
    assert (first.data, second.data) == (b"GET / HTTP/1.1\r\n\r\n and more", b"GET / HTTP")


async def test_an_undecided_matcher_is_called_up_to_the_limit() -> None:
    seen: list[int] = []

    def never(data: bytes) -> None:
        seen.append(len(data))

    note, default = Noting(), Noting()
    await send(tcp.route((never, note), default=default, limit=100), bytes(1000), 64)
    assert max(seen) == 100
    assert (note.calls, default.data) == (0, bytes(1000))


@pytest.mark.parametrize("data", [b"", b"x"])
async def test_a_matcher_is_called_with_bytes(data: bytes) -> None:
    asked_about: list[bytes] = []

    def first_is_nine(data: bytes) -> bool:
        asked_about.append(data)
        return data[0] == 9

    await send(tcp.route((first_is_nine, Noting()), default=Noting()), data)
    assert set(asked_about) == {data} - {b""}


async def test_an_error_of_a_matcher_ends_the_connection() -> None:
    def broken(data: bytes) -> bool:
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        await asked(tcp.route((broken, Noting())), b"hello")


# who has no route, and who is slow


async def test_without_a_default_the_error_shows_the_first_bytes() -> None:
    with pytest.raises(ProtocolError, match="no route for a connection that begins b'hello'"):
        await asked(tcp.route(tls=Noting()), b"hello")


async def test_a_connection_without_a_byte_is_not_an_error() -> None:
    await asked(tcp.route(tls=Noting()), b"")


async def asked(handler: ConnectionHandler, data: bytes) -> None:
    client, server = testing.memory_pair()
    await client.write(data)
    await client.write_eof()
    try:
        await handler(server)
    finally:
        server.abort()
        client.abort()


@pytest.mark.parametrize("data", [b"", b"\x16", b"GET "])
async def test_after_the_timeout_the_default_gets_slow_clients(data: bytes) -> None:
    heard: list[bytes] = []

    async def greets(stream: Stream) -> None:
        heard.append(b"")
        await stream.write(b"220 mail\r\n")
        while data := await stream.read():
            heard[0] += data

    handler = tcp.route(tls=Noting(), http=Noting(), default=greets, timeout=5)
    async with testing.clock() as clock, testing.connect(handler) as stream:
        if data:
            await stream.write(data)
        await clock.advance(4.9)
        assert heard == []
        await clock.advance(0.2)
        assert await stream.read() == b"220 mail\r\n"
        await stream.write_eof()
        assert await stream.read() == b""
    assert heard == [data]


async def test_without_a_default_slow_clients_are_closed() -> None:
    client, server = testing.memory_pair()
    await client.write(b"\x16")
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        task = group.create_task(refused(tcp.route(tls=Noting(), timeout=5), server))
        await clock.advance(6)
        assert await task == "a connection that begins b'\\x16' within 5 s"
    client.abort()
    server.abort()


async def refused(handler: ConnectionHandler, stream: Stream) -> str:
    with pytest.raises(TimeoutError) as raised:
        await handler(stream)
    return str(raised.value)


@pytest.mark.parametrize("data", [b"", b"GE"])
async def test_a_silent_client_does_not_delay_the_stop(data: bytes) -> None:
    default = Noting()
    client, server = testing.memory_pair()
    async with testing.clock() as clock, Shutdown() as shutdown:
        task = shutdown.spawn(call(tcp.route(http=Noting(), default=default), server))
        if data:
            await client.write(data)
        await clock.advance(60)
        shutdown.stop()
        await clock.advance(0.9)
        assert not task.done()
        await clock.advance(0.2)
        assert task.done()
    assert default.calls == 0
    client.abort()
    server.abort()


async def test_the_timeout_does_not_cover_the_handler() -> None:
    note = Noting()
    async with testing.clock() as clock, testing.connect(tcp.route(tls=note, timeout=5)) as stream:
        await stream.write(HELLO)
        await clock.advance(60)
        await stream.write(b"later")
        await stream.write_eof()
        assert await stream.read() == b""
    assert note.data == HELLO + b"later"


# with what it is for


async def test_an_outer_tls_layer_offers_the_protocols_of_the_routes() -> None:
    async def hello(request: Request) -> Response:
        return Response(body=b"hello")

    web = stack(http.server(), hello)
    secure = tls.server(*pair_files("localhost"))
    handler = stack(secure, tcp.route(socks5=socks5.server(), http=web))
    assert "http/1.1" in handler.certificates.only.policy.alpn  # type: ignore[attr-defined]
    async with testing.client(tcp.route(socks5=socks5.server(), http=web)) as client:
        assert await (await client.get("/")).body.read() == b"hello"


# settings


def test_invalid_routes_are_immediate_errors() -> None:
    with pytest.raises(ConfigError, match=r"tcp\.route\(\) has no routes"):
        tcp.route()
    with pytest.raises(ConfigError, match="got b''"):
        tcp.route((b"", Noting()))
    with pytest.raises(ConfigError, match=r"tcp\.route\(limit=3"):
        tcp.route(tls=Noting(), limit=3)
    with pytest.raises(ConfigError, match="timeout=0"):
        tcp.route(tls=Noting(), timeout=0)
    with pytest.raises(TypeError, match=r"tls\.require_sni\(\) is a layer"):
        tcp.route(tls=tls.require_sni())  # type: ignore[arg-type]


def test_the_description_lists_the_routes() -> None:
    def mine(data: bytes) -> bool:
        return False

    forward = tcp.forward("127.0.0.1:1")
    route = tcp.route((b"SSH-", forward), (mine, forward), tls=forward, default=forward)
    to = "tcp.forward(127.0.0.1:1)"
    assert describe(route) == f"tcp.route(b'SSH-': {to}, mine: {to}, tls: {to}, default: {to})"


def test_bytes_that_begin_a_request_are_recognized() -> None:
    assert is_http1(b"") is None
    assert is_http1(b"GET") is None
    assert is_http1(b"GET htt") is None
    assert is_http1(b"GET http://") is True
    assert is_http1(b"GET http:/a") is False
    assert is_http1(b"CONNECT ") is None
    assert is_http1(b"\x00") is False
    assert begins_with(b"ab")(b"a") is None

"""CONNECT, extended CONNECT and Upgrade at the proxies: rejections, tunnels and forwarded requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llama import LocalAddress, Stream, http, mitm, stack, testing, tls
from llama.http import Request, Response, reverse_proxy, server
from llama.http._h1.extended_connect import accept_key
from llama.http._messages.message import RequestHandler
from tests.http.h2.raw_client import talk_to
from tests.http.serving import client_of
from tests.http.upstreams import OK, Upstream, answering, head_of

SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"
H2C = ("h2c", "H2C", "h2c;q=1", '"h2c"', "h2c/1", "h2c-14", "h2", "HTTP/2.0", "TLS/1.0", "websocket, h2c")
MALFORMED = ("a b", "websocket;x", '"websocket"', "websocket/", "/13", "foo, b@r", "web\xa0socket")
TAKEN = ("websocket", "WebSocket", "foo", "foo/1.0", "foo, bar")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"


def silent(heard: list[bytes]) -> Upstream:
    """An upstream that responds to each head with 200 and records all input."""

    async def origin(stream: Stream) -> None:
        while data := await stream.read():
            heard.append(data)
            await stream.write(OK)

    return Upstream(origin)


def requesting(method: str, target: str, upgrade: str, *more: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: t.example:80"]
    lines += ["Connection: Upgrade", f"Upgrade: {upgrade}"] if upgrade else []
    return "\r\n".join([*lines, *more, "", ""]).encode("latin-1")


@pytest.mark.parametrize("upgrade", ["", *TAKEN, *H2C, *MALFORMED])
@pytest.mark.parametrize("target", ["t.example:80", "127.0.0.1:22"])
async def test_a_reverse_proxy_answers_connect_with_405_whatever_upgrade_says(
    target: str, upgrade: str
) -> None:
    heard: list[bytes] = []
    async with http.client(silent(heard)) as client:
        front = reverse_proxy("http://a.example", client=client)
        async with testing.connect(server()(front)) as stream:
            await stream.write(requesting("CONNECT", target, upgrade) + SMUGGLED.encode())
            got = b""
            while data := await stream.read():
                got += data
            assert got.startswith(b"HTTP/1.1 405 ") and got.count(b"HTTP/1.1") == 1
    assert not heard


@pytest.mark.parametrize(
    ("protocol", "status"),
    [("h2c", 501), ("foo", 501), ("connect-udp", 501), ("h2c-14", 501), ("websockets", 501)],
)
@pytest.mark.parametrize("kind", ["reverse", "forward"])
async def test_an_extended_connect_for_anything_but_websocket_is_501(
    kind: str, protocol: str, status: int
) -> None:
    heard: list[bytes] = []
    async with http.client(silent(heard)) as client:
        front = reverse_proxy("http://a.example", client=client)
        if kind == "forward":
            front = http.proxy(client=client, private=True)
        async with talk_to(stack(server(), front)) as talk:
            head = [
                (":method", "CONNECT"),
                (":protocol", protocol),
                (":scheme", "http"),
                (":authority", "t.example"),
                (":path", "/p"),
            ]
            stream = await talk.ask(head, end=False)
            await talk.send(stream, SMUGGLED.encode())
            lines = await talk.until("end")
            assert lines[0].startswith(f"1 response {status}")
    assert not heard


async def test_an_extended_connect_for_websocket_is_forwarded() -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(head := await head_of(stream))
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
        accept = f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
        await stream.write(SWITCHED.replace(b"foo\r\n\r\n", b"websocket\r\n" + accept.encode()) + b"hi")

    async with http.client(Upstream(origin)) as client:
        front = reverse_proxy("http://a.example", client=client)
        async with talk_to(stack(server(), front)) as talk:
            head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http")]
            await talk.ask([*head, (":authority", "t.example"), (":path", "/p")], end=False)
            lines = await talk.until("end")
            assert lines[0].startswith("1 response 200") and lines[1].startswith("1 data hi")
    assert heard[0].startswith(b"GET /p HTTP/1.1\r\n") and b"\r\nUpgrade: websocket\r\n" in heard[0]


@pytest.mark.parametrize("status", [200, 204])
async def test_an_upstream_that_does_not_switch_protocols_fails_an_extended_connect(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = OK if status == 200 else b"HTTP/1.1 204 No Content\r\n\r\n"
    async with http.client(Upstream(answering(answer))) as client:
        front = reverse_proxy("http://a.example", client=client, max_failures=1)
        async with talk_to(stack(server(), front)) as talk:
            head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http")]
            for _ in range(2):
                await talk.ask([*head, (":authority", "t.example"), (":path", "/p")], end=False)
                assert "response 502" in (await talk.until("end"))[0]
    assert f"answered {status} and did not switch protocols to websocket" in caplog.text
    assert "ejected" not in caplog.text  # a client must not cause an ejection


async def test_an_upstream_that_does_not_switch_protocols_answers_an_upgrade() -> None:
    async with http.client(Upstream(answering(OK))) as client:
        front = reverse_proxy("http://a.example", client=client)
        async with testing.connect(server()(front)) as stream:
            await stream.write(requesting("GET", "/", "websocket"))
            assert (await stream.read()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "BREW"])
@pytest.mark.parametrize(
    ("upgrade", "passes"),
    [*[(each, True) for each in TAKEN], *[(each, False) for each in (*H2C, *MALFORMED)]],
)
@pytest.mark.parametrize("kind", ["reverse", "forward"])
async def test_an_upgrade_that_carries_http_or_is_malformed_is_dropped_whole(
    kind: str, method: str, upgrade: str, passes: bool
) -> None:
    heard: list[bytes] = []
    async with http.client(silent(heard)) as client:
        front = reverse_proxy("http://a.example", client=client)
        if kind == "forward":
            front = http.proxy(client=client, private=True)
        async with testing.connect(server()(front)) as stream:
            await stream.write(requesting(method, "http://t.example/", upgrade))
            assert (await stream.read()).startswith(b"HTTP/1.1 200 ")
    said = b"".join(heard).decode("latin-1")
    assert (f"\r\nUpgrade: {upgrade}\r\n" in said) is passes
    assert ("pgrade" in said) is passes


def front_doors(connect: Upstream, folder: Path) -> dict[str, RequestHandler]:
    ca = tls.CertificateAuthority.open(folder)
    return {
        "forward": http.proxy(connect=connect, private=True),
        "mitm": mitm.proxy(ca, connect=connect, private=True, verify=False),
    }


@pytest.mark.parametrize("upgrade", ["", *TAKEN, *H2C[:4], *MALFORMED[:3]])
@pytest.mark.parametrize("kind", ["forward", "mitm"])
async def test_a_forward_proxy_ignores_upgrade_on_connect(kind: str, upgrade: str, tmp_path: Path) -> None:
    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data)

    front = front_doors(Upstream(echo), tmp_path)[kind]

    def pair() -> tuple[Stream, Stream]:
        ours, theirs = testing.memory_pair()
        theirs.extensions.set(LocalAddress("127.0.0.1", 8080))
        return ours, theirs

    async with testing.connect(server()(front), pair=pair) as stream:
        await stream.write(requesting("CONNECT", "t.example:443", upgrade))
        assert await stream.read() == b"HTTP/1.1 200 OK\r\n\r\n"


BODIES = {
    "length": (("Content-Length: 5",), b"hello", b"hello"),
    "chunked": (("Transfer-Encoding: chunked",), b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("expects", [False, True])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("body", BODIES)
async def test_an_upgrade_with_a_body_switches_after_the_body(body: str, early: bool, expects: bool) -> None:
    fields, sent, passed = BODIES[body]
    got = b""

    async def origin(stream: Stream) -> None:
        nonlocal got
        head = await head_of(stream)
        assert b"\r\nUpgrade: foo\r\n" in head
        if early:
            await stream.write(SWITCHED + b"first")
        elif expects:
            await stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(got) < len(passed):
            got += await stream.read()
        if not early:
            await stream.write(SWITCHED + b"first")
        while data := await stream.read():
            await stream.write(data.upper())

    more = (*fields, *(["Expect: 100-continue"] if expects else []))
    async with http.client(Upstream(origin)) as client:
        front = reverse_proxy("http://a.example", client=client, via=None)
        async with client_of(server()(front)) as browser:
            await browser.say(requesting("POST", "/", "foo", *more))
            if expects:
                await browser.hear(b"HTTP/1.1 100 Continue\r\n\r\n")
            await browser.say(sent[:3])
            await browser.say(sent[3:] + b"then")
            await browser.hear(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\nfirst"
            )
            await browser.hear(b"THEN")
    assert got == passed


async def test_an_upgrade_with_a_body_that_breaks_off_does_not_switch() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(SWITCHED)
        while await stream.read():
            pass

    async with http.client(Upstream(origin)) as client:
        front = reverse_proxy("http://a.example", client=client)
        async with client_of(server()(front)) as browser:
            await browser.say(requesting("POST", "/", "foo", "Content-Length: 5") + b"he")
            await browser.stream.write_eof()
            assert b"101" not in await browser.hear_end()


@pytest.mark.parametrize(
    ("method", "upgrade", "more", "content"),
    [
        ("POST", "websocket", ("Content-Length: 5",), b"hello"),
        ("GET", "foo", ("Content-Length: 5",), b"hello"),
        ("GET", "foo, bar", (), b""),
        ("GET", "foo/1", (), b""),
        ("POST", "websocket", (), b""),
    ],
)
async def test_towards_http_2_a_request_that_is_no_extended_connect_goes_without_its_upgrade(
    method: str, upgrade: str, more: tuple[str, ...], content: bytes
) -> None:
    heard: list[str] = []

    async def app(request: Request) -> Response:
        data = await request.body.read()
        heard.append(f"{request.version} {request.method} {request.upgrade_protocol!r} {data!r}")
        assert "upgrade" not in request.headers
        return Response(200)

    async with http.client(Upstream(stack(server(), app))) as client:
        front = reverse_proxy("h2c://a.example", client=client)
        async with testing.connect(server()(front)) as stream:
            await stream.write(requesting(method, "/", upgrade, *more) + content)
            assert (await stream.read()).startswith(b"HTTP/1.1 200 ")
    assert heard == [f"2 {method} '' {content!r}"]


# Expect


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("version", ["h1", "h2"])
async def test_a_body_that_has_arrived_is_not_held_for_100(version: str, body: str) -> None:
    fields, sent, passed = BODIES[body]
    got = asyncio.Event()
    heard = b""

    async def origin(stream: Stream) -> None:
        nonlocal heard
        await head_of(stream)
        while not heard.endswith(passed[-5:]):
            heard += await stream.read()
        got.set()
        await stream.write(OK)

    async with http.client(Upstream(origin)) as client, asyncio.timeout(0.9):
        front = reverse_proxy("http://a.example", client=client)
        if version == "h1":
            async with client_of(server()(front)) as browser:
                head = requesting("POST", "/", "", "Expect: 100-continue", *fields)
                await browser.say(head + sent[:1])
                await browser.say(sent[1:])
                await got.wait()
                await browser.hear(b"HTTP/1.1 200 ")  # and no 100, which is no longer useful
            return
        async with talk_to(stack(server(), front)) as talk:
            plain = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
            length = [("content-length", "5")] if body == "length" else []
            stream = await talk.ask([*plain, ("expect", "100-continue"), *length], end=False)
            await talk.send(stream, b"hello", end=True)
            await got.wait()
            assert (await talk.until("end"))[0].startswith("1 response 200")


@pytest.mark.parametrize("value", ["100-continue", "100-Continue", "money", ""])
async def test_expect_of_http_1_0_is_ignored(value: str) -> None:
    heard: list[bytes] = []
    async with http.client(silent(heard)) as client, asyncio.timeout(0.9):
        front = reverse_proxy("http://a.example", client=client)
        async with testing.connect(server()(front)) as stream:
            head = f"POST / HTTP/1.0\r\nHost: a\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\n"
            await stream.write(head.encode() + b"hello")
            assert (await stream.read()).startswith(b"HTTP/1.1 200 ")
    said = b"".join(heard)
    assert b"xpect" not in said and said.endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("value", "status"),
    [("100-continue", 200), ("100-Continue", 200), ("money", 417), ("100-continue, x", 417), ("", 417)],
)
async def test_expect_over_http_2_is_checked_as_over_http_1(value: str, status: int, ended: bool) -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=await request.body.read())

    head = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("expect", value)]
    async with talk_to(stack(server(), app)) as talk:
        stream = await talk.ask(head, end=ended)
        if not ended:
            await talk.send(stream, b"x", end=True)
        assert f"1 response {status}" in " ".join(await talk.until("end"))
    fields = "" if ended else "Content-Length: 1\r\n"
    async with testing.connect(server()(app)) as plain:
        await plain.write(f"POST / HTTP/1.1\r\nHost: a\r\nExpect: {value}\r\n{fields}\r\n".encode())
        if not ended:
            await plain.write(b"x")
        got = await plain.read()
        if got.startswith(b"HTTP/1.1 100 "):
            got = got.partition(b"\r\n\r\n")[2] or await plain.read()
        assert got.startswith(b"HTTP/1.1 %d " % status)

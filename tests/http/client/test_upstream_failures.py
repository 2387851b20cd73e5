"""Upstreams that fail: what the client is told, and how often a request is sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest

from llama import Stream, TLSError, serve, stack, testing, tls
from llama._core.errors import LlamaError, OverloadedError, TruncatedError, UnreachableError
from llama.http import Request, RequestHandler, Response, client, retry, reverse_proxy, server
from llama.http._client.client import Client
from tests.http.serving import client_of, get
from tests.http.smuggling.cases import RESET, heard_of, statuses, take_request
from tests.http.upstreams import OK, Upstream, head_of, tcp_pair
from tests.tls.sessions import ca_file, pair_files

A, B, C = "http://a.example", "http://b.example", "http://c.example"


# killed within a response


class Kill(NamedTuple):
    head: bytes
    sent: bytes
    version: str


KILLS = [
    Kill(b"Content-Length: 100", b"hello", "1.1"),
    Kill(b"Content-Length: 100", b"hello", "1.0"),
    Kill(b"Transfer-Encoding: chunked", b"5\r\nhello\r\n", "1.1"),
    Kill(b"Transfer-Encoding: chunked", b"5\r\nhello\r\n", "1.0"),
    Kill(b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n", "1.1"),
    Kill(b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX: 1\r\n", "1.0"),
    Kill(b"X: until it closes", b"hello", "1.1"),
    Kill(b"X: until it closes", b"hello", "1.0"),
]


@pytest.mark.parametrize(
    "kill", KILLS, ids=lambda kill: f"{kill.head.decode()[:14]}-{len(kill.sent)}-{kill.version}"
)
async def test_an_upstream_that_is_killed_is_a_visible_truncation(kill: Kill) -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 200 OK\r\n" + kill.head + b"\r\n\r\n" + kill.sent)
        await heard_some.wait()
        stream.abort()

    heard_some = asyncio.Event()
    async with client_of(server()(reverse_proxy(A, client=client(Upstream(origin, tcp_pair))))) as browser:
        await browser.say(get(version=kill.version))
        got = b""
        while b"hello" not in got:
            got += await browser.stream.read()
        heard_some.set()
        got += await heard_of(browser)
    assert got.endswith(RESET) and b"0\r\n\r\n" not in got


async def test_a_body_until_the_end_is_cut_where_tls_tells_no_end() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        stream.abort()

    handler = stack(tls.server(*pair_files("localhost")), origin)
    async with serve(handler, listen="127.0.0.1:0") as upstream:
        asking = client(tls=tls.connect(ca=ca_file()))
        proxy = reverse_proxy(f"https://localhost:{upstream.port}", client=asking)
        async with asking, client_of(server()(proxy)) as browser:
            await browser.say(get())
            heard = await heard_of(browser)
    assert heard.endswith(RESET) or statuses(heard) == [502]


# before a response


def ends(said: bytes) -> Callable[[Stream], object]:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(said)
        await stream.aclose()

    return origin


@pytest.mark.parametrize("said", [b"", b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_an_upstream_that_says_nothing_whole_is_502(said: bytes) -> None:
    asking = client(Upstream(ends(said), tcp_pair))  # type: ignore[arg-type]  # it is a handler
    async with asking, client_of(server()(reverse_proxy(A, client=asking))) as browser:
        await browser.say(get("/", "Connection: close"))
        assert statuses(await heard_of(browser))[-1] == 502


SLOW: dict[str, tuple[dict[str, float], bytes, list[int]]] = {
    "to connect": ({"connect_timeout": 5}, b"", [504]),
    "to answer": ({"response_header_timeout": 5}, b"", [504]),
    "within a head": ({"response_header_timeout": 5}, b"HTTP/1.1 200 OK\r\nX", [504]),
    "within a body": ({"body_timeout": 5}, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", [200]),
}


@pytest.mark.parametrize("name", SLOW)
async def test_an_upstream_that_is_slow_is_504(name: str) -> None:
    times, said, expected = SLOW[name]
    over = asyncio.Event()

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(said)
        await over.wait()

    async def connect(target: object) -> Stream:
        if "connect_timeout" in times:
            await over.wait()
        return await upstream(target)  # type: ignore[arg-type]

    upstream = Upstream(origin)
    asking = client(connect, **times)  # type: ignore[arg-type]
    handler = server()(reverse_proxy(A, client=asking))
    async with testing.clock(autojump=True), asking, testing.connect(handler) as browser:
        await browser.write(get("/", "Connection: close"))
        heard = b""
        try:
            while data := await browser.read():
                heard += data
        except OSError:
            heard += RESET
        over.set()
    assert statuses(heard) == expected
    assert heard.endswith(RESET) is (expected == [200])


# how often a request is sent


class Recorder:
    """Upstreams that fail in one way, the last one but for `able`, and what they got."""

    def __init__(self, failure: str, able: str = "c.example") -> None:
        self.failure = failure
        self.able = able
        self.heard: list[str] = []
        """Who got at least the head of the request, in order."""
        self.bodies: list[bytes] = []
        """The bodies that came as a whole."""
        self.connected: list[str] = []

    async def __call__(self, target: object, /) -> Stream:
        host = str(target).partition(":")[0]
        self.connected.append(host)
        if host != self.able and self.failure == "refused":
            raise ConnectionRefusedError(111, "Connection refused")
        return await Upstream(lambda stream: self.serve(stream, host))(target)  # type: ignore[arg-type]

    async def serve(self, stream: Stream, host: str) -> None:
        raw = await stream.read()
        self.heard.append(host)
        if host != self.able:
            if self.failure == "half a head":
                await stream.write(b"HTTP/1.1 200 OK\r\n")
            elif self.failure == "early hints":
                await stream.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            elif self.failure == "503":
                await stream.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            elif self.failure == "half a body":
                await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx")
            return
        while (found := take_request(raw)) is None:
            raw += await stream.read()
        self.bodies.append(found[0].body)
        await stream.write(OK)


def pieces() -> AsyncIterator[bytes]:
    async def iterate() -> AsyncIterator[bytes]:
        yield b"bo"
        yield b"dy"

    return iterate()


KINDS: dict[str, Callable[[], Request]] = {
    "GET": lambda: Request("GET", "/", {"Host": "a"}),
    "HEAD": lambda: Request("HEAD", "/", {"Host": "a"}),
    "PUT": lambda: Request("PUT", "/", {"Host": "a"}, b"body"),
    "DELETE": lambda: Request("DELETE", "/", {"Host": "a"}, b"body"),
    "PUT stream": lambda: Request("PUT", "/", {"Host": "a"}, pieces()),
    "GET stream": lambda: Request("GET", "/", {"Host": "a"}, pieces()),
    "POST": lambda: Request("POST", "/", {"Host": "a"}, b"body"),
    "POST empty": lambda: Request("POST", "/", {"Host": "a"}),
    "PATCH": lambda: Request("PATCH", "/", {"Host": "a"}, b"body"),
    "POST stream": lambda: Request("POST", "/", {"Host": "a"}, pieces()),
    "an unknown method": lambda: Request("FROB", "/", {"Host": "a"}),
    "an upgrade": lambda: upgrading(),
}
SAFE = ("GET", "HEAD", "PUT", "DELETE")


def upgrading() -> Request:
    request = Request("GET", "/", {"Host": "a", "Upgrade": "chat"})
    request.upgrade_protocol = "chat"
    return request


async def ask(proxy: RequestHandler, request: Request) -> int:
    """The status, 0 for a body that broke off, or the error's."""
    try:
        response = await proxy(request)
        await response.body.read()
        return response.status
    except TruncatedError as error:
        return error.status if "body" not in str(error) else 0
    except LlamaError as error:
        return error.status


def proxied(recorder: Recorder, **options: int) -> tuple[Client, RequestHandler]:
    asking = client(recorder)
    return asking, reverse_proxy([A, B, C], client=asking, retry_budget=None, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_not_sent_is_sent_to_another(kind: str) -> None:
    recorder = Recorder("refused")
    asking, proxy = proxied(recorder, retries=2)
    async with asking:
        request = KINDS[kind]()
        assert await ask(proxy, request) == 200
    assert recorder.connected == ["a.example", "b.example", "c.example"]
    assert recorder.heard == ["c.example"]
    assert recorder.bodies == [
        b"body" if "body" in kind or kind in ("PUT", "DELETE", "POST", "PATCH") or "stream" in kind else b""
    ]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_may_have_been_acted_on_is_sent_again_only_if_that_does_no_harm(kind: str) -> None:
    recorder = Recorder("closed")
    asking, proxy = proxied(recorder, retries=2)
    async with asking:
        status = await ask(proxy, KINDS[kind]())
    if kind in SAFE:
        assert recorder.heard == ["a.example", "b.example", "c.example"] and status == 200
        assert recorder.bodies == [b"body" if kind in ("PUT", "DELETE") else b""]
    else:
        assert recorder.heard == ["a.example"] and status == 502
        assert recorder.bodies == []


@pytest.mark.parametrize("failure", ["half a head", "early hints", "503", "half a body"])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_answered_in_part_is_not_sent_again(kind: str, failure: str) -> None:
    recorder = Recorder(failure)
    asking, proxy = proxied(recorder, retries=2)
    async with asking:
        expected = {"503": 503, "half a body": 200 if kind == "HEAD" else 0}.get(failure, 502)
        assert await ask(proxy, KINDS[kind]()) == expected
    assert recorder.heard == ["a.example"] and recorder.bodies == []


@pytest.mark.parametrize("failure", ["closed", "503"])
@pytest.mark.parametrize("kind", KINDS)
async def test_nor_does_the_retry_layer_send_twice_what_may_not_be(kind: str, failure: str) -> None:
    recorder = Recorder(failure, able="nobody")
    asking, proxy = proxied(recorder, retries=0)
    async with asking:
        layer = retry(3, statuses=[503], backoff=0, max_delay=0, budget=None)
        assert await ask(layer(proxy), KINDS[kind]()) == (503 if failure == "503" else 502)
    assert len(recorder.heard) == (3 if kind in SAFE else 1)


@pytest.mark.parametrize("retries", [0, 1, 2, 5])
async def test_no_more_upstreams_are_asked_than_there_may_be(retries: int) -> None:
    recorder = Recorder("closed", able="nobody")
    asking, proxy = proxied(recorder, retries=retries)
    async with asking:
        assert await ask(proxy, KINDS["GET"]()) == 502
    assert len(recorder.heard) == min(retries + 1, 3)


# through the server: there a body is a stream


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_body_that_came_in_is_not_sent_twice(method: str) -> None:
    recorder = Recorder("closed")
    asking, proxy = proxied(recorder, retries=2)
    async with asking, client_of(server()(proxy)) as browser:
        await browser.say(get("/", "Content-Length: 4", "Connection: close", method=method) + b"body")
        assert statuses(await heard_of(browser)) == [502]
    assert recorder.heard == ["a.example"]


async def test_a_body_that_came_in_is_whole_for_the_one_that_can_be_reached() -> None:
    recorder = Recorder("refused")
    asking, proxy = proxied(recorder, retries=2)
    async with asking, client_of(server()(proxy)) as browser:
        await browser.say(get("/", "Content-Length: 4", "Connection: close", method="POST") + b"body")
        assert statuses(await heard_of(browser)) == [200]
    assert recorder.bodies == [b"body"]


# bodies that were read in part, and errors that are theirs


@pytest.mark.parametrize(
    "error", [UnreachableError("no"), TLSError("no")], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("way", ["chunk", "iteration", "read"])
async def test_a_body_that_was_read_in_part_is_sent_whole(error: LlamaError, way: str) -> None:
    bodies: list[bytes] = []

    async def asking(request: Request) -> Response:
        if way == "chunk":
            bodies.append(await request.body.read_chunk())
        elif way == "iteration":
            async for chunk in request.body:
                bodies.append(chunk)
                break
        else:
            bodies.append(await request.body.read())
        request.headers.add("X-Seen", "1")
        assert request.headers.get_all("x-seen") == ["1"], "what was changed of the first is not sent again"
        if len(bodies) == 1:
            raise error
        return Response()

    for layer in (reverse_proxy([A, B], client=asking), retry(2, backoff=0, max_delay=0)(asking)):
        bodies.clear()
        assert (await layer(Request("PUT", "/", {"Host": "a"}, b"body"))).status == 200
        assert bodies == [b"body", b"body"]


@pytest.mark.parametrize(
    "error", [UnreachableError("no"), OverloadedError("no", retry_after=3)], ids=lambda e: type(e).__name__
)
async def test_an_error_of_the_body_is_not_taken_for_one_before_anything_was_sent(error: LlamaError) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"bo"
        raise error

    recorder = Recorder("", able="a.example")
    asking, proxy = proxied(recorder, retries=2)
    async with asking:
        with pytest.raises(TruncatedError, match="body of the request failed: no") as raised:
            await proxy(Request("POST", "/", {"Host": "a"}, body()))
    assert (raised.value.status, raised.value.retry_after) == (error.status, error.retry_after)
    assert recorder.connected == ["a.example"] and recorder.bodies == []


# kept connections that have died


class Dying:
    """The first connection answers once, and dies at the next request; so do as many more as `times` says."""

    def __init__(self, times: int, said: bytes = b"") -> None:
        self.times = times
        self.said = said
        self.heard = 0
        self.opened = 0

    async def __call__(self, stream: Stream) -> None:
        self.opened += 1
        dies, first = self.opened <= self.times, self.opened == 1
        while True:
            try:
                await head_of(stream)
            except EOFError:
                return
            self.heard += 1
            if dies and not first:
                await stream.write(self.said)
                return
            first = False
            await stream.write(OK)


@pytest.mark.parametrize(
    ("kind", "times", "said", "heard", "status"),
    [
        ("GET", 1, b"", 3, 200),
        ("GET", 2, b"", 3, 502),
        ("PUT", 1, b"", 3, 200),
        ("POST", 1, b"", 2, 502),
        ("POST empty", 1, b"", 2, 502),
        ("PUT stream", 1, b"", 2, 502),
        ("an upgrade", 1, b"", 3, 200),
        ("an upgrade", 2, b"", 3, 502),
        ("GET", 1, b"H", 2, 502),
    ],
)
async def test_a_kept_connection_that_has_died_is_replaced_once(
    kind: str, times: int, said: bytes, heard: int, status: int
) -> None:
    origin = Dying(times, said)
    async with client(Upstream(origin)) as asking:
        proxy = reverse_proxy(A, client=asking, retries=3)
        assert await ask(proxy, KINDS["GET"]()) == 200
        assert await ask(proxy, KINDS[kind]()) == status
    assert origin.heard == heard

"""The HTTP client: what goes up and what comes down."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from llama import Stream, testing
from llama._core.errors import ConfigError, ProtocolError, TruncatedError
from llama.http import Origin, Request, Response, client
from tests.http.upstreams import OK, Upstream, answering, fetch, get, head_of, tcp_pair

Pair = Callable[[], tuple[Stream, Stream]]
both = pytest.mark.parametrize("pair", [testing.memory_pair, tcp_pair], ids=["memory", "tcp"])


def reply(body: bytes, *lines: bytes) -> bytes:
    return b"".join(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body),
            *(line + b"\r\n" for line in lines),
            b"\r\n",
            body,
        ]
    )


# what goes up


@both
async def test_a_request_is_sent_unchanged(pair: Pair) -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        await stream.write(OK)

    async with client(Upstream(origin, pair)) as fetcher:
        request = Request("GET", "http://a.example/x?y", [("X-A", "1"), ("x-a", "2")])
        assert await fetch(fetcher, request) == b"ok"
    assert heard == [b"GET /x?y HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nx-a: 2\r\n\r\n"]


@pytest.mark.parametrize(
    ("method", "url", "line"),
    [
        ("GET", "http://a.example", b"GET / HTTP/1.1"),
        ("GET", "http://a.example?q", b"GET /?q HTTP/1.1"),
        ("OPTIONS", "http://a.example", b"OPTIONS * HTTP/1.1"),
        ("OPTIONS", "http://a.example/", b"OPTIONS / HTTP/1.1"),
    ],
)
async def test_request_targets_of_all_forms_are_sent(method: str, url: str, line: bytes) -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        await stream.write(OK)

    async with client(Upstream(origin)) as fetcher:
        await fetch(fetcher, Request(method, url))
    assert heard[0].startswith(line + b"\r\n")


async def test_an_origin_in_the_extensions_overrides_the_host() -> None:
    upstream = Upstream(answering(OK))
    async with client(upstream) as fetcher:
        request = get("http://public.example/")
        request.extensions.set(Origin.parse("http://10.0.0.1:8000"))
        await fetch(fetcher, request)
    assert [str(each) for each in upstream.targets] == ["10.0.0.1:8000"]


@pytest.mark.parametrize(
    "url", ["ftp://a/", "http://a:0/", "http://a:99999/", "http://[unix:/run/x]/", "http://:80/"]
)
async def test_a_request_without_a_valid_origin_is_rejected(url: str) -> None:
    async with client(Upstream(answering(OK))) as fetcher:
        with pytest.raises(ProtocolError):
            await fetcher(get(url))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://a", "http://a:80"),
        ("https://a", "https://a:443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("unix:/run/app.sock", "http://unix:/run/app.sock"),
        ("http+unix:/run/app.sock", "http://unix:/run/app.sock"),
        ("http+unix://%2Frun%2Fapp.sock", "http://unix:/run/app.sock"),
        ("https+unix:/run/app.sock", "https://unix:/run/app.sock"),
    ],
)
def test_origins_are_written_as_urls(url: str, text: str) -> None:
    assert repr(Origin.parse(url)) == text


@pytest.mark.parametrize(
    "url", ["", "a", "http://", "http:///x", "http://u@a", "ftp://a", "http://a/path", "unix:"]
)
def test_an_invalid_origin_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError):
        Origin.parse(url)


@both
async def test_a_body_in_memory_is_sent_with_its_length(pair: Pair) -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        heard.append(await stream.read())
        await stream.write(OK)

    async with client(Upstream(origin, pair)) as fetcher:
        await fetch(fetcher, Request("POST", "http://a/", body=b"data"))
    assert heard == [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", b"data"]


@both
async def test_a_streamed_body_is_sent_while_the_response_arrives(pair: Pair) -> None:
    async def origin(stream: Stream) -> None:
        for _ in range(2):
            head = await head_of(stream)
            assert b"\r\nTransfer-Encoding: chunked\r\n" in head
            await stream.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            data = b""
            while not data.endswith(b"0\r\n\r\n"):
                data = await stream.read()
                await stream.write(data)

    turns: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while part := await turns.get():
            yield part

    upstream = Upstream(origin, pair)
    async with client(upstream) as fetcher:
        for _ in range(2):
            response = await fetcher(Request("POST", "http://a/", body=body()))
            for part in (b"one", b"two", b"three"):
                turns.put_nowait(part)
                assert await response.body.read_chunk() == part
            turns.put_nowait(b"")
            assert await response.body.read_chunk() == b""
    assert upstream.opened == 1


@both
async def test_a_large_body_is_sent_while_an_early_response_is_returned(pair: Pair) -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

    upstream = Upstream(origin, pair)
    async with client(upstream) as fetcher:
        response = await fetcher(Request("POST", "http://a/", body=bytes(10_000_000)))
        assert response.status == 413
        assert await response.body.read() == b"big"
        assert await fetcher(get()) is not None
    assert upstream.opened == 2  # the first was left with half a request


async def test_the_rest_of_a_body_is_not_read_after_the_response() -> None:
    read: list[bytes] = []
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await never.wait()
        finally:
            read.append(b"stopped")

    async with client(Upstream(answering(OK))) as fetcher:
        assert await fetch(fetcher, Request("POST", "http://a/", body=body())) == b"ok"
        assert read == [b"stopped"]


@both
async def test_a_failing_body_aborts_the_request(pair: Pair) -> None:
    ended: list[str] = []

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        try:
            while await stream.read():
                pass
        except OSError:
            ended.append("broken")

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        raise TruncatedError("the client is gone", status=400)

    upstream = Upstream(origin, pair)
    async with client(upstream) as fetcher:
        with pytest.raises(TruncatedError, match="the client is gone"):
            await fetcher(Request("POST", "http://a/", body=body()))
    await asyncio.sleep(0)
    assert ended == ["broken"]


@pytest.mark.parametrize("size", [1, 9])
async def test_a_body_that_does_not_match_its_length_aborts_the_request(size: int) -> None:
    async with client(Upstream(answering(OK))) as fetcher:
        request = Request("POST", "http://a/", {"Content-Length": "5"}, body=[b"x"] * size)
        with pytest.raises(ProtocolError, match="Content-Length of 5"):
            await fetcher(request)


async def test_trailers_are_sent_and_received() -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        while b"\r\n\r\n" not in b"".join(heard):
            heard.append(await stream.read())
        await stream.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 2\r\n\r\n"
        )

    upstream = Upstream(origin)
    async with client(upstream) as fetcher:
        request = Request("POST", "http://a/", body=[b"a"])
        request.trailers = Response(headers={"X-Sum": "1"}).headers
        response = await fetcher(request)
        assert await response.body.read() == b"x"
        assert response.trailers is not None and list(response.trailers) == [("X-Sum", "2")]
    assert b"".join(heard) == b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"


# 100 (Continue) and its like


async def test_informational_responses_are_forwarded() -> None:
    told: list[tuple[int, str]] = []
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"

    async def app(request: Request) -> Response:
        request._send_informational = inform
        return await fetcher(request)

    async def inform(status: int, headers: object) -> None:
        told.append((status, str(headers)))

    async with client(Upstream(answering(hint + OK))) as fetcher:
        response = await app(get())
        assert await response.body.read() == b"ok"
    assert told == [(103, "Headers([('Link', '</a.css>')])")]


async def test_endless_informational_responses_are_an_error() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        while True:
            await stream.write(b"HTTP/1.1 102 Processing\r\n\r\n")

    async with client(Upstream(origin)) as fetcher:
        with pytest.raises(ProtocolError, match="informational"):
            await fetcher(get())


@both
async def test_a_body_with_expect_waits_for_100_continue(pair: Pair) -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        await stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        heard.append(await stream.read())
        await stream.write(OK)

    async with client(Upstream(origin, pair)) as fetcher:
        await fetch(fetcher, Request("PUT", "http://a/", {"Expect": "100-continue"}, body=b"data"))
    assert b"\r\nExpect: 100-continue\r\n" in heard[0]
    assert heard[1] == b"data"


async def test_a_rejected_body_is_not_sent() -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        heard.append(await stream.read())

    async with client(Upstream(origin)) as fetcher:
        response = await fetcher(Request("PUT", "http://a/", {"Expect": "100-continue"}, body=b"data"))
        assert response.status == 417
    assert b"".join(heard) == b""


async def test_a_body_is_sent_after_a_wait_without_100_continue() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + await stream.read())

    async with testing.clock(autojump=True), client(Upstream(origin)) as fetcher:
        assert (
            await fetch(fetcher, Request("PUT", "http://a/", {"Expect": "100-continue"}, body=b"data"))
            == b"data"
        )


# what comes down

BODIES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"hello",
        True,
    ),
    "until-close": (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello", False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    "close": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
}


@pytest.mark.parametrize("split", [False, True], ids=["whole", "by-bytes"])
@pytest.mark.parametrize("name", BODIES)
async def test_bodies_of_every_framing(name: str, split: bool) -> None:
    answer, body, kept = BODIES[name]

    async def origin(stream: Stream) -> None:
        while True:
            try:
                await head_of(stream)
            except EOFError:
                return
            for piece in [answer[i : i + 1] for i in range(len(answer))] if split else [answer]:
                await stream.write(piece)
            if not kept:
                return

    upstream = Upstream(origin, lambda: testing.lockstep_pair() if split else testing.memory_pair())
    async with client(upstream) as fetcher:
        for _ in range(2):
            response = await fetcher(get())
            assert await response.body.read() == body
    assert upstream.opened == (1 if kept else 2)


async def test_head_has_a_length_and_no_body() -> None:
    upstream = Upstream(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"))
    async with client(upstream) as fetcher:
        for _ in range(2):
            response = await fetcher(Request("HEAD", "http://a/"))
            assert response.headers["content-length"] == "500"
            assert await response.body.read() == b""
    assert upstream.opened == 1


CUT = {
    "head": b"HTTP/1.1 200 OK\r\nContent-",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello",
    "last-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
}


@pytest.mark.parametrize("broken", [False, True], ids=["ended", "broken"])
@both
@pytest.mark.parametrize("cut", CUT)
async def test_a_response_that_ends_early_raises_truncated(cut: str, pair: Pair, broken: bool) -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(CUT[cut])
        go.set()
        await heard.wait()
        if broken:
            stream.abort()

    go, heard = asyncio.Event(), asyncio.Event()
    upstream = Upstream(origin, pair)
    async with client(upstream) as fetcher:
        with pytest.raises(TruncatedError):
            if cut == "head":
                heard.set()
            response = await fetcher(get())
            heard.set()
            await response.body.read()
    assert upstream.opened == 1


MALFORMED = {
    "both-framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "no-http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "unasked-switch": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "chunk-size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
    "unknown-coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_response_is_a_502(name: str) -> None:
    upstream = Upstream(answering(MALFORMED[name]))
    async with client(upstream) as fetcher:
        with pytest.raises(ProtocolError) as raised:
            await (await fetcher(get())).body.read()
        assert raised.value.status == 502


async def test_a_malformed_later_chunk_size_is_a_502() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await stream.write(b"zz\r\n")

    async with client(Upstream(origin, testing.lockstep_pair)) as fetcher:
        response = await fetcher(get())
        assert await response.body.read_chunk() == b"ok"
        with pytest.raises(ProtocolError) as raised:
            await response.body.read_chunk()
        assert raised.value.status == 502


async def test_bytes_after_a_response_are_not_read_as_the_next_one() -> None:
    upstream = Upstream(answering(OK + reply(b"smuggled")))
    async with client(upstream) as fetcher:
        assert await fetch(fetcher) == b"ok"
        assert await fetch(fetcher) == b"ok"
    assert upstream.opened == 2


@both
async def test_bytes_on_an_idle_connection_are_not_read_as_a_response(pair: Pair) -> None:
    upstream = Upstream(answering(OK), pair)
    async with client(upstream) as fetcher:
        assert await fetch(fetcher) == b"ok"
        await upstream.streams[0].write(reply(b"smuggled"))
        await asyncio.sleep(0.01)  # the kernel's time, for there is nothing to wait for
        assert await fetch(fetcher) == b"ok"
    assert upstream.opened == 2


async def test_a_slow_reader_slows_the_upstream() -> None:
    sent = 0

    async def origin(stream: Stream) -> None:
        nonlocal sent
        await head_of(stream)
        await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        for _ in range(1000):
            await stream.write(bytes(10_000))
            sent += 10_000

    async with testing.clock() as clock, client(Upstream(origin)) as fetcher:
        response = await fetcher(get())
        await response.body.read_chunk()
        await clock.settle()
        assert sent <= 200_000
        total = sum([len(part) async for part in response.body])
        assert total > 9_000_000


@pytest.mark.parametrize("url", ["http://u@a.example/", "http://u:pa@@ss/", "http://u:secret@a.example/"])
async def test_a_url_with_a_user_is_rejected_without_showing_it(url: str) -> None:
    async with client(Upstream(answering(OK))) as fetcher:
        with pytest.raises(ProtocolError, match="has a user") as raised:
            await fetcher(Request("GET", url))
    assert "secret" not in str(raised.value)

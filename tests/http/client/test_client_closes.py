"""The HTTP client: what happens to its connections."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable

import pytest

from llama import Stream, serve, stack, testing, tls
from llama._core.errors import TruncatedError, UnreachableError
from llama.http import Request, Response, client, server
from tests.http.upstreams import OK, Upstream, answering, fetch, get, head_of, tcp_pair
from tests.tls.sessions import ca_file, pair_files

Pair = Callable[[], tuple[Stream, Stream]]
both = pytest.mark.parametrize("pair", [testing.memory_pair, tcp_pair], ids=["memory", "tcp"])


# kept connections


@both
async def test_a_connection_closed_while_idle_is_replaced(pair: Pair) -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(OK)

    upstream = Upstream(origin, pair)
    async with client(upstream) as fetcher:
        for _ in range(3):
            assert await fetch(fetcher, Request("POST", "http://a/", body=b"x")) == b"ok"
            await asyncio.sleep(0.01)  # the kernel's time
    assert upstream.opened == 3


def closing_later(times: int, answered: int = 1) -> Callable[[Stream], object]:
    """The first `times` connections answer `answered` requests and close when they hear the next."""
    seen: list[Stream] = []

    async def origin(stream: Stream) -> None:
        seen.append(stream)
        closes = len(seen) <= times
        count = 0
        while True:
            try:
                await head_of(stream)
            except EOFError:
                return
            if closes and count == answered:
                return
            count += 1
            await stream.write(OK)

    return origin


@both
async def test_a_request_on_a_stale_connection_is_retried_once_on_a_new_one(pair: Pair) -> None:
    upstream = Upstream(closing_later(1), pair)  # type: ignore[arg-type]  # it is a handler
    async with client(upstream) as fetcher:
        assert await fetch(fetcher) == b"ok"
        assert await fetch(fetcher) == b"ok"
    assert upstream.opened == 2


async def test_a_request_on_a_new_connection_is_not_retried() -> None:
    upstream = Upstream(closing_later(9, answered=0))  # type: ignore[arg-type]
    async with client(upstream) as fetcher:
        with pytest.raises(TruncatedError):
            await fetcher(get())
    assert upstream.opened == 1


@pytest.mark.parametrize(
    "request_", [Request("POST", "http://a/", body=b"x"), Request("PUT", "http://a/", body=[b"x"])]
)
async def test_a_request_that_is_not_replayable_is_not_retried(request_: Request) -> None:
    upstream = Upstream(closing_later(1))  # type: ignore[arg-type]
    async with client(upstream) as fetcher:
        assert await fetch(fetcher, get("http://a/")) == b"ok"
        with pytest.raises(TruncatedError):
            await fetcher(request_)
    assert upstream.opened == 1


async def test_a_request_is_not_retried_after_its_response_has_begun() -> None:
    upstream = Upstream(answering(OK, b"HTTP/1.1 2"))

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(OK)
        await head_of(stream)
        await stream.write(b"HTTP/1.1 2")

    upstream = Upstream(origin)
    async with client(upstream) as fetcher:
        assert await fetch(fetcher) == b"ok"
        with pytest.raises(TruncatedError):
            await fetcher(get())
    assert upstream.opened == 1


# responses that are not read to the end


async def slow(stream: Stream) -> None:
    await head_of(stream)
    await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await stream.read()


@both
async def test_closing_a_response_frees_its_connection(pair: Pair) -> None:
    async with client(Upstream(slow, pair), max_connections=1) as fetcher:
        for _ in range(3):
            response = await fetcher(get())
            await response.aclose()
            with pytest.raises(OSError):
                await response.body.read()


async def test_dropping_a_response_frees_its_connection() -> None:
    async with client(Upstream(slow), max_connections=1) as fetcher:
        for _ in range(3):
            await fetcher(get())
            gc.collect()


async def test_a_cancelled_request_frees_its_connection() -> None:
    begun = asyncio.Event()

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        begun.set()
        await stream.read()

    async with client(Upstream(origin), max_connections=1) as fetcher:
        for _ in range(3):
            begun.clear()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(fetcher(get()))
                await begun.wait()
                task.cancel()


async def test_the_request_body_is_not_read_after_the_response_was_closed() -> None:
    reading = 0

    class Source:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            nonlocal reading
            reading += 1
            try:
                await asyncio.Event().wait()
            finally:
                reading -= 1
            return b""

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        await stream.read()

    async with client(Upstream(origin)) as fetcher:
        response = await fetcher(Request("POST", "http://a/", body=Source()))
        assert reading == 1
        await response.aclose()
        assert reading == 0


# upgrades

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"


def chat() -> Request:
    request = Request("GET", "http://a/", {"Upgrade": "chat"})
    request.upgrade_protocol = "chat"
    return request


@both
async def test_response_upgrade_is_a_connection_handler(pair: Pair) -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        await stream.write(UPGRADE + b"hi ")
        await stream.write(await stream.read())

    async with client(Upstream(origin, pair), max_connections=1) as fetcher:
        for _ in range(2):
            response = await fetcher(chat())
            assert response.status == 101 and response.upgrade is not None
            async with testing.connect(response.upgrade) as stream:
                assert await stream.read() == b"hi "
                await stream.write(b"there")
                assert await stream.read() == b"there"
                assert await stream.read() == b""
    assert heard[0] == b"GET / HTTP/1.1\r\nUpgrade: chat\r\nHost: a\r\nConnection: Upgrade\r\n\r\n" or (
        b"Connection: Upgrade\r\n" in heard[0] and b"Upgrade: chat\r\n" in heard[0]
    )


async def test_an_upgrade_that_is_not_run_frees_its_connection() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(UPGRADE)
        await stream.read()

    async with client(Upstream(origin), max_connections=1) as fetcher:
        for _ in range(2):
            response = await fetcher(chat())
            await response.aclose()
        for _ in range(2):
            await fetcher(chat())
            gc.collect()


async def test_an_upgrade_waits_for_the_end_of_the_requests_body() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(UPGRADE)
        switched.set()
        while await stream.read():
            pass

    switched = asyncio.Event()
    is_sent = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal is_sent
        yield b"a"
        await switched.wait()
        yield b"b"
        is_sent = True

    async with client(Upstream(origin), max_connections=1) as fetcher:
        request = chat()
        request.body = body()
        response = await fetcher(request)
        assert response.upgrade is not None and is_sent
        await response.aclose()


async def test_a_server_may_decline_an_upgrade() -> None:
    async with client(Upstream(answering(OK))) as fetcher:
        assert await fetch(fetcher, chat()) == b"ok"


# timeouts


async def silent(stream: Stream) -> None:
    await head_of(stream)
    await stream.read()


async def test_a_missing_response_head_is_a_timeout() -> None:
    async with testing.clock(autojump=True), client(Upstream(silent), response_header_timeout=5) as fetcher:
        with pytest.raises(TimeoutError, match="5 s"):
            await fetcher(get())


async def test_a_missing_response_body_is_a_timeout() -> None:
    async with testing.clock(autojump=True), client(Upstream(slow), body_timeout=5) as fetcher:
        response = await fetcher(get())
        assert await response.body.read_chunk() == b"hello"
        with pytest.raises(TimeoutError, match="5 s"):
            await response.body.read_chunk()


async def test_an_upstream_that_reads_nothing_is_a_timeout() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await over.wait()

    over = asyncio.Event()
    async with testing.clock(autojump=True), client(Upstream(origin), response_header_timeout=5) as fetcher:
        with pytest.raises(TimeoutError):
            await fetcher(Request("POST", "http://a/", body=bytes(10_000_000)))
        over.set()


async def test_a_slow_request_body_does_not_count_as_head_timeout() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(20)
        yield b"b"

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += await stream.read()
        await stream.write(OK)

    async with testing.clock(autojump=True), client(Upstream(origin), response_header_timeout=5) as fetcher:
        assert await fetch(fetcher, Request("POST", "http://a/", body=body())) == b"ok"


async def test_a_connect_timeout_is_unreachable() -> None:
    async def connect(target: object) -> Stream:
        await asyncio.sleep(100)
        raise AssertionError

    async with testing.clock(autojump=True), client(connect, connect_timeout=5) as fetcher:
        with pytest.raises(UnreachableError) as raised:
            await fetcher(get())
        assert raised.value.status == 504


# connections by TLS


async def test_https_uses_tls_with_alpn() -> None:
    async def app(request: Request) -> Response:
        info = request.extensions[tls.TLSInfo]
        return Response(body=f"{request.scheme} {info.alpn}".encode())

    cert, key = pair_files("localhost")
    handler = stack(tls.server(cert, key), server(), app)
    async with (
        serve(handler, listen="127.0.0.1:0") as listening,
        client(tls=tls.connect(ca=ca_file())) as fetcher,
    ):
        url = f"https://localhost:{listening.port}/"
        for _ in range(2):
            assert await fetch(fetcher, get(url)) == b"https h2"


async def test_an_untrusted_certificate_is_rejected() -> None:
    cert, key = pair_files("localhost")

    async def app(request: Request) -> Response:
        return Response()

    handler = stack(tls.server(cert, key), server(), app)
    async with serve(handler, listen="127.0.0.1:0") as listening, client() as fetcher:
        with pytest.raises(OSError, match="certificate"):
            await fetcher(get(f"https://localhost:{listening.port}/"))

"""Informational responses to a client that reads nothing for a while: they arrive whole, or the connection ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from llama import Stream, http, testing
from llama._core.shutdown import detached_task
from llama.http import Headers, Request, Response, reverse_proxy, server
from llama.http._messages.message import RequestHandler
from tests.http.serving import plain
from tests.http.upstreams import Upstream, head_of

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


async def hinting(stream: Stream) -> None:
    """Send 103, and 200 after the body."""
    await head_of(stream)
    await stream.write(HINTS)
    got = b""
    while len(got) < 5:
        got += await stream.read()
    await stream.write(ANSWER)


async def silent(stream: Stream) -> None:
    """Send 103 and nothing after it."""
    await head_of(stream)
    await stream.write(HINTS)
    while await stream.read():
        pass


async def all_of(stream: Stream) -> bytes:
    got = b""
    while data := await stream.read():
        got += data
    return plain(got)


@pytest.mark.parametrize("is_sent", [False, True])
async def test_the_end_of_the_wait_for_100_does_not_cut_an_informational_response(is_sent: bool) -> None:
    async with testing.clock(autojump=True), http.client(Upstream(hinting)) as client:
        front = server()(reverse_proxy("http://a.example", client=client, via=None))
        async with testing.connect(front, pair=testing.lockstep_pair) as stream:
            await stream.write(HEAD)
            if is_sent:
                await stream.write(b"hello")
            await asyncio.sleep(10)
            reading = detached_task(all_of(stream))
            if not is_sent:
                await stream.write(b"hello")
            got = await reading
    assert got == HINTS + ANSWER


async def hinting_and_slow(request: Request) -> Response:
    await request.send_informational(103, {"Link": "</a>"})
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("scheme", ["http", "h2c"])
async def test_a_timeout_of_the_upstream_does_not_cut_an_informational_response(scheme: str) -> None:
    origin = silent if scheme == "http" else server()(hinting_and_slow)
    async with (
        testing.clock(autojump=True),
        http.client(Upstream(origin), response_header_timeout=5) as client,
    ):
        front = server()(reverse_proxy(f"{scheme}://a.example", client=client, via=None))
        async with testing.connect(front, pair=testing.lockstep_pair) as stream:
            await stream.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await asyncio.sleep(10)
            got = await all_of(stream)
    assert got.replace(b"link", b"Link").startswith(HINTS + b"HTTP/1.1 504 ")


async def informing_and_giving_up(request: Request) -> Response:
    task = detached_task(request.send_informational(103, {"Link": "</a>"}))
    await asyncio.sleep(1)
    task.cancel()
    return Response(200)


async def reading_and_giving_up(request: Request) -> Response:
    task = detached_task(request.body.read())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait((task,))
    return Response(200)


@pytest.mark.parametrize(
    ("app", "interim", "status"),
    [
        (hinting_and_slow, HINTS, b"504"),
        (informing_and_giving_up, HINTS, b"200"),
        (reading_and_giving_up, b"HTTP/1.1 100 Continue\r\n\r\n", b"200"),
    ],
)
async def test_the_final_response_follows_a_whole_informational_one(
    app: RequestHandler, interim: bytes, status: bytes
) -> None:
    async with (
        testing.clock(autojump=True),
        testing.connect(server(handler_timeout=5)(app), pair=testing.lockstep_pair) as stream,
    ):
        await stream.write(HEAD)
        await asyncio.sleep(10)
        got = await all_of(stream)
    assert got.startswith(interim + b"HTTP/1.1 " + status)


async def test_a_client_that_takes_no_informational_response_loses_its_connection() -> None:
    async with (
        testing.clock(autojump=True),
        testing.connect(server(write_timeout=5)(hinting_and_slow), pair=testing.lockstep_pair) as stream,
    ):
        await stream.write(HEAD)
        await asyncio.sleep(10)
        with pytest.raises(ConnectionResetError):
            await all_of(stream)


async def test_a_client_passes_an_informational_response_on_however_long_that_takes() -> None:
    informed: list[int] = []

    async def inform(status: int, headers: Headers) -> None:
        await asyncio.sleep(30)
        informed.append(status)

    async def body() -> AsyncIterator[bytes]:
        yield b"hello"

    async with testing.clock(autojump=True), http.client(Upstream(hinting)) as client:
        request = Request(
            "POST", "http://a.example/", {"Expect": "100-continue", "Content-Length": "5"}, body()
        )
        request._send_informational = inform
        assert await (await client(request)).body.read() == b"ok"
    assert informed == [103]

"""What an HTTP/1.1 server says: transcripts."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from llama import stack
from llama._core.errors import LlamaError
from llama._core.extensions import Extensions
from llama._core.server import PeerAddress
from llama._core.stack import describe
from llama._core.stream import Stream
from llama.http import Body, Headers, Request, Response, server
from tests.http.serving import CLOSING, HELLO, client_of, echo, exchange_of, get, hello, last, talk


def test_a_request_is_answered_and_the_connection_is_reused() -> None:
    async def main() -> None:
        async with client_of(stack(server(), hello)) as client:
            for _ in range(3):
                await client.say(get())
                await client.hear(HELLO)
            await client.say(last())
            await client.hear(CLOSING)
            assert await client.hear_end() == b""

    asyncio.run(main())


def test_a_response_gets_a_date_unless_it_has_one() -> None:
    async def main() -> bytes:
        async with client_of(stack(server(), hello)) as client:
            await client.say(last())
            return await client.stream.read()

    assert b"\r\nDate: " in asyncio.run(main())
    dated = Response(200, {"Date": "today"}, b"hello")
    assert b"Date: today\r\n" in talk(stack(server(), exchange_of(dated)), last())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def path(request: Request) -> Response:
        return Response(200, body=request.path)

    said = talk(stack(server(), path), get("/a") + get("/b") + last("/c"))
    heard = [part.partition(b"\r\n\r\n")[2][:2] for part in said.split(b"HTTP/1.1 200 OK")[1:]]
    assert heard == [b"/a", b"/b", b"/c"]


def test_a_request_may_come_byte_by_byte() -> None:
    data = last("/", "Content-Length: 3", method="POST") + b"abc"
    assert talk(stack(server(), echo), *[data[i : i + 1] for i in range(len(data))]).endswith(b"\r\n\r\nabc")


def test_an_empty_line_between_requests_is_skipped() -> None:
    assert talk(stack(server(), hello), b"\r\n" + get() + b"\r\n" + last()) == HELLO + CLOSING


ANSWERS: list[tuple[str, bytes, Response, bytes]] = [
    ("HEAD", last(method="HEAD"), Response(200, body=b"hello"), b"200 OK\r\nContent-Length: 5\r\n"),
    ("204", last(), Response(204), b"204 No Content\r\n"),
    ("304", last(), Response(304, {"ETag": "a"}), b"304 Not Modified\r\nETag: a\r\n"),
    (
        "a header kept",
        last(),
        Response(404, [("a", "1"), ("A", "2")]),
        b"404 Not Found\r\na: 1\r\nA: 2\r\nContent-Length: 0\r\n",
    ),
    ("chunks to HEAD", last(method="HEAD"), Response(200, body=[b"a"]), b"200 OK\r\n"),
]


@pytest.mark.parametrize(
    ("said", "response", "heard"), [pytest.param(b, c, d, id=a) for a, b, c, d in ANSWERS]
)
def test_a_response_without_a_body(said: bytes, response: Response, heard: bytes) -> None:
    assert talk(stack(server(), exchange_of(response)), said) == (
        b"HTTP/1.1 " + heard + b"Connection: close\r\n\r\n"
    )


def test_a_body_of_unknown_length_is_chunked() -> None:
    response = Response(200, body=[b"hello", b"", b"world!"])
    assert talk(stack(server(), exchange_of(response)), last()) == (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n"
    )


def test_trailers_follow_the_chunks() -> None:
    response = Response(200, body=[b"a"])
    response.trailers = Headers({"X-Sum": "b"})
    assert talk(stack(server(), exchange_of(response)), last()).endswith(b"1\r\na\r\n0\r\nX-Sum: b\r\n\r\n")


def test_a_body_of_unknown_length_ends_with_the_connection_over_http_10() -> None:
    response = Response(200, body=[b"hello", b"world"])
    said = get("/", "Connection: keep-alive", version="1.0")
    assert talk(stack(server(), exchange_of(response)), said) == (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhelloworld"
    )


def test_http_10_keep_alive_is_supported() -> None:
    said = get("/", "Connection: keep-alive", version="1.0") + get(version="1.0")
    kept = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"
    assert talk(stack(server(), hello), said) == kept + CLOSING


def test_a_response_can_close_the_connection() -> None:
    response = Response(200, {"Connection": "Close"}, b"hello")
    assert talk(stack(server(), exchange_of(response)), get()) == CLOSING


def test_max_requests_limits_the_requests_of_a_connection() -> None:
    assert talk(stack(server(max_requests=2), hello), get() + get() + get()) == HELLO + CLOSING


def test_a_small_response_is_one_write() -> None:
    writes: list[bytes] = []

    async def main() -> None:
        async def recorded(stream: Stream) -> None:
            write = stream.write

            async def record(data: bytes) -> None:
                writes.append(data)
                await write(data)

            await served(_Recorded(stream, record))

        served = stack(server(), hello)
        async with client_of(recorded) as client:
            await client.say(get())
            await client.hear(HELLO)

    asyncio.run(main())
    assert len(writes) == 1


class _Recorded(Stream):
    """A stream whose writes are seen."""

    def __init__(self, stream: Stream, write: object) -> None:
        super().__init__()
        self._stream = stream
        self.write = write  # type: ignore[method-assign, assignment]
        self.extensions = stream.extensions

    async def read(self, limit: int = 65536, /) -> bytes:
        return await self._stream.read(limit)

    async def write(self, data: bytes, /) -> None: ...  # type: ignore[override]

    async def write_eof(self) -> None:
        await self._stream.write_eof()

    def unread(self, data: bytes, /) -> None:
        self._stream.unread(data)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        self._stream.abort()


# request bodies


@pytest.mark.parametrize(
    ("lines", "raw"),
    [
        (["Content-Length: 6"], b"abcdef"),
        (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n3;x\r\ndef\r\n0\r\n\r\n"),
    ],
)
def test_a_body_is_read_in_either_framing(lines: list[str], raw: bytes) -> None:
    async def double(request: Request) -> Response:
        return Response(200, body=2 * await request.body.read())

    said = get("/", *lines, method="POST") + raw
    heard = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabcdefabcdef"
    assert talk(stack(server(), double), said + last()).startswith(heard + b"HTTP/1.1 200")


def test_a_body_is_streamed_back_while_it_arrives() -> None:
    async def main() -> None:
        async with client_of(stack(server(), echo)) as client:
            await client.say(get("/", "Transfer-Encoding: chunked", method="POST"))
            await client.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(3):
                await client.say(b"3\r\nabc\r\n")
                await client.hear(b"3\r\nabc\r\n")
            await client.say(b"0\r\n\r\n")
            await client.hear(b"0\r\n\r\n")
            await client.say(last())
            await client.hear_end()

    asyncio.run(main())


def test_trailers_are_available_after_the_body() -> None:
    async def trailers(request: Request) -> Response:
        assert request.trailers is None
        await request.body.read()
        return Response(200, request.trailers or {})

    said = last("/", "Transfer-Encoding: chunked", method="POST") + b"0\r\nX-Sum: b\r\n\r\n"
    assert b"X-Sum: b\r\n" in talk(stack(server(), trailers), said)


def test_a_small_unread_body_is_drained() -> None:
    said = get("/", "Content-Length: 6", method="POST") + b"abcdef"
    assert talk(stack(server(), hello), said + last()) == HELLO + CLOSING


def test_a_large_unread_body_closes_the_connection() -> None:
    said = get("/", "Content-Length: 70000", method="POST") + b"a" * 1000
    assert talk(stack(server(), hello), said) == CLOSING


def test_many_unread_chunks_close_the_connection() -> None:
    said = get("/", "Transfer-Encoding: chunked", method="POST") + b"8000\r\n" + b"a" * 32768 + b"\r\n"
    more = b"8000\r\n" + b"a" * 32768 + b"\r\n"
    assert talk(stack(server(), hello), said, more, more) == HELLO


def test_a_body_cannot_be_read_after_its_exchange() -> None:
    bodies: list[Body] = []

    async def keep(request: Request) -> Response:
        bodies.append(request.body)
        return Response(200, body=b"hello")

    said = get("/", "Content-Length: 70000", method="POST")
    assert talk(stack(server(), keep), said) == CLOSING
    with pytest.raises(LlamaError, match="after the end of its exchange"):
        asyncio.run(bodies[0].read())


def test_100_continue_is_sent_when_the_body_is_read() -> None:
    async def read(request: Request) -> Response:
        return Response(200, body=await request.body.read())

    async def main() -> None:
        async with client_of(stack(server(), read)) as client:
            await client.say(last("/", "Expect: 100-continue", "Content-Length: 3", method="POST"))
            await client.hear(b"HTTP/1.1 100 Continue\r\n\r\n")
            await client.say(b"abc")
            assert (await client.hear_end()).endswith(b"\r\n\r\nabc")

    asyncio.run(main())


def test_100_continue_is_not_sent_for_an_unread_body() -> None:
    said = get("/", "Expect: 100-continue", "Content-Length: 3", method="POST")
    assert talk(stack(server(), hello), said) == CLOSING


def test_reading_a_truncated_body_raises_truncated() -> None:
    seen: list[BaseException] = []

    async def read(request: Request) -> Response:
        try:
            await request.body.read()
        except LlamaError as error:
            seen.append(error)
            raise
        return Response(200)

    async def main() -> None:
        async with client_of(stack(server(), read)) as client:
            await client.say(get("/", "Content-Length: 6", method="POST") + b"abc")
            await client.stream.write_eof()
            assert (await client.hear_end()).startswith(b"HTTP/1.1 400 ")

    asyncio.run(main())
    assert "3 bytes before the end" in str(seen[0])


def test_a_malformed_chunk_is_a_400_and_closes_the_connection() -> None:
    said = get("/", "Transfer-Encoding: chunked", method="POST") + b"xyz\r\n"

    async def read(request: Request) -> Response:
        return Response(200, body=await request.body.read())

    heard = talk(stack(server(), read), said)
    assert heard.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close\r\n" in heard


# what a request knows


def test_a_request_has_its_client_and_connection_data() -> None:
    seen: list[Request] = []

    async def look(request: Request) -> Response:
        seen.append(request)
        assert request.extensions[PeerAddress].host == "192.0.2.1"
        return Response(200)

    talk(stack(server(), look), last("/a?b"))
    talk(stack(server(scheme="https"), look), last("/a?b"))
    request = seen[0]
    assert request.client == PeerAddress("192.0.2.1", 5)
    assert (request.method, request.url, request.version) == ("GET", "http://a/a?b", "1.1")
    assert seen[1].url == "https://a/a?b"
    assert isinstance(request.extensions, Extensions)


def test_the_authority_of_an_absolute_target_wins() -> None:
    async def look(request: Request) -> Response:
        return Response(
            200, body=f"{request.url} {request.is_absolute_form} {request.headers.get_all('host')}"
        )

    heard = talk(stack(server(), look), last("http://b.example:80/c"))
    assert heard.endswith(b"\r\n\r\nhttp://b.example:80/c True ['b.example:80']")


# informational responses


def test_early_hints_are_sent_before_the_response() -> None:
    async def hints(request: Request) -> Response:
        await request.send_informational(103, {"Link": "</a>"})
        return Response(200, body=b"hello")

    assert talk(stack(server(), hints), last()) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + CLOSING
    assert talk(stack(server(), hints), get(version="1.0")) == CLOSING


# upgrades


async def shout(stream: Stream) -> None:
    """What takes over: sends back what it hears, in capitals."""
    while data := await stream.read():
        await stream.write(data.upper())


async def tunnel(request: Request) -> Response:
    return Response(200, {"Content-Length": "5"} if request.upgrade_protocol else {}, upgrade=shout)


def test_an_upgrade_takes_the_connection_over() -> None:
    async def main() -> None:
        async with client_of(stack(server(), tunnel)) as client:
            await client.say(get("/", "Connection: Upgrade", "Upgrade: Shout") + b"early ")
            await client.hear(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nEARLY "
            )
            await client.say(b"late")
            await client.stream.write_eof()
            assert await client.hear_end() == b"LATE"

    asyncio.run(main())


def test_a_tunnel_takes_the_connection_over() -> None:
    async def main() -> None:
        async with client_of(stack(server(), tunnel)) as client:
            await client.say(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nearly")
            await client.hear(b"HTTP/1.1 200 OK\r\n\r\nEARLY")
            await client.stream.write_eof()
            assert await client.hear_end() == b""

    asyncio.run(main())


def test_an_unrequested_upgrade_is_an_error() -> None:
    assert talk(stack(server(), tunnel), last()).startswith(b"HTTP/1.1 500 ")
    assert talk(stack(server(), tunnel), last("/", "Upgrade: x")).startswith(b"HTTP/1.1 500 ")


def test_a_2xx_to_connect_requires_an_upgrade() -> None:
    said = b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n"
    assert talk(stack(server(), hello), said).startswith(b"HTTP/1.1 501 Not Implemented\r\n")


# stacks


def test_stacks_are_checked_when_they_are_built() -> None:
    wrong = cast("Callable[..., object]", stack)
    assert describe(stack(server(), hello)) == "http.server() > hello"
    with pytest.raises(TypeError, match="call it"):
        wrong(server, hello)
    with pytest.raises(TypeError, match="swap them"):
        wrong(server(), server(), hello)

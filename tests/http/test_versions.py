"""HTTP/1.1, HTTP/2 and HTTP/3 servers treat a handler and its responses alike."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

pytest.importorskip("qh3")

from llama import LlamaError, http, serve, tcp
from llama.http import Headers, Request, RequestHandler, Response
from tests.http.h3.fixtures import client, h3

VERSIONS = ["1.1", "2", "3"]


@asynccontextmanager
async def served(
    version: str, handler: RequestHandler, **options: Any
) -> AsyncGenerator[tuple[RequestHandler, str]]:
    """A client and a URL for a handler over this version of HTTP."""
    if version == "3":
        async with h3(handler, **options) as port, client() as ask:
            yield ask, f"https://localhost:{port}/"
    else:
        site = tcp.server("127.0.0.1:0", http.server(**options)(handler))
        async with serve(site) as server, http.client() as ask:
            yield ask, f"{'h2c' if version == '2' else 'http'}://{server.addresses[0]}/"


async def no_response(request: Request) -> Response:
    return None  # type: ignore[return-value]


async def raises(request: Request) -> Response:
    raise ValueError("a bug")


async def never(request: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


async def interim_status(request: Request) -> Response:
    return Response(103)


async def no_tunnel(request: Request) -> Response:
    async def upgrade(stream: Any) -> None: ...

    return Response(200, upgrade=upgrade)


async def pieces(*parts: bytes | Exception) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, Exception):
            raise part
        yield part


async def too_short(request: Request) -> Response:
    return Response(200, {"Content-Length": "10"}, pieces(b"hello"))


async def breaks_off(request: Request) -> Response:
    return Response(200, {}, pieces(b"hello", ValueError("a bug")))


async def hello(request: Request) -> Response:
    return Response(200, {}, b"hello")


async def in_pieces(request: Request) -> Response:
    return Response(200, {}, pieces(b"hel", b"lo"))


async def trailing(request: Request) -> Response:
    response = Response(200, {}, pieces(b"hello"))
    response.trailers = Headers({"x-sum": "5"})
    return response


async def trailing_only(request: Request) -> Response:
    response = Response(200, {}, pieces())
    response.trailers = Headers({"x-sum": "0"})
    return response


async def hinting(request: Request) -> Response:
    await request.send_informational(103, {"Link": "</a.css>"})
    return Response(200, {}, b"hello")


async def echo(request: Request) -> Response:
    return Response(200, {}, await request.body.read())


async def refuses_unread(request: Request) -> Response:
    return Response(413, {}, b"no")


class Case(NamedTuple):
    """What a client gets: a status, the body or None for one that breaks off, trailers, and informational statuses."""

    handler: RequestHandler
    status: int
    body: bytes | None
    method: str = "GET"
    sent: bytes = b""
    fields: dict[str, str] = {}  # noqa: RUF012 - never changed
    options: dict[str, Any] = {}  # noqa: RUF012
    trailers: dict[str, str] = {}  # noqa: RUF012
    informed: tuple[int, ...] = ()


def page(error: BaseException, status: int, request: Request | None) -> Response:
    return Response(status, {}, f"page for {type(error).__name__}".encode())


def broken_page(error: BaseException, status: int, request: Request | None) -> Response:
    raise ValueError("a bug in the page")


CASES = {
    "a handler without a response": Case(no_response, 500, b"500 Internal Server Error\n"),
    "its page": Case(no_response, 500, b"page for TypeError", options={"error_handler": page}),
    "a handler that raises": Case(raises, 500, b"500 Internal Server Error\n"),
    "a page that raises": Case(raises, 500, b"", options={"error_handler": broken_page}),
    "a handler that takes too long": Case(
        never, 504, b"504 Gateway Timeout\n", options={"handler_timeout": 0.02}
    ),
    "an interim status": Case(interim_status, 500, b"500 Internal Server Error\n"),
    "an upgrade without a request for one": Case(no_tunnel, 500, b"500 Internal Server Error\n"),
    "a body that is too short": Case(too_short, 200, None),
    "a body that breaks off": Case(breaks_off, 200, None),
    "bytes": Case(hello, 200, b"hello"),
    "pieces": Case(in_pieces, 200, b"hello"),
    "HEAD for bytes": Case(hello, 200, b"", "HEAD"),
    "HEAD for pieces": Case(in_pieces, 200, b"", "HEAD"),
    "HEAD for an error": Case(raises, 500, b"", "HEAD"),
    "trailers": Case(trailing, 200, b"hello", trailers={"x-sum": "5"}),
    "trailers after nothing": Case(trailing_only, 200, b"", trailers={"x-sum": "0"}),
    "early hints": Case(hinting, 200, b"hello", informed=(103,)),
    "an upload": Case(echo, 200, b"sent", "POST", b"sent"),
    "Expect": Case(echo, 200, b"sent", "POST", b"sent", {"Expect": "100-continue"}),
    "another expectation": Case(
        echo,
        417,
        b"417 Expectation Failed: expectation 'x' cannot be met\n",
        "POST",
        b"sent",
        {"Expect": "x"},
    ),
    "an upload that is not read": Case(refuses_unread, 413, b"no", "POST", bytes(10)),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
async def test_versions_agree(version: str, case: Case) -> None:
    informed: list[int] = []

    async def inform(status: int, headers: Headers) -> None:
        if status != 100:
            informed.append(status)

    async with served(version, case.handler, **case.options) as (ask, url):
        request = Request(case.method, url, case.fields, case.sent)
        request._send_informational = inform
        response = await ask(request)
        try:
            body: bytes | None = await response.body.read()
        except (OSError, LlamaError):
            body = None
        assert (response.status, body) == (case.status, case.body)
        trailers = response.trailers
        assert dict(trailers or ()) == case.trailers
        assert tuple(informed) == case.informed
        await response.aclose()


@pytest.mark.parametrize("version", ["2", "3"])
async def test_a_body_over_its_content_length_breaks_off(version: str) -> None:
    async def too_long(request: Request) -> Response:
        return Response(200, {"Content-Length": "3"}, pieces(b"hel", b"lo"))

    async with served(version, too_long) as (ask, url):
        response = await ask(Request("GET", url))
        with pytest.raises((OSError, LlamaError)):
            await response.body.read()
        await response.aclose()


@pytest.mark.parametrize("version", VERSIONS)
async def test_write_timeout_bounds_each_piece_of_a_body(version: str) -> None:
    size = 16 << 20
    data = bytes(size)

    async def large(request: Request) -> Response:
        return Response(200, {}, data)

    async with served(version, large, write_timeout=0.4) as (ask, url):
        started = asyncio.get_running_loop().time()
        response = await ask(Request("GET", url))
        received = 0
        async for chunk in response.body:
            received += len(chunk)
            await asyncio.sleep(len(chunk) / size)  # the pace of the reader: a second for all of it
        assert received == size
        assert asyncio.get_running_loop().time() - started > 0.8


@pytest.mark.parametrize("version", VERSIONS)
async def test_write_timeout_ends_an_exchange_whose_client_stops_reading(version: str) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            closed.set()

    async def large(request: Request) -> Response:
        return Response(200, {}, endless())

    async with served(version, large, write_timeout=0.1) as (ask, url):
        response = await ask(Request("GET", url))
        await closed.wait()
        await response.aclose()

"""HTTP/3 as a server speaks it, to clients that keep the rules and to those that do not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

pytest.importorskip("qh3")

from qh3.quic.connection import QuicConnectionError

from llama import ConfigError, Shutdown, TruncatedError, UnreachableError, http, stack, testing, timeout
from llama.http import Request, RequestHandler, Response
from llama.testing._stream_suite.helpers import spin
from tests.http.h3.fixtures import GET, POST, client, h3, raw, tunnel
from tests.tls.sessions import pair_files


async def echo(request: Request) -> Response:
    """Sends the body back as it comes."""
    return Response(200, {"x-url": request.url, "x-version": request.version}, request.body)


@pytest.mark.parametrize("case", testing.stream_cases(breaks=False))
async def test_a_tunnel_is_a_stream(case: testing.StreamCase) -> None:
    await case(tunnel)


async def test_a_request_is_what_every_exchange_gets() -> None:
    seen: list[Request] = []

    async def note(request: Request) -> Response:
        seen.append(request)
        return Response(200, body=await request.body.read())

    async with h3(note) as port, client() as ask:
        response = await ask(Request("POST", f"https://localhost:{port}/a?b", {"X-Case": "1"}, b"hello"))
        assert (response.status, response.version) == (200, "3")
        assert response.headers["content-length"] == "5"
        assert await response.body.read() == b"hello"
    (request,) = seen
    assert (request.method, request.path, request.scheme, request.version) == ("POST", "/a?b", "https", "3")
    assert request.authority == f"localhost:{port}"
    assert request.headers["x-case"] == "1"
    assert request.client is not None and request.client.host == "127.0.0.1"


async def test_an_exchange_has_the_shutdown_of_its_server() -> None:
    async def spawning(request: Request) -> Response:
        return Response(200, body=await Shutdown.current().spawn(request.body.read()))

    async with h3(spawning) as port, client() as ask:
        response = await ask(Request("POST", f"https://localhost:{port}/", body=b"hello"))
        assert await response.body.read() == b"hello"


async def test_many_requests_share_a_connection() -> None:
    async with h3(echo) as port, client() as ask:

        async def one(number: int) -> int:
            response = await ask(Request("POST", f"https://localhost:{port}/", body=b"x" * number))
            return len(await response.body.read())

        assert sum(await asyncio.gather(*map(one, range(150)))) == sum(range(150))


async def test_megabytes_go_both_ways_at_once() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(64):
            yield bytes([number]) * 65536

    async with h3(echo) as port, client() as ask:
        response = await ask(Request("POST", f"https://localhost:{port}/", body=parts()))
        assert await response.body.read(1 << 23) == b"".join([bytes([n]) * 65536 for n in range(64)])


async def test_a_slow_reader_slows_its_writer() -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 65536
            yield bytes(65536)

    async def stream(request: Request) -> Response:
        return Response(200, body=endless())

    async with h3(stream) as port, client() as ask:
        response = await ask(Request("GET", f"https://localhost:{port}/"))
        (place,) = ask.state.origin_pools.values()
        (connection,) = place.connections
        while not connection.link.quic.is_paused:  # until the window is full
            await spin(10)
        await spin(1000)
        assert given < 8 << 20
        assert await response.body.read_chunk()
        await response.aclose()


async def test_trailers_and_early_hints_pass() -> None:
    async def app(request: Request) -> Response:
        await request.send_informational(103, {"Link": "</a.css>"})
        response = Response(200, body=request.body)
        response.trailers = http.Headers({"x-sum": "5"})
        return response

    hints: list[int] = []

    async with h3(app) as port, client() as ask:
        request = Request("POST", f"https://localhost:{port}/", body=b"hello")

        async def inform(status: int, headers: http.Headers) -> None:
            hints.append(status)

        request._send_informational = inform
        response = await ask(request)
        assert await response.body.read() == b"hello"
        assert response.trailers is not None and response.trailers["x-sum"] == "5"
        assert hints == [103]


async def test_a_head_request_has_no_body() -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=b"hello")

    async with h3(app) as port, client() as ask:
        response = await ask(Request("HEAD", f"https://localhost:{port}/"))
        assert response.headers["content-length"] == "5"
        assert await response.body.read() == b""


BAD = {
    "upper case": [*GET, (b"X-Upper", b"1")],
    "a field about the connection": [*GET, (b"connection", b"close")],
    "transfer-encoding": [*GET, (b"transfer-encoding", b"chunked")],
    "te that is not trailers": [*GET, (b"te", b"gzip")],
    "a line break in a value": [*GET, (b"x-a", b"1\r\nx-b: 2")],
    "a nul in a value": [*GET, (b"x-a", b"1\0")],
    "a space in a name": [*GET, (b"x a", b"1")],
    "no method": [*GET[1:]],
    "no path": [*GET[:3]],
    "an empty path": [*GET[:3], (b":path", b"")],
    "a path without a slash": [*GET[:3], (b":path", b"evil.example/")],
    "a space in the path": [*GET[:3], (b":path", b"/a b")],
    "two authorities that differ": [*GET, (b"host", b"other.example")],
    "an authority with a name before it": [GET[0], GET[1], (b":authority", b"a@b"), GET[3]],
    "a length that is none": [*GET, (b"content-length", b"+5")],
    "two lengths": [*GET, (b"content-length", b"5"), (b"content-length", b"6")],
    "a length without a body": [*GET, (b"content-length", b"5")],
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD.keys())
async def test_what_is_malformed_reaches_no_exchange(fields: list[tuple[bytes, bytes]]) -> None:
    asked: list[Request] = []

    async def app(request: Request) -> Response:
        asked.append(request)
        return Response()

    async with h3(app) as port, raw(port) as bad:
        answer = bad.ask(*fields)
        await answer.ends(bad)
        assert answer.heads == [] and asked == []


async def test_only_the_stream_that_broke_the_rules_ends() -> None:
    async with h3(echo) as port, raw(port) as mixed:
        bad = mixed.ask(*POST, (b"content-length", b"9"), body=b"short")
        good = mixed.ask(*POST, body=b"hello")
        await bad.over.wait()
        await good.over.wait()
        assert bad.reset is not None and good.body == b"hello"


async def test_cookie_crumbs_are_joined() -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=request.headers["cookie"])

    async with h3(app) as port, raw(port) as peer:
        answer = peer.ask(*GET, (b"cookie", b"a=1"), (b"cookie", b"b=2"))
        await answer.over.wait()
        assert answer.body == b"a=1; b=2"


async def test_a_head_over_the_limit_is_431() -> None:
    async with h3(echo, limits=http.Limits(max_head=2000)) as port, raw(port) as peer:
        answer = peer.ask(*GET, (b"x-big", b"a" * 3000))
        await answer.over.wait()
        assert answer.heads[0][0] == (b":status", b"431")


async def test_errors_are_answered_by_what_they_carry() -> None:
    async def slow(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with h3(stack(timeout(0.01), slow)) as port, client() as ask:
        response = await ask(Request("GET", f"https://localhost:{port}/"))
        assert response.status == 504
        await response.aclose()


async def test_a_client_that_leaves_cancels_its_exchange() -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def app(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    async with h3(app) as port, client() as ask, asyncio.TaskGroup() as group:
        asked = group.create_task(ask(Request("GET", f"https://localhost:{port}/")))
        await begun.wait()
        asked.cancel()
        await gone.wait()


async def test_a_response_that_breaks_off_is_seen_as_broken() -> None:
    seen = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"half of it"
        await seen.wait()
        raise ConnectionResetError("upstream died")

    async def app(request: Request) -> Response:
        return Response(200, body=parts())

    async with h3(app) as port, client() as ask:
        response = await ask(Request("GET", f"https://localhost:{port}/"))
        assert await response.body.read_chunk() == b"half of it"
        seen.set()
        with pytest.raises(TruncatedError, match="the stream was reset"):
            await response.body.read_chunk()


async def test_stopping_lets_what_is_in_flight_finish() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def app(request: Request) -> Response:
        begun.set()
        await go.wait()
        return Response(200, body=b"late")

    async with client() as ask, asyncio.TaskGroup() as group:
        async with h3(app) as port:
            asked = group.create_task(ask(Request("GET", f"https://localhost:{port}/")))
            await begun.wait()
            go.set()
        response = await asked
        assert await response.body.read() == b"late"


async def test_clients_prove_their_address_when_many_shake_hands() -> None:
    async with h3(echo, retry_threshold=0) as port, client() as ask:
        response = await ask(Request("POST", f"https://localhost:{port}/", body=b"hello"))
        assert await response.body.read() == b"hello"


async def test_no_more_connections_than_allowed() -> None:
    async with h3(echo, max_connections=1) as port, client() as ask:
        response = await ask(Request("POST", f"https://localhost:{port}/", body=b"hello"))
        assert await response.body.read() == b"hello"
        async with client(connect_timeout=0.3) as other:
            with pytest.raises(UnreachableError, match="within"):
                await other(Request("GET", f"https://localhost:{port}/"))


async def test_many_requests_that_are_broken_off_end_the_connection() -> None:
    async def app(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with h3(app) as port, raw(port) as attacker:
        with suppress(QuicConnectionError):  # it is closed on the other side
            while not attacker.ended.done():
                number = attacker._quic.get_next_available_stream_id()
                if number // 4 < attacker._quic.max_concurrent_bidi_streams:
                    attacker.ask(*GET, end=False)
                    attacker._quic.reset_stream(number, 0x10C)
                    attacker.transmit()
                await asyncio.sleep(0)
        assert await attacker.ended == 0x107


def test_files_that_do_not_work_are_refused_at_once() -> None:
    exchange: RequestHandler = echo
    cert, key = pair_files("localhost")
    for bad in (("/nowhere.pem", None), (cert, None), (key, cert)):
        with pytest.raises(ConfigError, match="h3_server"):
            http.h3_server(":0", exchange, *bad)

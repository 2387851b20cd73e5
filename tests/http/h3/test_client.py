"""HTTP/3 as a client: connections that are shared, and the way to it by Alt-Svc."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("qh3")

from llama import (
    OverloadedError,
    TLSError,
    TruncatedError,
    UnreachableError,
    http,
    serve,
    stack,
    tcp,
    tls,
    udp,
)
from llama.http import Request, Response
from llama.http._h3.client.alt_svc_cache import AltSvcCache
from tests.http.h3.fixtures import client, h3
from tests.tls.sessions import ca_file, pair_files


async def version(request: Request) -> Response:
    """Tells how it was asked."""
    return Response(200, body=request.version)


@asynccontextmanager
async def site(udp_port: int) -> AsyncGenerator[str]:
    """The same over TCP, which tells of the UDP port."""
    exchange = stack(http.alt_svc(udp_port), version)
    handler = stack(tls.server(*pair_files("localhost")), http.server(), exchange)
    async with serve(tcp.server("127.0.0.1:0", handler)) as server:
        yield f"https://localhost:{server.addresses[0].rpartition(':')[2]}/"


def over_tcp() -> Any:
    return http.client(tls=tls.connect(ca=ca_file()))


async def text(exchange: Any, url: str) -> str:
    response = await exchange(Request("GET", url))
    body: bytes = await response.body.read()
    return body.decode()


async def test_the_second_visit_goes_by_http3() -> None:
    async with h3(version) as port, site(port) as url, over_tcp() as first, client(fallback=first) as ask:
        assert [await text(ask, url) for _ in range(3)] == ["2", "3", "3"]


async def test_what_cannot_be_reached_is_left_alone() -> None:
    packets = await udp.bind("127.0.0.1:0")  # where nobody answers
    assert packets.address is not None
    try:
        async with (
            site(packets.address.port) as url,
            over_tcp() as first,
            client(fallback=first, alt_svc_timeout=0.05, connect_timeout=0.2) as ask,
        ):
            assert [await text(ask, url) for _ in range(3)] == ["2", "2", "2"]
    finally:
        packets.abort()


async def test_the_certificate_is_checked() -> None:
    async with h3(version) as port:
        async with client(ca=None) as ask:
            with pytest.raises(TLSError, match="QUIC handshake failed"):
                await ask(Request("GET", f"https://localhost:{port}/"))
        async with client() as ask:
            with pytest.raises(TLSError, match="QUIC handshake failed"):
                await ask(Request("GET", f"https://127.0.0.1:{port}/"))
        async with client(verify=False) as ask:
            assert await text(ask, f"https://127.0.0.1:{port}/") == "3"


async def test_more_requests_than_a_connection_takes_open_others() -> None:
    go = asyncio.Event()

    async def slow(request: Request) -> Response:
        await go.wait()
        return Response(200, body=b"x")

    async with h3(slow) as port, client() as ask, asyncio.TaskGroup() as group:
        tasks = [group.create_task(text(ask, f"https://localhost:{port}/")) for _ in range(250)]
        await asyncio.sleep(0)
        go.set()
        assert [await each for each in tasks] == ["x"] * 250
        assert ask.state.connections <= 4


async def test_no_more_connections_than_allowed() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await go.wait()
        return Response(200, body=b"slow")

    async with h3(slow) as one, h3(version) as two, client(max_connections=1, pool_timeout=0.05) as ask:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(text(ask, f"https://localhost:{one}/"))
            await begun.wait()
            with pytest.raises(OverloadedError, match=r"none was free within 0\.05 s"):
                await text(ask, f"https://localhost:{two}/")
            go.set()
        assert first.result() == "slow"
        assert await text(ask, f"https://localhost:{two}/") == "3"  # in place of the first, which is idle
        assert ask.state.connections == 1


async def test_no_more_wait_than_allowed() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await go.wait()
        return Response(200, body=b"slow")

    async with h3(slow) as one, h3(version) as two, client(max_connections=1, max_waiting=1) as ask:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(text(ask, f"https://localhost:{one}/"))
            await begun.wait()
            second = group.create_task(text(ask, f"https://localhost:{two}/"))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError, match="1 wait for one already"):
                await text(ask, f"https://localhost:{two}/")
            go.set()
        assert (first.result(), second.result()) == ("slow", "3")


async def test_nobody_there_is_unreachable() -> None:
    packets = await udp.bind("127.0.0.1:0")
    assert packets.address is not None
    port = packets.address.port
    packets.abort()
    async with client(connect_timeout=5) as ask:
        with pytest.raises(UnreachableError):
            await text(ask, f"https://localhost:{port}/")


async def test_a_server_that_goes_breaks_what_is_under_way() -> None:
    begun = asyncio.Event()

    async def app(request: Request) -> Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def post(ask: http.RequestHandler, port: int) -> None:
        with pytest.raises(TruncatedError):
            await ask(Request("POST", f"https://localhost:{port}/", body=b"x"))

    async with client() as ask, h3(app) as port, asyncio.TaskGroup() as group:
        asked = group.create_task(post(ask, port))
        await begun.wait()
        (place,) = ask.state.origin_pools.values()
        (connection,) = place.connections
        connection.link.quic.close(error_code=0x102)
        connection.link.flush()
        await asked


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (['h3=":8443"'], "localhost:8443"),
        (['h3="other.example:443"; ma=60, h2=":443"'], "other.example:443"),
        (['h2=":443"', 'h3-29=":1", h3=":2"; persist=1; ma=5'], "localhost:2"),
        (['h3=":8443"; ma=0'], None),
        (["clear"], None),
        (['h3="nonsense"'], None),
        (["h3=:8443"], None),
        (["\x00" * 100], None),
    ],
)
def test_alt_svc_is_read(values: list[str], found: str | None) -> None:
    known = AltSvcCache()
    origin = http.Origin.parse("https://localhost:1234")
    known.update(origin, values)
    other = known.get(origin)
    assert (None if other is None else str(other.target)) == found


async def test_a_reverse_proxy_goes_by_what_its_upstream_says() -> None:
    async with h3(version) as port, site(port) as url, over_tcp() as first, client(fallback=first) as ask:
        proxy = http.reverse_proxy([url.rstrip("/"), f"h3://localhost:{port}"], client=ask)
        assert [await text(proxy, "http://site.example/") for _ in range(4)] == ["2", "3", "3", "3"]


async def test_a_way_that_breaks_before_the_answer_leads_back_to_the_fallback() -> None:
    asked: asyncio.Queue[None] = asyncio.Queue()

    async def silent(request: Request) -> Response:
        asked.put_nowait(None)
        await asyncio.Event().wait()
        raise AssertionError

    async with h3(silent) as port, site(port) as url, over_tcp() as first, client(fallback=first) as ask:
        assert await text(ask, url) == "2"
        async with asyncio.TaskGroup() as group:
            second = group.create_task(text(ask, url))
            await asked.get()
            (place,) = ask.state.origin_pools.values()
            place.connections[0].link.fail(TruncatedError("the way broke"))
        assert second.result() == "2"
        assert await text(ask, url) == "2"  # for a while it is not tried again

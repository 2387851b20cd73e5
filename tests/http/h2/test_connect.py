"""`http.connect` to a proxy that speaks HTTP/2: tunnels that share a connection."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from llama import (
    ConfigError,
    LlamaError,
    RefusedError,
    Stream,
    Target,
    TLSError,
    UnreachableError,
    describe,
    http,
    serve,
    stack,
    tcp,
    testing,
    tls,
)
from llama._core.resources import find_resources
from llama._core.shutdown import Shutdown
from llama.http import Request, Response
from llama.http._h2.wire import frames
from llama.http._limits import H2Limits
from llama.http._proxy.connect import HttpConnect
from llama.testing import memory_pair
from llama.testing._connect import serve_stream
from tests.http.h2.test_client import World
from tests.http.h2.wire.h2_pair import OK
from tests.tls.sessions import ca_file, pair_files

A = Target("a.example", 443)


class Proxy:
    """A proxy over memory, as a connector to it; each CONNECT comes up as the stream of a tunnel."""

    def __init__(
        self, *, limits: H2Limits | None = None, status: int = 200, fields: tuple[str, str] | None = None
    ) -> None:
        self.tunnels: asyncio.Queue[Stream] = asyncio.Queue()
        self.asked: list[str] = []
        self.heads: list[http.Headers] = []
        self.opened: list[Stream] = []
        self.ends: list[asyncio.Event] = []
        self.status = status
        self.fields = fields
        self.handler = stack(http.server(h2=limits or H2Limits()), self.answer)
        self.bugs: list[Exception] = []
        self.owner = Shutdown.current()

    async def __call__(self, target: Target, /) -> Stream:
        ours, theirs = memory_pair(capacity=10_000)
        self.opened.append(theirs)
        self.owner.spawn(serve_stream(self.handler, theirs, self.bugs))
        return ours

    async def answer(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.authority} {request.version}")
        self.heads.append(request.headers.copy())
        if self.status != 200:
            return Response(self.status, [self.fields] if self.fields else [], b"no")
        return Response(200, upgrade=self.take)

    async def take(self, stream: Stream) -> None:
        done = asyncio.Event()
        self.ends.append(done)
        self.tunnels.put_nowait(stream)
        await done.wait()

    def end(self) -> None:
        for each in self.ends:
            each.set()


@asynccontextmanager
async def tunnel() -> AsyncGenerator[tuple[Stream, Stream]]:
    """Both ends of a tunnel."""
    async with Shutdown():
        proxy = Proxy()
        async with http.connect("h2c://proxy:80", connect=proxy) as connect:
            stream = await connect(A)
            try:
                yield stream, await proxy.tunnels.get()
            finally:
                proxy.end()
                stream.abort()


@pytest.mark.parametrize("case", testing.stream_cases(bulk=6_000_000))
async def test_a_tunnel_is_a_stream_like_any_other(case: testing.StreamCase) -> None:
    await case(tunnel)


async def test_tunnels_share_a_connection_and_end_one_by_one() -> None:
    async with Shutdown():
        proxy = Proxy()
        async with http.connect("h2c://proxy:80", user="john", password="secret", connect=proxy) as connect:
            streams = await asyncio.gather(*[connect(Target("a.example", port)) for port in range(1, 21)])
            assert len(proxy.opened) == 1
            assert sorted(proxy.asked) == sorted(f"CONNECT a.example:{port} 2" for port in range(1, 21))
            assert {head["proxy-authorization"] for head in proxy.heads} == {"Basic am9objpzZWNyZXQ="}
            for number, stream in enumerate(streams):
                await stream.write(b"%d" % number)
            others = {int(await each.read()): each for each in [await proxy.tunnels.get() for _ in streams]}
            assert sorted(others) == list(range(20))
            await streams[0].aclose()
            assert await others[0].read() == b""
            await streams[1].write(b"still")
            assert await others[1].read() == b"still"
            proxy.end()
            for stream in streams:
                await stream.aclose()
    assert not proxy.bugs


async def test_a_stream_lives_though_nothing_else_of_its_exchange_does() -> None:
    async with Shutdown():
        proxy = Proxy()
        async with http.connect("h2c://proxy:80", connect=proxy) as connect:
            stream = await connect(A)
            there = await proxy.tunnels.get()
            stream.extensions = testing.memory_pair()[0].extensions
            await stream.write(b"hello")
            assert await there.read() == b"hello"
            proxy.end()
            await stream.aclose()


async def test_a_full_connection_is_joined_by_another() -> None:
    async with Shutdown():
        proxy = Proxy(limits=H2Limits(max_concurrent_streams=3))
        async with http.connect("h2c://proxy:80", connect=proxy) as connect:
            streams = await asyncio.gather(*[connect(A) for _ in range(8)])
            assert len(proxy.opened) == 3
            proxy.end()
            for stream in streams:
                await stream.aclose()


async def failure(proxy: Proxy) -> LlamaError:
    async with http.connect("h2c://proxy:80", connect=proxy) as connect:
        with pytest.raises(LlamaError) as raised:
            await connect(A)
    return raised.value


@pytest.mark.parametrize("status", [401, 403, 407])
async def test_a_proxy_that_does_not_allow_it_refuses(status: int) -> None:
    async with Shutdown():
        error = await failure(Proxy(status=status))
    assert isinstance(error, RefusedError)
    assert str(error) == f"cannot reach a.example:443 through proxy proxy:80: {status}"


@pytest.mark.parametrize(
    ("status", "field", "number"),
    [
        (502, "llama; error=connection_refused", errno.ECONNREFUSED),
        (502, "llama; error=dns_error; rcode=NXDOMAIN", errno.EHOSTUNREACH),
        (504, "x", errno.ETIMEDOUT),
        (500, "x", None),
    ],
)
async def test_another_answer_is_unreachable_and_may_tell_why(
    status: int, field: str, number: int | None
) -> None:
    async with Shutdown():
        error = await failure(Proxy(status=status, fields=("Proxy-Status", field)))
    assert isinstance(error, UnreachableError)
    assert (error.__cause__ and getattr(error.__cause__, "errno", None)) == number


@asynccontextmanager
async def by_hand(**settings: float) -> AsyncGenerator[tuple[World, HttpConnect]]:
    """A proxy whose connections come up in the test, frame by frame."""
    world = World(H2Limits())
    async with (
        asyncio.timeout(10),
        http.connect("h2c://proxy:80", connect=world.connect, **settings) as connect,  # type: ignore[arg-type]
    ):
        yield world, connect
        for each in world.opened:
            each.stream.abort()


async def test_a_proxy_that_does_not_answer_is_given_up_and_its_connection_lives() -> None:
    async with by_hand(handshake_timeout=0.05) as (world, connect), asyncio.TaskGroup() as group:
        asked = group.create_task(outcome(connect))
        server = await world.next()
        assert await server.hear("1 CONNECT") == "1 CONNECT a.example:443"
        error = await asked
        assert isinstance(error, TimeoutError)
        assert str(error) == "cannot reach a.example:443 through proxy proxy:80: no response within 0.05 s"
        assert await server.hear("1 reset") == "1 reset CANCEL by peer"
        group.create_task(outcome(connect))
        await server.hear("3 CONNECT")
        assert len(world.opened) == 1


async def test_a_length_says_nothing_of_a_tunnel() -> None:
    async with by_hand() as (world, connect), asyncio.TaskGroup() as group:
        asked = group.create_task(connect(A))
        server = await world.next()
        await server.hear("1 CONNECT")
        stream = server.side.streams[1]
        server.side.engine.send_head(stream, [*OK, ("content-length", "1")], end=False)
        server.side.engine.send_data(stream, b"tunnelled", end=True)
        await server.flush()
        tunnel = await asked
        assert await tunnel.read() == b"tunnelled"
        assert await tunnel.read() == b""
        tunnel.abort()


async def outcome(connect: HttpConnect) -> BaseException:
    try:
        stream = await connect(A)
    except Exception as error:
        return error
    stream.abort()
    return AssertionError("it was reached")


@pytest.mark.parametrize("how", ["goaway", "refused"])
async def test_what_the_proxy_did_nothing_about_is_asked_for_again(how: str) -> None:
    async with by_hand() as (world, connect), asyncio.TaskGroup() as group:
        asked = group.create_task(connect(A))
        server = await world.next()
        await server.hear("1 CONNECT")
        if how == "goaway":
            await server.goaway(0)
            server = await world.next()
        else:
            server.side.engine.reset(server.side.streams[1], frames.REFUSED_STREAM)
            await server.flush()
        line = await server.hear("1 CONNECT" if how == "goaway" else "3 CONNECT")
        stream = server.side.streams[int(line[0])]
        server.side.engine.send_head(stream, [(":status", "200")], end=False)
        await server.flush()
        (await asked).abort()


async def test_a_connection_that_ended_while_it_was_idle_is_replaced() -> None:
    async with by_hand() as (world, connect), asyncio.TaskGroup() as group:
        asked = group.create_task(connect(A))
        server = await world.next()
        await server.hear("1 CONNECT")
        server.side.engine.send_head(server.side.streams[1], [(":status", "200")], end=False)
        await server.flush()
        (await asked).abort()
        await server.hear("1 reset")
        again = group.create_task(connect(A))
        await server.hear("3 CONNECT")
        server.stream.abort()  # it had left when this came
        server = await world.next()
        await server.hear("1 CONNECT")
        server.side.engine.send_head(server.side.streams[1], [(":status", "200")], end=False)
        await server.flush()
        (await again).abort()


async def test_an_error_of_the_first_connection_is_that_of_all_who_wait() -> None:
    opened = 0
    gate = asyncio.Event()

    async def over(target: Target) -> Stream:
        nonlocal opened
        opened += 1
        await gate.wait()
        raise TLSError("no hands were shaken")

    async with http.connect("h2c://proxy:80", connect=over) as connect, asyncio.TaskGroup() as group:
        asked = [group.create_task(outcome(connect)) for _ in range(5)]
        async with testing.clock() as clock:
            await clock.settle()
        gate.set()
        assert all([isinstance(await each, TLSError) for each in asked])
        assert opened == 1


async def test_a_connection_that_carries_nothing_for_a_minute_is_closed() -> None:
    async with testing.clock() as clock, Shutdown():
        proxy = Proxy()
        async with http.connect("h2c://proxy:80", connect=proxy) as connect:
            sharing = connect.sharing
            assert sharing is not None
            for _ in range(3):
                stream = await connect(A)
                proxy.end()
                await stream.aclose()
                await clock.advance(50)
            assert sharing.open().count == len(proxy.opened) == 1
            await clock.advance(9)
            assert sharing.open().count == 1
            await clock.advance(2)
            assert sharing.open().count == 0
            stream = await connect(A)
            assert len(proxy.opened) == 2
            proxy.end()
            await stream.aclose()


def test_run_by_hand_a_connection_ends_with_its_last_tunnel() -> None:
    async def main() -> None:
        world = World(H2Limits())
        connect = http.connect("h2c://proxy:80", connect=world.connect)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            asked = group.create_task(connect(A))
            server = await world.next()
            await server.hear("1 CONNECT")
            server.side.engine.send_head(server.side.streams[1], [(":status", "200")], end=False)
            await server.flush()
            (await asked).abort()
            assert (await server.hear("goaway")).endswith("NO_ERROR")
            while await server.more():
                pass
            server.stream.abort()

    asyncio.run(main())


# which protocol


@asynccontextmanager
async def proxy_over_tls(
    alpn: tuple[str, ...] | None = None,
) -> AsyncGenerator[tuple[str, list[str], list[Stream]]]:
    """A real proxy over TLS in front of an echo: where it is, what it was asked for, and its connections."""
    asked: list[str] = []
    opened: list[Stream] = []

    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data)

    async def note(stream: Stream) -> None:
        opened.append(stream)
        await handler(stream)

    async with serve(tcp.server("127.0.0.1:0", echo)) as target:
        proxy = http.proxy(connect=tcp.connect())

        async def app(request: Request) -> Response:
            asked.append(f"{request.method} {request.version}")
            return await proxy(request)

        handler = stack(tls.server(*pair_files("localhost"), alpn=alpn), http.server(), app)
        async with serve(tcp.server("127.0.0.1:0", note)) as server:
            yield f"localhost:{server.addresses[0].rpartition(':')[2]}|{target.addresses[0]}", asked, opened


async def spoken(connect: HttpConnect, target: str, count: int) -> None:
    """Echo through so many tunnels at a time."""

    async def one(number: int) -> None:
        stream = await connect(Target.parse(target))
        await stream.write(b"%d" % number * 5000)
        await stream.write_eof()
        got = b""
        while data := await stream.read():
            got += data
        assert got == b"%d" % number * 5000
        await stream.aclose()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))


async def test_tls_agrees_on_http_2() -> None:
    async with proxy_over_tls() as (where, asked, opened):
        proxy, _, target = where.partition("|")
        async with http.connect(proxy, connect=tls.connect(ca=ca_file())) as connect:
            await spoken(connect, target, 20)
        assert asked == ["CONNECT 2"] * 20 and len(opened) == 1


@pytest.mark.parametrize("whose", ["the proxy's", "the connector's", "the option's"])
async def test_where_it_does_not_each_tunnel_has_a_connection(whose: str) -> None:
    async with proxy_over_tls(("http/1.1",) if whose == "the proxy's" else None) as (where, asked, opened):
        proxy, _, target = where.partition("|")
        over = tls.connect(ca=ca_file(), alpn=["http/1.1"] if whose == "the connector's" else ())
        async with http.connect(proxy, connect=over, http2=whose != "the option's") as connect:
            await spoken(connect, target, 5)
            await spoken(connect, target, 5)
        assert asked == ["CONNECT 1.1"] * 10 and len(opened) == 10


async def test_a_chain_of_proxies_speaks_it_at_each_hop() -> None:
    async with proxy_over_tls() as (first, asked, _), proxy_over_tls() as (second, asked_second, _):
        one, two, target = first.partition("|")[0], second.partition("|")[0], second.partition("|")[2]
        inner = http.connect(one, connect=tls.connect(ca=ca_file()))
        async with inner, http.connect(two, connect=tls.connect(inner, ca=ca_file())) as connect:
            await spoken(connect, target, 10)
        assert asked == ["CONNECT 2"] and asked_second == ["CONNECT 2"] * 10


async def test_a_server_closes_what_its_stack_has_opened() -> None:
    async with proxy_over_tls() as (where, asked, _):
        proxy, _, target = where.partition("|")
        connect = http.connect(proxy, connect=tls.connect(ca=ca_file()))
        front = tcp.forward(target, connect=connect)
        assert find_resources(front) == [connect]
        async with serve(tcp.server("127.0.0.1:0", front)) as server:
            for _ in range(3):
                stream = await tcp.connect()(Target.parse(server.addresses[0]))
                await stream.write(b"hello")
                assert await stream.read() == b"hello"
                await stream.aclose()
            sharing = connect.sharing
            assert sharing is not None and sharing.sessions is not None and sharing.sessions.count == 1
        assert asked == ["CONNECT 2"] * 3 and cast(object, sharing.sessions) is None


def test_settings_that_cannot_work_are_errors_at_start() -> None:
    with pytest.raises(ConfigError, match="requires HTTP/2"):
        http.connect("h2c://proxy:80", http2=False)
    with pytest.raises(ConfigError, match="not an address"):
        http.connect("h2c://proxy")
    assert describe(http.connect("h2c://proxy:80")) == "http.connect(proxy:80) > tcp.connect()"

"""First connections, and what is not done in time: what a client does before it knows whom it speaks to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from typing import cast

import pytest

from llama import http, serve, stack, tcp, testing, tls
from llama._core.errors import OverloadedError, TLSError, UnreachableError
from llama._core.shutdown import Shutdown
from llama._core.stream import ConnectionHandler, Stream
from llama._core.target import Target
from llama.http import Request, Response
from llama.http._client.client import Client
from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import frame
from llama.http._messages.upgrade import UpgradedConnection
from llama.testing import memory_pair
from llama.testing._connect import serve_stream
from llama.tls import TLSInfo
from tests.http.h2.raw_client import talk_to
from tests.http.serving import client_of, hello
from tests.http.upstreams import OK, Upstream, answering, fetch, head_of
from tests.tls.sessions import pair_files

URL = "https://a.example/"


class Session:
    """A session of TLS that agreed on a protocol."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol

    def selected_alpn_protocol(self) -> str:
        return self.protocol


class Origin:
    """An origin as a connector: each connection waits to be let through, and says what was agreed on."""

    def __init__(self, protocol: str, handler: ConnectionHandler) -> None:
        self.protocol = protocol
        self.handler = handler
        self.opened: list[asyncio.Future[None]] = []
        self.owner = Shutdown.current()
        self.bugs: list[Exception] = []

    async def __call__(self, target: Target, /) -> Stream:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.opened.append(gate)
        await gate
        ours, theirs = memory_pair()
        session = cast(ssl.SSLObject, Session(self.protocol))
        ours.extensions.set(TLSInfo(session, "a.example"))
        if self.protocol == "h2":
            theirs.extensions.set(TLSInfo(session, "a.example"))
        self.owner.spawn(serve_stream(self.handler, theirs, self.bugs))
        return ours

    def let(self, number: int = -1) -> None:
        self.opened[number].set_result(None)

    @property
    def count(self) -> int:
        return len(self.opened)


@contextlib.asynccontextmanager
async def clients(protocol: str, **settings: float) -> AsyncGenerator[tuple[Origin, Client, testing.Clock]]:
    async with testing.clock() as clock, Shutdown():
        origin = Origin(protocol, stack(http.server(), hello) if protocol == "h2" else answering(OK))
        async with http.client(tls=origin, **settings) as client:  # type: ignore[arg-type]  # which of them is not said
            yield origin, client, clock


def asking(client: Client, group: asyncio.TaskGroup, count: int) -> list[asyncio.Task[bytes]]:
    return [group.create_task(fetch(client, Request("GET", URL))) for _ in range(count)]


async def test_all_who_ask_at_first_share_the_connection_of_the_first_one() -> None:
    async with clients("h2") as (origin, client, clock), asyncio.TaskGroup() as group:
        tasks = asking(client, group, 20)
        await clock.settle()
        assert origin.count == 1
        origin.let()
        assert [await each for each in tasks] == [b"hello"] * 20
        assert origin.count == 1


async def test_over_http_1_each_opens_its_own_once_that_is_known_and_waits_no_more_later() -> None:
    async with clients("http/1.1") as (origin, client, clock), asyncio.TaskGroup() as group:
        tasks = asking(client, group, 5)
        await clock.settle()
        assert origin.count == 1
        origin.let()
        await clock.settle()
        assert origin.count == 5
        for number in range(1, 5):
            origin.let(number)
        await asyncio.wait(tasks)
        await clock.advance(100)  # they were idle too long
        tasks = asking(client, group, 5)
        await clock.settle()
        assert origin.count == 10
        for number in range(5, 10):
            origin.let(number)


async def test_a_first_connection_that_is_slow_is_not_waited_for_for_long() -> None:
    async with clients("h2") as (origin, client, clock), asyncio.TaskGroup() as group:
        tasks = asking(client, group, 3)
        await clock.settle()
        assert origin.count == 1
        await clock.advance(1)
        assert origin.count == 3
        origin.let(1)  # one serves all who have not begun to connect themselves
        assert await tasks[1] == b"hello"
        later = asking(client, group, 3)
        assert [await each for each in later] == [b"hello"] * 3
        origin.let(0)
        origin.let(2)


@pytest.mark.parametrize("error", [ConnectionRefusedError(111, "refused"), TLSError("no", status=502)])
async def test_a_first_connection_that_fails_fails_for_all_who_wait_for_it(error: Exception) -> None:
    async with clients("h2") as (origin, client, clock), asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(client)) for _ in range(5)]
        await clock.settle()
        origin.opened[0].set_exception(error)
        told = [await each for each in tasks]
        assert origin.count == 1
        assert all(isinstance(each, UnreachableError | TLSError) and each.status == 502 for each in told)
        assert len({id(each) for each in told}) == 5
        again = asking(client, group, 1)
        await clock.settle()
        origin.let()
        assert await again[0] == b"hello"


async def outcome(client: Client, request: Request | None = None) -> BaseException:
    try:
        await client(request or Request("GET", URL))
    except Exception as error:
        return error
    raise AssertionError("it was answered")


async def test_where_the_first_one_is_given_up_the_next_opens_another() -> None:
    async with clients("h2") as (origin, client, clock), asyncio.TaskGroup() as group:
        tasks = asking(client, group, 3)
        await clock.settle()
        tasks[0].cancel()
        await clock.settle()
        assert origin.count == 2
        origin.let()
        assert [await each for each in tasks[1:]] == [b"hello"] * 2
        assert origin.count == 2


async def test_the_wait_for_anothers_connection_counts_for_pool_timeout() -> None:
    async with clients("h2", pool_timeout=0.5) as (origin, client, clock), asyncio.TaskGroup() as group:
        first = asking(client, group, 1)
        await clock.settle()
        late = group.create_task(outcome(client))
        await clock.settle()
        await clock.advance(0.5)
        error = await late
        assert isinstance(error, OverloadedError) and "within 0.5 s" in str(error)
        origin.let()
        assert await first[0] == b"hello"


async def test_so_does_the_wait_for_what_the_other_side_takes() -> None:
    async def silent(stream: Stream) -> None:
        while await stream.read():
            pass

    async with testing.clock() as clock, Shutdown():
        upstream = Upstream(silent)
        async with http.client(upstream, pool_timeout=3) as client, asyncio.TaskGroup() as group:
            first = group.create_task(client(Request("GET", "h2c://a/")))
            await clock.settle()
            late = group.create_task(outcome(client, Request("GET", "h2c://a/")))
            await clock.settle()
            await clock.advance(3)
            assert isinstance(await late, OverloadedError)
            assert upstream.opened == 1
            first.cancel()


async def test_over_real_tls_many_first_requests_open_one_connection() -> None:
    count = 0

    async def app(request: Request) -> Response:
        return Response(200, body=str(request.extensions.get(int)))

    async def counting(stream: Stream) -> None:
        nonlocal count
        count += 1
        await handler(stream)

    handler = stack(tls.server(*pair_files("localhost")), http.server(), app)
    async with (
        asyncio.timeout(20),
        serve(tcp.server("127.0.0.1:0", counting)) as server,
        http.client(tls=tls.connect(insecure=True)) as client,
        asyncio.TaskGroup() as group,
    ):
        url = f"https://{server.addresses[0]}/"
        tasks = [group.create_task(fetch(client, Request("GET", url))) for _ in range(30)]
        await asyncio.wait(tasks)
        assert count == 1


# what is not taken in time


class Deaf:
    """A server of HTTP/2 made of bytes: it greets, and reads only what it is told to."""

    def __init__(self, *greeting: bytes) -> None:
        self.greeting = b"".join(greeting)
        self.heard = b""
        self.asked = asyncio.Event()
        self.answer = b""

    async def __call__(self, stream: Stream) -> None:
        await stream.write(self.greeting)
        while data := await stream.read():
            self.heard += data
            self.asked.set()
            if self.answer:
                await stream.write(self.answer)
                self.answer = b""


NO_WINDOW = frames.settings({frames.INITIAL_WINDOW_SIZE: 0})
SETTINGS_ACK = frame(frames.SETTINGS, frames.ACK, 0)


async def test_a_stream_that_gets_no_window_times_out_and_the_others_go_on() -> None:
    async with testing.clock() as clock, Shutdown():
        deaf = Deaf(NO_WINDOW, SETTINGS_ACK)
        async with http.client(Upstream(deaf), write_timeout=5) as client, asyncio.TaskGroup() as group:
            first = group.create_task(client(Request("GET", "h2c://a/")))  # now it knows what it may send
            await clock.settle()
            stalled = group.create_task(outcome(client, Request("POST", "h2c://a/", (), b"x" * 1000)))
            await clock.settle()
            await clock.advance(3)
            other = group.create_task(client(Request("POST", "h2c://a/", (), b"y" * 10)))
            await clock.settle()
            deaf.answer = frames.window_update(5, 100)
            ping = group.create_task(client(Request("GET", "h2c://a/")))  # is heard, and so the window given
            await clock.settle()
            await clock.advance(2)
            error = await stalled
            assert isinstance(error, TimeoutError), error
            assert str(error) == "h2c://a:80 took nothing of a request for 5 s"
            assert frames.rst_stream(3, frames.CANCEL) in deaf.heard
            assert b"y" * 10 in deaf.heard
            for each in (first, other, ping):
                assert not each.done()
                each.cancel()


async def test_a_connection_that_gets_nothing_out_times_out() -> None:
    async with testing.clock() as clock, Shutdown():
        deaf = Deaf(NO_WINDOW, SETTINGS_ACK)
        async with http.client(Upstream(deaf), write_timeout=5) as client, asyncio.TaskGroup() as group:
            first = group.create_task(outcome(client, Request("GET", "h2c://a/")))
            await clock.settle()
            stalled = group.create_task(outcome(client, Request("POST", "h2c://a/", (), b"x" * 1000)))
            await clock.settle()
            await clock.advance(5)
            assert isinstance(await first, TimeoutError)
            assert str(await stalled) == "h2c://a:80: nothing could be sent for 5 s"
            await clock.settle()
            assert client.state.open().count == 0


async def test_a_tunnel_may_stall_for_as_long_as_it_likes() -> None:
    async with testing.clock() as clock, Shutdown():
        deaf = Deaf(NO_WINDOW, SETTINGS_ACK)
        async with http.client(Upstream(deaf), write_timeout=5) as client, asyncio.TaskGroup() as group:
            request = Request("CONNECT", "b:443")
            request.scheme = "h2c"
            deaf.answer = frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x88")
            response = await client(request)
            assert isinstance(response.upgrade, UpgradedConnection)
            writing = group.create_task(response.upgrade.stream.write(b"hello"))
            await clock.advance(100)
            assert not writing.done()
            deaf.answer = frames.window_update(1, 100)
            asked = group.create_task(
                client(Request("GET", "h2c://b:443/"))
            )  # is heard, and so the window given
            await writing
            await clock.settle()
            assert b"hello" in deaf.heard
            asked.cancel()
            await response.aclose()


@pytest.mark.parametrize("url", ["h2c://a/", "http://a/"])
@pytest.mark.parametrize("size", [60_000, 5_000_000])
async def test_who_does_not_read_what_is_sent_times_out(url: str, size: int) -> None:
    done = asyncio.Event()

    async def deaf(stream: Stream) -> None:
        if url.startswith("h2c"):
            large = frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 30})
            await stream.write(large + SETTINGS_ACK + frames.window_update(0, 1 << 30))
            await stream.read(100)
        await done.wait()

    async with testing.clock() as clock, Shutdown():
        upstream = Upstream(deaf, lambda: memory_pair(capacity=10_000))
        async with http.client(upstream, write_timeout=5) as client, asyncio.TaskGroup() as group:
            stalled = group.create_task(outcome(client, Request("POST", url, (), bytes(size))))
            await clock.settle()
            await clock.advance(4)
            assert not stalled.done()
            await clock.advance(2)
            error = await stalled
            done.set()
            assert isinstance(error, TimeoutError), error


async def test_who_reads_slowly_but_steadily_does_not_time_out() -> None:
    async with testing.clock(autojump=True), Shutdown():

        async def slow(stream: Stream) -> None:
            head = await head_of(stream)
            assert head.startswith(b"POST")
            left = 300_000
            while left:
                await asyncio.sleep(1)
                left -= len(await stream.read(30_000))
            await stream.write(OK)

        upstream = Upstream(slow, lambda: memory_pair(capacity=10_000))
        async with http.client(upstream, write_timeout=20) as client:
            assert await fetch(client, Request("POST", "http://a/", (), bytes(300_000))) == b"ok"


async def test_a_server_that_does_not_acknowledge_settings_is_left() -> None:
    async with testing.clock() as clock, Shutdown():
        deaf = Deaf(frames.settings({}))
        async with http.client(Upstream(deaf), write_timeout=5) as client, asyncio.TaskGroup() as group:
            asked = group.create_task(outcome(client, Request("GET", "h2c://a/")))
            await clock.settle()
            await clock.advance(5)
            assert str(await asked) == "h2c://a:80: SETTINGS were not acknowledged within 5 s"
            await clock.settle()
            assert b"SETTINGS were not acknowledged" in deaf.heard


async def test_a_client_that_does_not_acknowledge_settings_is_told() -> None:
    handler = stack(http.server(h2=http.H2Limits(settings_timeout=0.05)), hello)
    async with client_of(handler) as client:
        await client.say(frames.PREFACE + frames.settings({}))
        heard = await client.hear_end()
        assert frame(frames.GOAWAY, 0, 0, bytes(7) + b"\x04SETTINGS were not acknowledged") in heard


async def test_one_that_does_may_stay() -> None:
    handler = stack(http.server(h2=http.H2Limits(settings_timeout=5)), hello)
    async with testing.clock() as clock, talk_to(handler) as talk:
        await talk.settle()
        await clock.advance(6)
        stream = await talk.ask()
        assert await talk.body(stream) == b"hello"


# upgrades


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
async def test_an_upgrade_that_meets_a_connection_that_has_ended_goes_on_a_fresh_one(method: str) -> None:
    async def once(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(OK)
        head = await head_of(stream)  # what comes on a kept connection meets its end
        assert head.startswith(method.encode())

    async def switching(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
            if method == "GET"
            else b"HTTP/1.1 200 OK\r\n\r\n"
        )
        await stream.write(await stream.read())

    handlers = [switching, once]

    async def handler(stream: Stream) -> None:
        await handlers.pop()(stream)

    async with Shutdown():
        upstream = Upstream(handler)
        async with http.client(upstream) as client:
            await fetch(client, Request("GET", "http://b:80/"))
            request = Request(method, "http://b:80/" if method == "GET" else "b:80")
            if method == "GET":
                request.upgrade_protocol = "echo"
            response = await client(request)
            assert response.upgrade is not None
            assert upstream.opened == 2
            await response.aclose()

"""The client's HTTP/2: against servers that do as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from llama import http, serve, stack, tcp, testing, tls
from llama._core.errors import ProtocolError, TruncatedError
from llama._core.shutdown import Shutdown
from llama._core.stream import Stream
from llama._core.target import Target
from llama.http import Headers, Request, Response
from llama.http._client.client import Client
from llama.http._h1.client import NoResponseError
from llama.http._h2.client_stream import UnprocessedError
from llama.http._h2.wire import frames
from llama.http._limits import H2Limits
from llama.http._messages.upgrade import UpgradedConnection
from llama.testing import memory_pair
from llama.testing._connect import serve_stream
from tests.http.h2.wire.h2_pair import OK, Side
from tests.http.serving import echo, hello
from tests.tls.sessions import pair_files

URL = "h2c://a/"


class Server:
    """One connection that the client has opened, and what came on it."""

    def __init__(self, stream: Stream, limits: H2Limits) -> None:
        self.stream = stream
        self.side = Side(limits)
        self.ended = False

    async def flush(self) -> None:
        try:
            await self.stream.write(self.side.engine.take())
        except OSError:
            pass

    async def more(self) -> bool:
        try:
            data = await self.stream.read()
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return False
        self.side.engine.receive(data)
        await self.flush()
        return True

    async def hear(self, wanted: str) -> str:
        """The next line that begins like this; others are skipped."""
        while True:
            while self.side.lines:
                line = self.side.lines.pop(0)
                if line.startswith(wanted):
                    return line
            assert await self.more(), f"no {wanted!r} came"

    async def answer(self, id: int, body: bytes = b"", *more: tuple[str, str]) -> None:
        stream = self.side.streams[id]
        self.side.engine.send_head(stream, [*OK, *more], end=not body)
        if body:
            self.side.engine.send_data(stream, body, end=True)
        await self.flush()

    async def goaway(self, last: int) -> None:
        self.side.engine.goaway(frames.NO_ERROR, last)
        await self.flush()


class World:
    """A client whose every connection comes up here."""

    def __init__(self, limits: H2Limits) -> None:
        self.limits = limits
        self.servers: asyncio.Queue[Server] = asyncio.Queue()
        self.opened: list[Server] = []
        self.client: Client

    async def connect(self, target: Target) -> Stream:
        ours, theirs = memory_pair()
        server = Server(theirs, self.limits)
        self.opened.append(server)
        self.servers.put_nowait(server)
        return ours

    async def next(self) -> Server:
        server = await self.servers.get()
        await server.flush()
        return server


@asynccontextmanager
async def a_world(limits: H2Limits | None = None, **settings: float) -> AsyncGenerator[World]:
    world = World(limits or H2Limits())
    async with asyncio.timeout(10), http.client(world.connect, **settings) as client:  # type: ignore[arg-type]
        world.client = client
        yield world
        for each in world.opened:
            each.stream.abort()


def asking(
    world: World, group: asyncio.TaskGroup, method: str = "GET", url: str = URL, body: bytes = b""
) -> asyncio.Task[bytes]:
    """A request under way; its result is the response's body."""

    async def ask() -> bytes:
        response = await world.client(Request(method, url, (), body))
        return await response.body.read()

    return group.create_task(ask())


async def test_requests_share_a_connection() -> None:
    async with a_world() as world, asyncio.TaskGroup() as group:
        first = asking(world, group, url="h2c://a/1")
        server = await world.next()
        assert await server.hear("1 GET") == "1 GET http://a/1 end"
        second = asking(world, group, url="h2c://a/2")
        await server.hear("3 GET")
        await server.answer(3, b"two")
        assert await second == b"two"
        await server.answer(1, b"one")
        assert await first == b"one"
        assert len(world.opened) == 1


async def test_a_connection_opens_once_for_all_who_ask_at_first() -> None:
    async with a_world() as world, asyncio.TaskGroup() as group:
        asked = [asking(world, group) for _ in range(5)]
        server = await world.next()
        for id in range(1, 11, 2):
            await server.hear(f"{id} GET")
            await server.answer(id, b"x")
        assert [await each for each in asked] == [b"x"] * 5
        assert len(world.opened) == 1


async def test_more_connections_open_when_one_is_full() -> None:
    async with a_world(H2Limits(max_concurrent_streams=2)) as world, asyncio.TaskGroup() as group:
        asked = [asking(world, group)]
        one = await world.next()
        await one.hear("1 GET")
        asked += [asking(world, group) for _ in range(2)]
        two = await world.next()
        await one.hear("3 GET")
        await two.hear("1 GET")
        for server, id in ((one, 1), (one, 3), (two, 1)):
            await server.answer(id, b"x")
        assert [await each for each in asked] == [b"x"] * 3


async def test_within_the_pools_bound_requests_wait_for_room() -> None:
    async with (
        a_world(H2Limits(max_concurrent_streams=1), max_per_host=1) as world,
        asyncio.TaskGroup() as group,
    ):
        asked = [asking(world, group) for _ in range(3)]
        server = await world.next()
        for id in (1, 3, 5):
            await server.hear(f"{id} GET")
            assert len(server.side.engine.streams) == 1
            await server.answer(id, b"x")
        assert [await each for each in asked] == [b"x"] * 3
        assert len(world.opened) == 1


async def test_a_connection_that_is_to_be_left_finishes_what_it_has() -> None:
    async with a_world() as world, asyncio.TaskGroup() as group:
        first = asking(world, group)
        one = await world.next()
        await one.hear("1 GET")
        await one.goaway(1)
        for _ in range(20):
            await asyncio.sleep(0)
        second = asking(world, group)
        two = await world.next()
        await two.hear("1 GET")
        await two.answer(1, b"two")
        assert await second == b"two"
        await one.answer(1, b"one")
        assert await first == b"one"
        while await one.more():
            pass


@pytest.mark.parametrize("how", ["goaway", "refused"])
async def test_what_was_never_processed_is_sent_again_whatever_its_method(how: str) -> None:
    async with a_world() as world, asyncio.TaskGroup() as group:
        asked = asking(world, group, "POST", body=b"data")
        one = await world.next()
        await one.hear("1 POST")
        if how == "goaway":
            await one.goaway(0)
            two = await world.next()
        else:
            one.side.engine.reset(one.side.streams[1], frames.REFUSED_STREAM)
            await one.flush()
            two = one
        id = 3 if two is one else 1
        await two.hear(f"{id} POST")
        await two.hear(f"{id} data data")
        await two.answer(id, b"done")
        assert await asked == b"done"


async def test_a_request_that_is_always_refused_fails_in_the_end() -> None:
    async with a_world() as world, asyncio.TaskGroup() as group:
        asked = group.create_task(outcome(world.client(Request("GET", URL))))
        server = await world.next()
        for id in range(1, 23, 2):
            await server.hear(f"{id} GET")
            server.side.engine.reset(server.side.streams[id], frames.REFUSED_STREAM)
            await server.flush()
        assert isinstance(await asked, UnprocessedError)


async def outcome(request: Coroutine[object, object, object]) -> object:
    try:
        return await request
    except Exception as error:
        return error


async def test_a_reset_or_a_lost_connection_is_an_error_of_what_was_asked() -> None:
    for how, kind in (("reset", TruncatedError), ("abort", NoResponseError), ("malformed", ProtocolError)):
        async with a_world() as world, asyncio.TaskGroup() as group:
            asked = group.create_task(outcome(world.client(Request("POST", URL))))
            server = await world.next()
            await server.hear("1 POST")
            if how == "reset":
                server.side.engine.reset(server.side.streams[1], frames.INTERNAL_ERROR)
            elif how == "malformed":
                server.side.engine.send_head(server.side.streams[1], [(":status", "abc")], end=True)
            else:
                server.stream.abort()
            await server.flush()
            assert isinstance(await asked, kind), how


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_of_many_frames_is_whole(at_once: bool) -> None:
    parts = [bytes([number]) * 100 for number in range(100)]
    async with a_world() as world, asyncio.TaskGroup() as group:
        asked = asking(world, group)
        server = await world.next()
        await server.hear("1 GET")
        stream, engine = server.side.streams[1], server.side.engine
        engine.send_head(stream, OK, end=False)
        for part in parts:
            engine.send_data(stream, part, end=at_once and part is parts[-1])
        await server.flush()
        if not at_once:
            engine.send_data(stream, b"", end=True)
            await server.flush()
        assert await asked == b"".join(parts)


async def test_a_body_that_breaks_off_is_truncated() -> None:
    async with a_world() as world, asyncio.TaskGroup() as group:
        asked = group.create_task(outcome(world.client(Request("GET", URL))))
        server = await world.next()
        await server.hear("1 GET")
        stream = server.side.streams[1]
        server.side.engine.send_head(stream, OK, end=False)
        server.side.engine.send_data(stream, b"part", end=False)
        await server.flush()
        response = await asked
        assert isinstance(response, Response)
        assert await response.body.read_chunk() == b"part"
        server.side.engine.reset(stream, frames.INTERNAL_ERROR)
        await server.flush()
        with pytest.raises(TruncatedError):
            await response.body.read_chunk()


@pytest.mark.parametrize("how", ["close", "drop"])
async def test_a_response_that_is_not_wanted_resets_its_stream_and_frees_it(how: str) -> None:
    async with a_world() as world, asyncio.TaskGroup() as group:
        asked = group.create_task(world.client(Request("GET", URL)))
        server = await world.next()
        await server.hear("1 GET")
        server.side.engine.send_head(server.side.streams[1], OK, end=False)
        await server.flush()
        response = await asked
        del asked
        if how == "close":
            await response.aclose()
        del response
        assert await server.hear("1 reset") == "1 reset CANCEL by peer"
        again = asking(world, group)
        await server.hear("3 GET")
        await server.answer(3, b"x")
        assert await again == b"x"


async def test_a_cancelled_request_resets_its_stream() -> None:
    async with a_world() as world, asyncio.TaskGroup() as group:
        asked = asking(world, group)
        server = await world.next()
        await server.hear("1 GET")
        asked.cancel()
        assert await server.hear("1 reset") == "1 reset CANCEL by peer"


async def test_a_slow_response_times_out_and_the_connection_lives() -> None:
    async with a_world(response_header_timeout=0.05) as world, asyncio.TaskGroup() as group:
        asked = group.create_task(outcome(world.client(Request("GET", URL))))
        server = await world.next()
        await server.hear("1 GET")
        assert isinstance(await asked, TimeoutError)
        await server.hear("1 reset")
        again = asking(world, group)
        await server.hear("3 GET")
        await server.answer(3, b"x")
        assert await again == b"x"


async def test_a_slow_body_times_out() -> None:
    async with a_world(body_timeout=0.05) as world, asyncio.TaskGroup() as group:
        asked = group.create_task(world.client(Request("GET", URL)))
        server = await world.next()
        await server.hear("1 GET")
        server.side.engine.send_head(server.side.streams[1], OK, end=False)
        await server.flush()
        response = await asked
        with pytest.raises(TimeoutError):
            await response.body.read()
        await server.hear("1 reset")


async def test_an_idle_connection_is_closed_with_a_word() -> None:
    async with a_world(idle_timeout=0.05) as world, asyncio.TaskGroup() as group:
        asked = asking(world, group)
        server = await world.next()
        await server.hear("1 GET")
        await server.answer(1, b"x")
        assert await asked == b"x"
        assert (await server.hear("goaway")).endswith("NO_ERROR")
        while await server.more():
            pass


# against our own server


@asynccontextmanager
async def served(
    exchange: Callable[[Request], Coroutine[object, object, Response]],
) -> AsyncGenerator[Client]:
    """A client that reaches an exchange at h2c://a/, over sockets."""
    async with (
        serve(tcp.server("127.0.0.1:0", stack(http.server(), exchange))) as server,
        http.client(lambda target: tcp.connect()(Target.parse(server.addresses[0]))) as client,
    ):
        yield client


@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
async def test_bodies_of_any_size_go_up_and_come_back(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, size, 50_000):
            yield data[at : min(size, at + 50_000)]

    async with served(echo) as client:
        for body in (data[:size], chunks()):
            response = await client(Request("POST", URL, (), body))
            assert await response.body.read(10_000_000) == data[:size]


async def test_trailers_and_informational_responses_come_through() -> None:
    async def app(request: Request) -> Response:
        await request.send_informational(103, {"Link": "l"})
        body = await request.body.read()
        response = Response(200, body=[body])
        response.trailers = request.trailers
        return response

    async with served(app) as client:
        informed: list[int] = []

        async def inform(status: int, headers: Headers) -> None:
            informed.append(status)

        request = Request("POST", URL, (), [b"abc"])
        request._send_informational = inform
        request.trailers = Headers({"X-Sum": "3"})
        response = await client(request)
        assert await response.body.read() == b"abc"
        assert list(response.trailers or ()) == [("x-sum", "3")]
        assert informed == [103]


async def test_an_answer_before_the_request_has_ended_stops_the_upload() -> None:
    asked = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(10_000)

    async with served(hello) as client:
        response = await client(Request("POST", URL, (), chunks()))
        assert await response.body.read() == b"hello"
        before = asked
        response = await client(Request("GET", URL))
        assert await response.body.read() == b"hello"
        assert asked <= before + 1


async def test_what_fails_in_the_requests_body_is_the_error() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError("no more")

    async with served(echo) as client:
        with pytest.raises(ValueError, match="no more"):
            await (await client(Request("POST", URL, (), chunks()))).body.read()


async def test_over_tls_the_protocol_is_agreed_on() -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=request.version)

    handler = stack(tls.server(*pair_files("localhost")), http.server(), app)
    async with (
        serve(tcp.server("127.0.0.1:0", handler)) as server,
        http.client(tls=tls.connect(insecure=True)) as client,
    ):
        response = await client(Request("GET", f"https://{server.addresses[0]}/"))
        assert (response.version, await response.body.read()) == ("2", b"2")


async def test_slow_streams_do_not_hold_up_fast_ones() -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=bytes(2_000_000) if request.path == "/slow" else b"fast")

    async with served(app) as client:
        slow = [await client(Request("GET", "h2c://a/slow")) for _ in range(10)]  # whose bodies nobody reads
        for _ in range(50):
            response = await client(Request("GET", URL))
            assert await response.body.read() == b"fast"
        for each in slow:
            assert len(await each.body.read(10_000_000)) == 2_000_000


# tunnels


@asynccontextmanager
async def tunnel() -> AsyncGenerator[tuple[Stream, Stream]]:
    """The two ends of a CONNECT over HTTP/2, over memory."""
    there: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def take(stream: Stream) -> None:
        there.set_result(stream)
        await done.wait()

    async def app(request: Request) -> Response:
        return Response(200, upgrade=take)

    ours, theirs = memory_pair(capacity=10_000)

    async def connect(target: Target) -> Stream:
        return ours

    async with Shutdown() as shutdown:
        bugs: list[Exception] = []
        served = shutdown.spawn(serve_stream(stack(http.server(), app), theirs, bugs))
        async with http.client(connect) as client:
            request = Request("CONNECT", "b:443")
            request.scheme = "h2c"
            response = await client(request)
            assert response.status == 200 and isinstance(response.upgrade, UpgradedConnection)
            try:
                yield response.upgrade.stream, await there
            finally:
                done.set()
                await response.aclose()
        await served
        assert not bugs


@pytest.mark.parametrize("case", testing.stream_cases(bulk=6_000_000))
async def test_a_tunnel_is_a_stream_like_any_other(case: testing.StreamCase) -> None:
    await case(tunnel)


@asynccontextmanager
async def tunnel_back() -> AsyncGenerator[tuple[Stream, Stream]]:
    async with tunnel() as (one, two):
        yield two, one


@pytest.mark.parametrize("case", testing.stream_cases(bulk=6_000_000))
async def test_its_other_end_is_one_too(case: testing.StreamCase) -> None:
    await case(tunnel_back)

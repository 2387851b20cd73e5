"""The client's pool: what is kept, what is bounded, who waits for whom."""

import asyncio
import contextlib

import pytest

from llama import Stream, Target, testing
from llama._core.errors import ConfigError, OverloadedError, UnreachableError
from llama._core.resources import find_resources
from llama._core.shutdown import Shutdown
from llama.http import Request, Response, client
from llama.http._client.client import Client
from tests.http.upstreams import OK, Upstream, answering, fetch, get, head_of


def pool_of(fetcher: Client) -> tuple[int, int]:
    """Connections in all, and the idle ones among them."""
    pool = fetcher.state.open()
    return pool.count, len(pool.idle)


class Held:
    """An origin that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def __call__(self, stream: Stream) -> None:
        while True:
            try:
                await head_of(stream)
            except EOFError:
                return
            go = asyncio.Event()
            self.asked.put_nowait(go)
            await go.wait()
            await stream.write(OK)

    async def answer(self) -> None:
        (await self.asked.get()).set()


async def test_connections_are_reused_per_origin() -> None:
    upstream = Upstream(answering(OK))
    async with client(upstream) as fetcher:
        for url in ("http://a/", "http://b/", "http://a:80/x", "http://A/", "http://a:81/", "http://b/"):
            await fetch(fetcher, get(url))
        assert pool_of(fetcher) == (3, 3)
    assert [str(each) for each in upstream.targets] == ["a:80", "b:80", "a:81"]


async def test_idle_connections_are_limited_in_total_and_per_host() -> None:
    held = Held()
    async with (
        client(Upstream(held), max_idle=3, max_idle_per_host=2) as fetcher,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(fetch(fetcher, get("http://a/"))) for _ in range(4)]
        for _ in range(4):
            await held.answer()
        await asyncio.wait(tasks)
        assert pool_of(fetcher) == (2, 2)
        for host in ("b", "c"):
            task = group.create_task(fetch(fetcher, get(f"http://{host}/")))
            await held.answer()
            await task
        assert pool_of(fetcher) == (3, 3)
        assert [each.origin.target.host for each in fetcher.state.open().idle] == ["a", "b", "c"]


async def test_idle_connections_expire() -> None:
    async with testing.clock() as clock, client(Upstream(answering(OK)), idle_timeout=30) as fetcher:
        await fetch(fetcher)
        await clock.advance(29)
        assert pool_of(fetcher) == (1, 1)
        await clock.advance(6)
        assert pool_of(fetcher) == (0, 0)


async def test_idle_connections_closed_by_the_server_are_swept() -> None:
    upstream = Upstream(answering(OK))
    async with testing.clock() as clock, client(upstream) as fetcher:
        await fetch(fetcher)
        await upstream.streams[0].aclose()
        await clock.advance(5)
        assert pool_of(fetcher) == (0, 0)


async def test_requests_wait_in_order_at_the_limit_per_host() -> None:
    held = Held()
    upstream = Upstream(held)
    done: list[int] = []

    async def ask(number: int) -> None:
        await fetch(fetcher, get("http://a/"))
        done.append(number)

    async with (
        testing.clock() as clock,
        client(upstream, max_per_host=2) as fetcher,
        asyncio.TaskGroup() as group,
    ):
        for number in range(6):
            group.create_task(ask(number))
            await clock.settle()
        for _ in range(6):
            await held.answer()
            await clock.settle()
    assert done == [0, 1, 2, 3, 4, 5]
    assert upstream.opened == 2


async def test_the_total_limit_serves_the_longest_waiting_request_first() -> None:
    held = Held()
    upstream = Upstream(held)
    done: list[str] = []

    async def ask(host: str) -> None:
        await fetch(fetcher, get(f"http://{host}/"))
        done.append(host)

    async with (
        testing.clock() as clock,
        client(upstream, max_connections=1) as fetcher,
        asyncio.TaskGroup() as group,
    ):
        for host in ("a", "b", "c", "a"):
            group.create_task(ask(host))
            await clock.settle()
        for _ in range(4):
            await held.answer()
            await clock.settle()
    assert sorted(done) == ["a", "a", "b", "c"]
    assert len({*upstream.targets}) == 3


async def test_an_idle_connection_is_evicted_for_another_origin() -> None:
    async with client(Upstream(answering(OK)), max_connections=1) as fetcher:
        for host in ("a", "b", "a"):
            await fetch(fetcher, get(f"http://{host}/"))
        assert pool_of(fetcher) == (1, 1)


async def test_the_number_of_waiting_requests_is_limited() -> None:
    held = Held()
    async with (
        testing.clock() as clock,
        client(Upstream(held), max_per_host=1, max_waiting=1) as fetcher,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(2):
            group.create_task(fetch(fetcher))
            await clock.settle()
        with pytest.raises(OverloadedError) as raised:
            await fetcher(get())
        assert raised.value.status == 503 and raised.value.retry_after == 1
        for _ in range(2):
            await held.answer()


async def test_the_wait_for_a_connection_has_a_timeout() -> None:
    held = Held()
    async with (
        testing.clock() as clock,
        client(Upstream(held), max_per_host=1, pool_timeout=5) as fetcher,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(fetch(fetcher))
        await clock.settle()
        late = group.create_task(_error(fetcher))
        await clock.advance(5)
        assert isinstance(await late, OverloadedError)
        await held.answer()
        await clock.settle()
        assert pool_of(fetcher) == (1, 1)


async def _error(fetcher: Client) -> Exception | None:
    try:
        await fetcher(get())
    except Exception as error:
        return error
    return None


async def test_a_cancelled_wait_takes_no_connection() -> None:
    held = Held()
    async with (
        testing.clock() as clock,
        client(Upstream(held), max_per_host=1) as fetcher,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(fetch(fetcher))
        await clock.settle()
        gone = group.create_task(fetch(fetcher))
        await clock.settle()
        last = group.create_task(fetch(fetcher))
        await clock.settle()
        gone.cancel()
        await held.answer()
        await held.answer()
        assert await last == b"ok"
        await clock.settle()
        assert pool_of(fetcher) == (1, 1)


async def test_a_failed_connect_frees_its_slot() -> None:
    async def connect(target: Target) -> Stream:
        raise ConnectionRefusedError(111, "Connection refused")

    async with client(connect, max_connections=1) as fetcher:
        for _ in range(3):
            with pytest.raises(
                UnreachableError, match=r"cannot connect to http://a\.example:80: Connection refused"
            ):
                await fetcher(get())
        assert pool_of(fetcher) == (0, 0)
        assert not fetcher.state.open().origin_pools


async def test_random_requests_keep_limits_and_counts() -> None:
    """Requests that end in every way, at a pool that is always full."""

    async def origin(stream: Stream) -> None:
        turn = 0
        with contextlib.suppress(EOFError):
            while True:
                await head_of(stream)
                turn += 1
                await asyncio.sleep(turn % 3 * 0.001)
                if turn % 5 == 4:
                    return
                await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
                await asyncio.sleep(0.001)
                await stream.write(b"ok")

    async def ask(number: int) -> None:
        with contextlib.suppress(EOFError, TimeoutError, OSError):
            async with asyncio.timeout(0.002 if number % 7 == 0 else None):
                response = await fetcher(get(f"http://{'abc'[number % 3]}/"))
                assert fetcher.state.open().count <= 4
                if number % 4:
                    await response.body.read()
                else:
                    await response.aclose()

    bounded = client(Upstream(origin), max_connections=4, max_per_host=2)
    async with testing.clock(autojump=True) as clock, bounded as fetcher:
        async with asyncio.TaskGroup() as group:
            for number in range(300):
                group.create_task(ask(number))
        count, idle = pool_of(fetcher)
        assert count == idle <= 4
        assert sum(place.open for place in fetcher.state.open().origin_pools) == count
        await clock.advance(70)
        assert pool_of(fetcher) == (0, 0) and not fetcher.state.open().origin_pools


# where a pool begins and ends


async def test_run_finds_a_client_in_a_stack() -> None:
    upstream = Upstream(answering(OK))
    fetcher = client(upstream)

    async def app(request: Request) -> Response:
        return await fetcher(request)

    assert find_resources(app) == [fetcher]


async def test_exiting_the_client_closes_the_pool() -> None:
    upstream = Upstream(answering(OK))
    async with client(upstream) as fetcher:
        await fetch(fetcher)
    assert await upstream.streams[0].read() == b"" if not _is_closed(upstream.streams[0]) else True
    assert fetcher.state.pool is None


def _is_closed(stream: Stream) -> bool:
    return bool(getattr(stream, "_closed", False))


async def test_the_last_exit_closes_the_pool() -> None:
    fetcher = client(Upstream(answering(OK)))
    async with fetcher:
        async with fetcher:
            await fetch(fetcher)
        assert pool_of(fetcher) == (1, 1)
    assert fetcher.state.pool is None


async def test_the_shutdown_closes_a_client_that_was_not_entered() -> None:
    fetcher = client(Upstream(answering(OK)))
    async with Shutdown():
        await fetch(fetcher)
        assert pool_of(fetcher) == (1, 1)
    assert fetcher.state.pool is None


async def test_exiting_aborts_connections_in_use() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await stream.read()

    async with client(Upstream(origin)) as fetcher:
        response = await fetcher(get())
    with pytest.raises(OSError):
        await response.body.read()


@pytest.mark.parametrize(
    "settings", [{"response_header_timeout": 0}, {"max_per_host": 0}, {"max_idle": -1}, {"max_waiting": -1}]
)
def test_invalid_settings_are_rejected(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        client(**settings)  # type: ignore[arg-type]


def test_all_limits_are_set_by_default() -> None:
    bounds = client().settings
    assert (bounds.max_connections, bounds.max_per_host) == (16_384, 8_192)
    assert (bounds.max_idle, bounds.max_idle_per_host, bounds.max_waiting) == (1024, 256, 1024)
    assert client(max_connections=None, max_per_host=None).settings.max_connections is None

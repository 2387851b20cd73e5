"""Load balancing policies, retries and ejection of upstreams."""

import asyncio
from collections import Counter
from random import Random

import pytest

from llama import Stream, Target, testing
from llama._core.errors import TruncatedError, UnreachableError
from llama.http import Origin, Request, Response, client, reverse_proxy
from llama.http._messages.message import RequestHandler
from llama.http._messages.origin import split_url
from llama.http._proxy.balance import InFlight, LeastConnections, PowerOfTwoChoices, RoundRobin, Upstream
from tests.http.upstreams import OK, answering, get, head_of
from tests.http.upstreams import Upstream as Wire

URLS = ["http://a", "http://b", "http://c"]


def upstreams(*weights: float) -> list[Upstream]:
    return [Upstream(*split_url(url), weight) for url, weight in zip(URLS, weights, strict=False)]


def names(chosen: list[Upstream]) -> str:
    return "".join(each.origin.target.host for each in chosen)


async def test_upstreams_take_turns() -> None:
    balance = RoundRobin(upstreams(1, 1, 1))
    assert names([balance.next() for _ in range(6)]) == "abcabc"


async def test_round_robin_spreads_the_turns_of_a_heavier_upstream() -> None:
    balance = RoundRobin(upstreams(3, 1, 1))
    assert names([balance.next() for _ in range(10)]) == "abacaabaca"


async def test_least_connections_picks_the_least_busy_upstream() -> None:
    balance = LeastConnections(upstreams(1, 1, 2))
    turns: list[InFlight] = []
    chosen: list[Upstream] = []
    for _ in range(8):
        chosen.append(balance.next())
        turns.append(InFlight(chosen[-1]))
    assert Counter(names(chosen)) == {"a": 2, "b": 2, "c": 4}
    turns[[each.origin.target.host for each in chosen].index("b")].end()
    assert names([balance.next()]) == "b"


async def test_random_of_two_picks_the_less_busy_upstream() -> None:
    balance = PowerOfTwoChoices(upstreams(1, 1, 1), Random(1))
    balance.upstreams[0].active = 100
    counts = Counter(names([balance.next() for _ in range(300)]))
    assert counts["a"] == 0 and counts["b"] > 50 and counts["c"] > 50


async def test_a_garbage_collected_turn_has_ended() -> None:
    (upstream,) = upstreams(1)
    InFlight(upstream)
    turn = InFlight(upstream)
    assert upstream.active == 1
    turn.end()
    turn.end()
    del turn
    assert upstream.active == 0


async def test_an_upstream_that_fails_is_ejected_for_a_while() -> None:
    async with testing.clock() as clock:
        balance = RoundRobin(upstreams(1, 1))
        a = balance.upstreams[0]
        for _ in range(2):
            a.record_failure(OSError(), max_failures=2, ejection_time=10)
        assert names([balance.next() for _ in range(3)]) == "bbb"
        assert names([balance.next([balance.upstreams[1]])]) == "a"  # ejected, but used if there is no other
        await clock.advance(10)
        assert "a" in names([balance.next() for _ in range(2)])
        a.record_failure(
            OSError(), max_failures=2, ejection_time=10
        )  # one failure suffices after an ejection
        assert names([balance.next() for _ in range(3)]) == "bbb"
        a.record_success()
        assert "a" in names([balance.next() for _ in range(2)])


class World:
    """Upstreams by name, some of which fail with a given error."""

    def __init__(self, **failing: str) -> None:
        self.failing = failing
        self.asked: list[str] = []

    async def client(self, request: Request) -> Response:
        host = request.extensions[Origin].target.host
        self.asked.append(host)
        await asyncio.sleep(0)
        if self.failing.get(host) == "unreachable":
            raise UnreachableError(f"{host} is not there")
        return Response(body=host.encode())


async def test_a_request_is_retried_when_an_upstream_is_unreachable() -> None:
    world = World(a="unreachable")
    proxy = reverse_proxy(URLS, client=world.client)
    for _ in range(4):
        assert (await proxy(Request("POST", "/", {"Host": "x"}, body=[b"stream"]))).status == 200
    assert world.asked[:2] == ["a", "b"]


async def test_the_last_error_is_raised_after_the_allowed_retries() -> None:
    world = World(a="unreachable", b="unreachable", c="unreachable")
    for retries, asked in ((0, 1), (1, 2), (5, 3)):
        world.asked.clear()
        with pytest.raises(UnreachableError):
            await reverse_proxy(URLS, client=world.client, retries=retries)(get())
        assert len(world.asked) == asked


async def test_retries_stay_within_their_budget() -> None:
    world = World(a="unreachable", b="unreachable", c="unreachable")
    proxy = reverse_proxy(URLS, client=world.client, retry_budget=0.1)
    for _ in range(100):
        with pytest.raises(UnreachableError):
            await proxy(get())
    assert len(world.asked) <= 100 + 10 + 10


async def closing(stream: Stream) -> None:
    await head_of(stream)


@pytest.mark.parametrize(
    ("sent", "asked"),
    [
        (Request("GET", "http://x/"), ["a", "b"]),
        (Request("PUT", "http://x/", body=b"x"), ["a", "b"]),
        (Request("PUT", "http://x/", body=[b"x"]), ["a"]),
        (Request("POST", "http://x/", body=b"x"), ["a"]),
    ],
)
async def test_a_request_that_was_sent_is_retried_only_if_replayable(sent: Request, asked: list[str]) -> None:
    wires = {"a": Wire(closing), "b": Wire(answering(OK))}

    async def connect(target: Target) -> Stream:
        heard.append(target.host)
        return await wires[target.host](target)

    heard: list[str] = []
    async with client(connect) as fetcher:
        proxy: RequestHandler = reverse_proxy(["http://a", "http://b"], client=fetcher)
        if len(asked) == 2:
            assert (await proxy(sent)).status == 200
        else:
            with pytest.raises(TruncatedError):
                await proxy(sent)
    assert heard == asked


@pytest.mark.parametrize("policy", ["round_robin", "least_connections", "random_of_two"])
async def test_every_policy_uses_every_upstream(policy: str) -> None:
    world = World()
    proxy = reverse_proxy(URLS, client=world.client, balance=policy)  # type: ignore[arg-type]  # a str of those
    for _ in range(60):
        await (await proxy(get())).aclose()
    assert set(world.asked) == {"a", "b", "c"}

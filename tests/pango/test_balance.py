"""Several targets: in turn, and past those that cannot be reached."""

import logging

import pytest

from llama import Stream, Target, UnreachableError, tcp
from pango._target_balancer import EJECTION_TIME, RoundRobin, Upstream


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Fleet:
    """Targets a, b, c: connecting notes which was asked, and fails for those that are down."""

    def __init__(self, *names: str) -> None:
        self.clock = Clock()
        self.down: set[str] = set()
        self.asked: list[str] = []
        upstreams = [Upstream(name, Target(name, 1), self.connect, self.clock) for name in names]
        self.balance = RoundRobin(upstreams, tcp.relay())

    async def connect(self, target: Target) -> Stream:
        self.asked.append(target.host)
        if target.host in self.down:
            raise UnreachableError(f"cannot connect to {target}: ECONNREFUSED")
        return None  # type: ignore[return-value]  # nothing here uses it

    async def open(self) -> str:
        """Open one connection: the targets that were asked, in order."""
        self.asked.clear()
        await self.balance.connect(Target("a", 1))
        return " ".join(self.asked)


async def test_targets_take_turns() -> None:
    fleet = Fleet("a", "b", "c")
    assert [await fleet.open() for _ in range(4)] == ["a", "b", "c", "a"]


async def test_a_target_that_fails_is_passed_over_and_asked_last_for_a_while() -> None:
    fleet = Fleet("a", "b", "c")
    fleet.down = {"b"}
    assert [await fleet.open() for _ in range(6)] == ["a", "b c", "c", "a", "c", "c"]
    fleet.clock.now += EJECTION_TIME
    fleet.down.clear()
    assert [await fleet.open() for _ in range(3)] == ["a", "b", "c"]


async def test_when_all_rest_all_are_asked() -> None:
    fleet = Fleet("a", "b")
    fleet.down = {"a", "b"}
    with pytest.raises(UnreachableError):
        await fleet.open()
    fleet.down = {"a"}
    assert await fleet.open() == "b"


async def test_when_none_answers_each_one_says_why() -> None:
    fleet = Fleet("a", "b")
    fleet.down = {"a", "b"}
    with pytest.raises(UnreachableError) as caught:
        await fleet.open()
    assert str(caught.value) == (
        "none of 2 targets answers: cannot connect to a:1: ECONNREFUSED; cannot connect to b:1: ECONNREFUSED"
    )


async def test_a_failure_is_logged_once_and_the_return_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pango")
    fleet = Fleet("a", "b")
    fleet.down = {"a"}
    for _ in range(3):
        await fleet.open()
        fleet.clock.now += EJECTION_TIME
    fleet.down.clear()
    await fleet.open()
    await fleet.open()
    assert [record.getMessage() for record in caplog.records] == [
        "upstream a ejected for 10 s: cannot connect to a:1: ECONNREFUSED",
        "a answers again",
    ]


def test_it_shows_its_targets() -> None:
    assert repr(Fleet("a", "b").balance) == "round_robin(a, b)"

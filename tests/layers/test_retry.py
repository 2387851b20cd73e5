import asyncio
from random import Random

import pytest

from llama import ConfigError, OverloadedError, UnreachableError, describe, retry, testing
from tests.layers.calling import call


class Flaky:
    """Raises what it was given, one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.times: list[float] = []

    async def __call__(self, _: str) -> str:
        self.times.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    @property
    def waits(self) -> list[float]:
        return [round(after - before, 6) for before, after in zip(self.times, self.times[1:], strict=False)]


def down(count: int) -> list[Exception]:
    return [UnreachableError(f"down {number}") for number in range(1, count + 1)]


async def test_a_transient_failure_is_retried() -> None:
    flaky = Flaky(*down(2))
    async with testing.clock(autojump=True):
        assert await retry(3)(flaky)("x") == "done"
    assert len(flaky.times) == 3


async def test_the_last_failure_is_raised() -> None:
    flaky = Flaky(*down(5))
    async with testing.clock(autojump=True):
        with pytest.raises(UnreachableError, match="down 3"):
            await retry(3)(flaky)("x")


async def test_waits_double_up_to_the_longest() -> None:
    flaky = Flaky(*down(5))
    async with testing.clock(autojump=True):
        await retry(6, backoff=0.1, max_delay=0.5, jitter=0)(flaky)("x")
    assert flaky.waits == [0.1, 0.2, 0.4, 0.5, 0.5]


async def test_jitter_takes_a_random_part_away_and_can_be_repeated() -> None:
    async def waits(seed: int) -> list[float]:
        flaky = Flaky(*down(4))
        await retry(5, backoff=1, max_delay=1, jitter=0.5, random=Random(seed))(flaky)("x")
        return flaky.waits

    async with testing.clock(autojump=True):
        first, again, other = await waits(1), await waits(1), await waits(2)
    assert first == again != other
    assert all(0.5 <= wait <= 1 for wait in first) and len(set(first)) == 4


async def test_only_selected_exceptions_are_retried() -> None:
    refused = Flaky(ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await retry(3)(refused)("x")
    async with testing.clock(autojump=True):
        assert await retry(2, on=(OSError, ValueError))(Flaky(ConnectionResetError()))("x") == "done"
        assert await retry(2, on=ValueError)(Flaky(ValueError()))("x") == "done"
        assert (
            await retry(2, on=lambda error: "passes" in str(error))(Flaky(KeyError("passes")))("x") == "done"
        )
    with pytest.raises(KeyError, match="stays"):
        await retry(2, on=lambda error: "passes" in str(error))(Flaky(KeyError("stays")))("x")


async def test_retry_after_of_an_error_is_waited_for_up_to_longest() -> None:
    patient = Flaky(OverloadedError("full", retry_after=1.5))
    async with testing.clock(autojump=True):
        await retry(2, on=OverloadedError)(patient)("x")
    assert patient.waits == [1.5]
    with pytest.raises(OverloadedError):
        await retry(2, on=OverloadedError, max_delay=2)(Flaky(OverloadedError("full", retry_after=60)))("x")


async def test_retries_stay_a_share_of_the_calls() -> None:
    broken = Flaky(*down(10_000))
    service = retry(3, budget=0.1, reserve=5)(broken)
    async with testing.clock(autojump=True):
        for _ in range(1000):
            with pytest.raises(UnreachableError):
                await service("x")
    assert len(broken.times) == pytest.approx(1000 + 5 + 100, abs=2)


async def test_without_a_budget_each_call_has_all_its_attempts() -> None:
    broken = Flaky(*down(10_000))
    service = retry(3, budget=None)(broken)
    async with testing.clock(autojump=True):
        for _ in range(100):
            with pytest.raises(UnreachableError):
                await service("x")
    assert len(broken.times) == 300


async def test_a_cancelled_call_is_not_retried() -> None:
    calls: list[str] = []

    async def wait(name: str) -> None:
        calls.append(name)
        await asyncio.Event().wait()

    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        begun = group.create_task(call(retry(3, on=Exception)(wait), "x"))
        await clock.settle()
        begun.cancel()
    assert calls == ["x"]


def test_one_attempt_returns_the_service_unchanged() -> None:
    flaky = Flaky()
    assert retry(1)(flaky) is flaky


def test_its_repr_shows_its_settings() -> None:
    assert describe(retry(3)(Flaky())) == "retry(3) > Flaky"


@pytest.mark.parametrize(
    "settings",
    [{"attempts": 0}, {"jitter": 1.1}, {"backoff": -1}, {"max_delay": 0.01}, {"budget": -1}, {"reserve": -1}],
)
def test_invalid_numbers_are_rejected(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"expected"):
        retry(**settings)  # type: ignore[arg-type]

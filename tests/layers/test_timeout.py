import asyncio
import contextlib

import pytest

from llama import ConfigError, Service, Stream, describe, stack, testing, timeout
from tests.layers.calling import call


async def forever(_: object) -> None:
    await asyncio.Event().wait()


async def test_a_slow_call_raises_timeout_error_with_the_seconds() -> None:
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        begun = group.create_task(catch(timeout(5)(forever)))
        await clock.advance(4.9)
        assert not begun.done()
        await clock.advance(0.1)
    assert begun.result() == "it took longer than 5 s"


async def catch(service: Service[str, None], input: str = "x") -> str:
    with pytest.raises(TimeoutError) as caught:
        await service(input)
    return str(caught.value)


async def test_a_fast_call_returns_its_output() -> None:
    async def double(number: int) -> int:
        return 2 * number

    assert await timeout(5)(double)(21) == 42


async def test_a_timeout_error_of_the_service_keeps_its_message() -> None:
    async def times_out(_: object) -> None:
        raise TimeoutError("the upstream sleeps")

    assert await catch(timeout(5)(times_out)) == "the upstream sleeps"


async def test_a_cancellation_from_outside_stays_one() -> None:
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        begun = group.create_task(call(timeout(5)(forever), "x"))
        await clock.advance(1)
        begun.cancel()
    assert begun.cancelled()


def test_none_returns_the_service_unchanged() -> None:
    assert timeout(None)(forever) is forever


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_timeout_that_is_not_positive_is_rejected(seconds: float) -> None:
    with pytest.raises(ConfigError, match="expected more than 0 seconds"):
        timeout(seconds)


def test_its_repr_shows_its_settings() -> None:
    assert describe(stack(timeout(0.5), forever)) == "timeout(0.5) > forever"
    assert repr(timeout(5)) == "timeout(5)"


async def test_a_handler_is_ended_and_its_client_sees_the_end() -> None:
    async def silent(stream: Stream) -> None:
        await stream.read()

    async with testing.clock() as clock, testing.connect(stack(timeout(5), silent)) as stream:
        await clock.advance(5)
        assert await stream.read() == b""


async def test_each_call_has_its_own_deadline() -> None:
    ended: list[float] = []

    async def wait(service: Service[str, None]) -> None:
        with pytest.raises(TimeoutError):
            await service("x")
        ended.append(asyncio.get_running_loop().time())

    service = timeout(5)(forever)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        began = clock.time()
        for _ in range(3):
            group.create_task(wait(service))
            await clock.advance(1)
        await clock.advance(5)
    assert [round(time - began, 6) for time in ended] == [5, 6, 7]


async def test_a_call_after_a_pause_is_bounded_too() -> None:
    async def quick_or_never(name: str) -> None:
        if name == "never":
            await asyncio.Event().wait()

    service = timeout(5)(quick_or_never)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        await service("quick")
        await clock.advance(1000)
        begun = group.create_task(catch(service, "never"))
        await clock.advance(4.9)
        assert not begun.done()
        await clock.advance(0.1)
        assert begun.done()


@pytest.mark.parametrize(("outer", "inner", "said"), [(3, 5, "3 s"), (5, 3, "3 s"), (3, 3, "3 s")])
async def test_the_shorter_of_two_decides(outer: float, inner: float, said: str) -> None:
    async with testing.clock(autojump=True) as clock:
        began = clock.time()
        assert said in await catch(stack(timeout(outer), timeout(inner), forever))
        assert clock.time() - began == pytest.approx(3)


async def test_a_call_that_suppresses_its_cancellation_leaves_none_pending() -> None:
    async def stubborn(_: str) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "late"

    async with testing.clock(autojump=True):
        assert await timeout(5)(stubborn)("x") == "late"
        this = asyncio.current_task()
        assert this is not None and this.cancelling() == 0
        await asyncio.sleep(1)


async def test_a_cancellation_in_the_tick_of_the_timeout_wins() -> None:
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        begun = group.create_task(call(timeout(5)(forever), "x"))
        await clock.settle()
        asyncio.get_running_loop().call_later(5, begun.cancel)
        await clock.advance(5)
    assert begun.cancelled()


def test_one_service_works_in_one_loop_after_another() -> None:
    service = timeout(0.01)(forever)
    for _ in range(2):
        assert "0.01 s" in asyncio.run(catch(service))

import asyncio

import pytest

from llama import ConfigError, Service, Stream, describe, stack, testing, timeout
from tests.layers.calling import call


async def forever(_: object) -> None:
    await asyncio.Event().wait()


async def test_a_call_that_takes_too_long_ends_with_the_seconds_named() -> None:
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        begun = group.create_task(catch(timeout(5)(forever)))
        await clock.advance(4.9)
        assert not begun.done()
        await clock.advance(0.1)
    assert begun.result() == "it took longer than 5 s"


async def catch(service: Service[str, None]) -> str:
    with pytest.raises(TimeoutError) as caught:
        await service("x")
    return str(caught.value)


async def test_what_comes_in_time_passes() -> None:
    async def double(number: int) -> int:
        return 2 * number

    assert await timeout(5)(double)(21) == 42


async def test_the_services_own_timeout_keeps_its_words() -> None:
    async def times_out(_: object) -> None:
        raise TimeoutError("the upstream sleeps")

    assert await catch(timeout(5)(times_out)) == "the upstream sleeps"


async def test_a_cancellation_from_outside_stays_one() -> None:
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        begun = group.create_task(call(timeout(5)(forever), "x"))
        await clock.advance(1)
        begun.cancel()
    assert begun.cancelled()


def test_none_leaves_the_service_as_it_is() -> None:
    assert timeout(None)(forever) is forever


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_bound_that_nothing_can_meet_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="expected more than 0 seconds"):
        timeout(seconds)


def test_it_shows_its_spelling() -> None:
    assert describe(stack(timeout(0.5), forever)) == "timeout(0.5) > forever"
    assert repr(timeout(5)) == "timeout(5)"


async def test_a_handler_is_ended_and_its_client_sees_a_break() -> None:
    async def silent(stream: Stream) -> None:
        await stream.read()

    async with testing.clock() as clock, testing.connect(stack(timeout(5), silent)) as stream:
        await clock.advance(5)
        with pytest.raises(ConnectionResetError):
            await stream.read()

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from llama import ConfigError, OverloadedError, concurrency_limit, describe, testing
from llama.layers._fair_semaphore import FairSemaphore
from tests.layers.calling import call


class Desk:
    """A service whose calls end when they are told to."""

    def __init__(self) -> None:
        self.at_work: dict[str, asyncio.Future[str]] = {}
        self.order: list[str] = []

    async def __call__(self, name: str) -> str:
        self.order.append(name)
        self.at_work[name] = asyncio.get_running_loop().create_future()
        try:
            return await self.at_work[name]
        finally:
            del self.at_work[name]

    def finish(self, name: str) -> None:
        self.at_work[name].set_result(name)


async def test_one_more_than_the_limit_is_refused_with_503() -> None:
    desk = Desk()
    service = concurrency_limit(2, retry_after=7)(desk)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(call(service, name))
        await clock.settle()
        with pytest.raises(OverloadedError, match="2 calls run already") as caught:
            await service("c")
        assert (caught.value.status, caught.value.retry_after) == (503, 7)
        desk.finish("a")
        await clock.settle()
        group.create_task(call(service, "d"))
        await clock.settle()
        assert sorted(desk.at_work) == ["b", "d"]
        desk.finish("b")
        desk.finish("d")


async def test_a_queue_is_served_in_its_order_and_bounded() -> None:
    desk = Desk()
    service = concurrency_limit(1, queue=2)(desk)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(call(service, name))
        await clock.settle()
        with pytest.raises(OverloadedError, match="1 calls run and 2 wait already"):
            await service("d")
        for name in "abc":
            assert list(desk.at_work) == [name]
            desk.finish(name)
            await clock.settle()
    assert desk.order == ["a", "b", "c"]


async def test_an_unbounded_queue_refuses_no_call() -> None:
    desk = Desk()
    service = concurrency_limit(1, queue=None)(desk)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(call(service, str(number)))
        for number in range(100):
            await clock.settle()
            desk.finish(str(number))
    assert len(desk.order) == 100


async def test_a_failed_call_releases_its_slot() -> None:
    async def broken(_: str) -> None:
        raise ValueError("broken")

    service = concurrency_limit(1)(broken)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            await service("x")


async def test_a_cancelled_wait_leaves_the_queue() -> None:
    desk = Desk()
    service = concurrency_limit(1, queue=1)(desk)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        group.create_task(call(service, "a"))
        await clock.settle()
        leaving = group.create_task(call(service, "b"))
        await clock.settle()
        leaving.cancel()
        await clock.settle()
        group.create_task(call(service, "c"))
        await clock.settle()
        desk.finish("a")
        await clock.settle()
        desk.finish("c")
    assert desk.order == ["a", "c"]


async def test_a_place_that_comes_in_the_tick_of_a_cancellation_goes_to_the_next() -> None:
    slots = FairSemaphore(1)
    assert slots.acquire_nowait()
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        first = group.create_task(slots.acquire())
        second = group.create_task(slots.acquire())
        await clock.settle()
        slots.release()
        first.cancel()
        await clock.settle()
        assert first.cancelled() and second.done()
        third = group.create_task(slots.acquire())
        await clock.settle()
        third.cancel()
        slots.release()
        await clock.settle()
    assert (slots.free, slots.waiting) == (1, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_slots_are_never_lost_or_duplicated(seed: int) -> None:
    random = Random(seed)
    waiting: list[asyncio.Task[None]] = []
    slots, taken = FairSemaphore(3), 0
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        for _ in range(200):
            for _ in range(random.randint(1, 3)):  # several in one tick
                action = random.choice(("take", "release", "cancel"))
                if action == "take":
                    waiting.append(group.create_task(slots.acquire()))
                elif action == "release" and taken:
                    taken -= 1
                    slots.release()
                elif waiting:
                    random.choice(waiting).cancel()
                if random.random() < 0.5:
                    await asyncio.sleep(0)
            await clock.settle()
            taken += sum(task.done() and not task.cancelled() for task in waiting)
            waiting = [task for task in waiting if not task.done()]
            assert taken + slots.free == 3 and slots.waiting == len(waiting)
            assert not (slots.free and waiting)
        for task in waiting:
            task.cancel()


async def test_opening_wakes_everyone_and_takes_nothing() -> None:
    slots = FairSemaphore(1)
    assert slots.acquire_nowait()
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        gates = [group.create_task(slots.next_free()) for _ in range(3)]
        await clock.settle()
        gates.pop().cancel()
        slots.release()
        await clock.settle()
        assert all(gate.done() for gate in gates) and slots.free == 1


class Answer:
    """An output that ends later, as a response does with its body."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], object]] = []

    def on_close(self, callback: Callable[[], object], /) -> None:
        self.callbacks.append(callback)

    def close(self) -> None:
        for callback in self.callbacks:
            callback()


async def test_an_output_that_ends_later_keeps_its_slot_until_then() -> None:
    async def respond(_: str) -> Answer:
        return Answer()

    service = concurrency_limit(1)(respond)
    answer = await service("x")
    with pytest.raises(OverloadedError):
        await service("y")
    answer.close()
    (await service("z")).close()


async def test_each_service_counts_for_itself() -> None:
    desk, other, one = Desk(), Desk(), concurrency_limit(1)
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        group.create_task(call(one(desk), "a"))
        group.create_task(call(one(other), "b"))
        await clock.settle()
        desk.finish("a")
        other.finish("b")


def test_none_returns_the_service_unchanged() -> None:
    desk = Desk()
    assert concurrency_limit(None)(desk) is desk


def test_its_repr_shows_its_settings() -> None:
    assert describe(concurrency_limit(10)(Desk())) == "concurrency_limit(10) > Desk"
    assert repr(concurrency_limit(10, queue=5)) == "concurrency_limit(10, queue=5)"
    assert repr(concurrency_limit(10, queue=None)(Desk())) == "concurrency_limit(10, queue=None)"


@pytest.mark.parametrize(("concurrency", "queue"), [(0, 0), (1, -1)])
def test_invalid_numbers_are_rejected(concurrency: int, queue: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        concurrency_limit(concurrency, queue=queue)

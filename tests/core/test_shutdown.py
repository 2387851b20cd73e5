import asyncio
import gc
import logging
import sys

import pytest

from llama import Shutdown, testing
from tests import leaks


async def test_leaving_waits_for_the_last_task() -> None:
    log: list[str] = []

    async def work(name: str, gate: asyncio.Event) -> None:
        await gate.wait()
        log.append(name)

    first, second = asyncio.Event(), asyncio.Event()
    async with Shutdown() as shutdown:
        shutdown.spawn(work("first", first))
        shutdown.spawn(work("second", second))
        assert len(shutdown) == 2
        asyncio.get_running_loop().call_soon(second.set)
        asyncio.get_running_loop().call_later(0.01, first.set)
    assert log == ["second", "first"] and len(shutdown) == 0


async def test_tasks_that_are_spawned_while_draining_are_waited_for() -> None:
    log: list[str] = []

    async def chain(shutdown: Shutdown, depth: int) -> None:
        await asyncio.sleep(0)
        log.append(str(depth))
        if depth:
            shutdown.spawn(chain(shutdown, depth - 1))

    async with Shutdown() as shutdown:
        shutdown.spawn(chain(shutdown, 5))
    assert log == ["5", "4", "3", "2", "1", "0"]


async def test_stop_calls_back_once_and_leaves_tasks_alone() -> None:
    calls: list[str] = []
    gate = asyncio.Event()
    async with Shutdown() as shutdown:
        task = shutdown.spawn(gate.wait())
        shutdown.on_stop(lambda: calls.append("first"))
        taken_back = shutdown.on_stop(lambda: calls.append("never"))
        shutdown.on_stop(lambda: calls.append("second"))
        taken_back()
        taken_back()
        assert calls == []
        shutdown.stop()
        shutdown.stop()
        assert shutdown.stopping
        assert calls == ["first", "second"]
        assert not task.done()
        shutdown.on_stop(lambda: calls.append("late"))
        assert calls[2:] == ["late"]
        gate.set()


async def test_a_callback_can_be_unregistered_while_stopping() -> None:
    calls: list[str] = []
    async with Shutdown() as shutdown:

        def one() -> None:
            calls.append("one")
            back()

        shutdown.on_stop(one)
        back = shutdown.on_stop(lambda: calls.append("two"))
    assert calls[0] == "one"


async def test_drain_without_grace_waits_without_bound() -> None:
    async with testing.clock() as clock, Shutdown() as shutdown, asyncio.TaskGroup() as group:
        gate = asyncio.Event()
        shutdown.spawn(gate.wait())
        drained = group.create_task(shutdown.drain())
        await clock.advance(1e6)
        assert not drained.done()
        gate.set()
        assert await drained is True


async def test_drain_cancels_remaining_tasks_after_the_grace_period() -> None:
    async with testing.clock() as clock, Shutdown() as shutdown, asyncio.TaskGroup() as group:
        stuck = shutdown.spawn(asyncio.Event().wait())
        quick = shutdown.spawn(asyncio.sleep(2, "done"))
        drained = group.create_task(shutdown.drain(grace=5))
        await clock.advance(4.9)
        assert quick.result() == "done" and not drained.done()
        await clock.advance(0.2)
        assert stuck.cancelled()
        assert await drained is False


async def test_cancelled_tasks_may_clean_up() -> None:
    log: list[str] = []

    async def careful() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("cleaned")

    async with Shutdown() as shutdown:
        shutdown.spawn(careful())
        await asyncio.sleep(0)
        assert await shutdown.drain(grace=0) is False
    assert log == ["cleaned"]


async def test_cancel_ends_all_tasks_immediately() -> None:
    async with Shutdown() as shutdown:
        tasks = [shutdown.spawn(asyncio.Event().wait()) for _ in range(3)]
        await asyncio.sleep(0)
        shutdown.cancel()
        assert shutdown.stopping
    assert all(task.cancelled() for task in tasks)


async def test_a_cancelled_drain_cancels_the_tasks() -> None:
    async with Shutdown() as shutdown:
        task = shutdown.spawn(asyncio.Event().wait())
        async with asyncio.TaskGroup() as group:
            drain = group.create_task(shutdown.drain())
            await asyncio.sleep(0)
            drain.cancel()
    assert drain.cancelled() and task.cancelled()


async def test_an_exception_in_the_block_cancels_the_tasks() -> None:
    tasks: list[asyncio.Task[bool]] = []
    with pytest.raises(ValueError, match="in the block"):
        async with Shutdown() as shutdown:
            tasks.append(shutdown.spawn(asyncio.Event().wait()))
            await asyncio.sleep(0)
            raise ValueError("in the block")
    assert tasks[0].cancelled()


async def test_closers_run_after_the_tasks_last_first() -> None:
    log: list[str] = []

    async def close(name: str) -> None:
        log.append(f"close {name}")

    async def work() -> None:
        await asyncio.sleep(0)
        log.append("work")

    async with Shutdown() as shutdown:
        shutdown.on_close(lambda: close("first"))
        shutdown.on_close(lambda: close("second"))
        shutdown.spawn(work())
        shutdown.stop()
    assert log == ["work", "close second", "close first"]


async def test_a_failing_closer_is_logged_and_the_others_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[str] = []

    async def fails() -> None:
        raise OSError("stuck")

    async def close() -> None:
        log.append("closed")

    async with Shutdown() as shutdown:
        shutdown.on_close(close)
        shutdown.on_close(fails)
    assert log == ["closed"]
    assert "stuck" in caplog.text


async def test_a_closer_registered_while_closing_runs_too() -> None:
    log: list[str] = []

    async with Shutdown() as shutdown:

        async def close() -> None:
            log.append("first")
            shutdown.on_close(again)

        async def again() -> None:
            log.append("again")

        shutdown.on_close(close)
    assert log == ["first", "again"]


async def test_the_current_shutdown_is_that_of_the_innermost_block() -> None:
    outer = Shutdown.current()  # each test runs in one
    async with Shutdown() as inner:
        assert Shutdown.current() is inner

        async def look() -> Shutdown:
            return Shutdown.current()

        assert await inner.spawn(look()) is inner
    assert Shutdown.current() is outer


def test_without_a_shutdown_current_raises() -> None:
    async def look() -> None:
        with pytest.raises(RuntimeError, match="no llama server runs here"):
            Shutdown.current()

    asyncio.run(look())


async def test_a_failing_task_does_not_affect_others(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("alone")

    async with Shutdown() as shutdown:
        bad = shutdown.spawn(fails())
        good = shutdown.spawn(asyncio.sleep(0, "fine"))
    assert isinstance(bad.exception(), ValueError)
    assert good.result() == "fine"


def test_an_exception_that_is_never_retrieved_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("nobody looks")

    async def main() -> None:
        async with Shutdown() as shutdown:
            shutdown.spawn(fails(), name="the one that fails")

    with leaks.complaints(), caplog.at_level(logging.ERROR):
        asyncio.run(main())
        gc.collect()
    assert "nobody looks" in caplog.text or "never retrieved" in caplog.text


async def test_an_eager_task_is_owned_and_is_the_current_task() -> None:
    gate = asyncio.Event()
    seen: list[asyncio.Task[object] | None] = []

    async def work() -> str:
        seen.append(asyncio.current_task())
        await gate.wait()
        return "done"

    mine = asyncio.current_task()
    async with Shutdown() as shutdown:
        task = shutdown.spawn(work(), eager=True)
        assert asyncio.current_task() is mine and len(shutdown) == 1
        gate.set()
    assert task.result() == "done" and seen == [task] and len(shutdown) == 0


async def test_an_eager_task_that_never_waits_is_released() -> None:
    async def work() -> str:
        return "done"

    async with Shutdown() as shutdown:
        task = shutdown.spawn(work(), eager=True)
        if sys.version_info >= (3, 12):
            assert task.done() and len(shutdown) == 0
    assert task.result() == "done" and len(shutdown) == 0

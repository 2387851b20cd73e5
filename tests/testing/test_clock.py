import asyncio
import socket
import time
from collections.abc import Callable

import pytest

from llama import Stream, Target, serve, tcp, testing
from llama.tcp._io.event_loop import new_event_loop


async def test_time_stands_still_until_it_is_advanced() -> None:
    loop = asyncio.get_running_loop()
    async with testing.clock() as clock:
        before = clock.time()
        await asyncio.sleep(0)
        assert loop.time() == before
        await clock.advance(5)
        assert loop.time() == clock.time() == before + 5


async def test_timers_fire_in_their_order_and_at_their_times() -> None:
    fired: list[tuple[str, float]] = []
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        start = clock.time()

        async def wait(name: str, *delays: float) -> None:
            for delay in delays:
                await asyncio.sleep(delay)
                fired.append((name, round(clock.time() - start, 6)))

        group.create_task(wait("two", 2, 2))
        group.create_task(wait("three", 3, 3))
        await clock.advance(4)
        assert fired == [("two", 2), ("three", 3), ("two", 4)]
        await clock.advance(1.9)
        assert len(fired) == 3
        await clock.advance(0.1)
    assert fired[3:] == [("three", 6)]


async def test_a_timeout_of_an_hour_takes_no_time() -> None:
    started = time.perf_counter()
    async with testing.clock(autojump=True) as clock:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        before = clock.time()
        await asyncio.sleep(100 * 86400)
        assert clock.time() == pytest.approx(before + 100 * 86400)
    assert time.perf_counter() - started < 5


async def test_with_autojump_what_is_ready_comes_before_any_timer() -> None:
    loop = asyncio.get_running_loop()
    one, two = socket.socketpair()
    with one, two:
        one.setblocking(False)
        two.setblocking(False)
        async with testing.clock(autojump=True), asyncio.timeout(0.001):
            for _ in range(100):
                await loop.sock_sendall(one, b"x")
                assert await loop.sock_recv(two, 1) == b"x"


async def test_advance_waits_until_everything_waits_again() -> None:
    steps: list[int] = []
    async with testing.clock() as clock, asyncio.TaskGroup() as group:

        async def work() -> None:
            await asyncio.sleep(1)
            for step in range(50):
                await asyncio.sleep(0)
                steps.append(step)

        group.create_task(work())
        await clock.advance(1)
        assert len(steps) == 50


async def test_settle_lets_run_what_can_run_now() -> None:
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(1))
        before = clock.time()
        await clock.settle()
        assert clock.time() == before and not task.done()
        await clock.advance(1)
        assert task.done()


async def test_concurrent_advances_are_an_error() -> None:
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        group.create_task(clock.advance(1))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already advancing the clock"):
            await clock.advance(1)


async def test_time_does_not_go_back() -> None:
    async with testing.clock() as clock:
        with pytest.raises(ValueError, match="does not go back"):
            await clock.advance(-1)


async def test_the_loops_time_never_goes_back_and_runs_on_afterwards() -> None:
    loop = asyncio.get_running_loop()
    async with testing.clock() as clock:
        await clock.advance(1000)
        last = loop.time()
    now = loop.time()
    assert last <= now < last + 5
    await asyncio.sleep(0.01)
    assert loop.time() >= now + 0.009


async def test_a_clock_can_be_held_again_but_not_twice_at_once() -> None:
    async with testing.clock():
        with pytest.raises(RuntimeError, match="fake clock already"):
            async with testing.clock():
                pass
    async with testing.clock() as clock:
        await clock.advance(1)


async def test_a_cancelled_advance_leaves_the_clock_usable() -> None:
    async with testing.clock() as clock, asyncio.TaskGroup() as group:
        task = group.create_task(clock.advance(1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await clock.advance(1)


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, new_event_loop])
def test_it_supports_every_loop_that_is_tested(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        async with testing.clock(autojump=True) as clock, serve(late, listen="127.0.0.1:0") as server:
            stream = await tcp.connect()(Target("127.0.0.1", server.port))
            before = clock.time()
            assert await stream.read() == b"a day later"
            assert clock.time() == pytest.approx(before + 86400)
            await stream.aclose()

    async def late(stream: Stream) -> None:
        await asyncio.sleep(86400)
        await stream.write(b"a day later")

    started = time.perf_counter()
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert time.perf_counter() - started < 5

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from llama import Service, Stream, Target, layer, serve, stack, tcp, testing
from llama._core.resources import enter_resources, find_resources


class Pool:
    """A service that owns something."""

    def __init__(self, name: str = "pool", log: list[str] | None = None) -> None:
        self.name = name
        self.log = [] if log is None else log

    async def __call__(self, stream: Stream) -> None:
        self.log.append(f"call {self.name}")

    async def __aenter__(self) -> "Pool":
        self.log.append(f"enter {self.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.log.append(f"leave {self.name}")

    async def method(self, stream: Stream) -> None:
        await self(stream)


@dataclass(frozen=True, slots=True, eq=False)
class Around:
    inner: Any
    also: Any = None

    async def __call__(self, stream: Stream) -> None:
        await self.inner(stream)


@dataclass(frozen=True, slots=True, eq=False)
class OwningData:
    inner: Any
    name: str
    log: list[str]

    async def __call__(self, stream: Stream) -> None:
        await self.inner(stream)

    async def __aenter__(self) -> None:
        self.log.append(f"enter {self.name}")

    async def __aexit__(self, *_: object) -> None:
        self.log.append(f"leave {self.name}")


def closure(pool: Pool) -> Any:
    async def handler(stream: Stream) -> None:
        await pool(stream)

    return handler


def defaults(pool: Pool) -> Any:
    async def handler(stream: Stream, pool: Pool = pool) -> None:
        await pool(stream)

    return handler


def keyword_defaults(pool: Pool) -> Any:
    async def handler(stream: Stream, *, pool: Pool = pool) -> None:
        await pool(stream)

    return handler


def wrapped(pool: Pool) -> Any:
    @layer
    async def watch(stream: Stream, inner: Service[Stream, None]) -> None:
        await inner(stream)

    return stack(watch, pool)


async def call(pool: Pool, stream: Any) -> None:
    await pool(stream)


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda pool: pool,
    "a field": lambda pool: Around(pool),
    "a field that is not inner": lambda pool: Around(None, pool),
    "a list": lambda pool: Around(None, [pool]),
    "a tuple": lambda pool: Around(None, (pool,)),
    "a set": lambda pool: Around(None, {pool}),
    "the values of a mapping": lambda pool: Around(None, {"a.example": pool}),
    "containers in containers": lambda pool: Around(None, {"a": [({"b": (pool,)},)]}),
    "an argument of a partial": lambda pool: partial(call, pool),
    "a keyword of a partial": lambda pool: partial(call, stream=None, pool=pool),
    "the function of a partial": lambda pool: partial(pool),
    "a bound method": lambda pool: pool.method,
    "a closure": closure,
    "a default argument": defaults,
    "a default of a keyword-only argument": keyword_defaults,
    "a layer function's stack": wrapped,
    "tcp.forward's connector": lambda pool: tcp.forward("127.0.0.1:1", connect=pool),
    "a service of a server": lambda pool: tcp.server("127.0.0.1:0", Around(pool)).service,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_resource_is_found_in(holder: str) -> None:
    pool = Pool()
    assert find_resources(HOLDERS[holder](pool)) == [pool]


def test_a_resource_that_is_held_twice_is_found_once() -> None:
    pool = Pool()
    assert find_resources(Around(pool, pool), pool, [pool, closure(pool)]) == [pool]


def test_two_equal_resources_are_found_separately() -> None:
    class Alike(Pool):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Alike)

        def __hash__(self) -> int:
            return 1

    first, second = Alike("first"), Alike("second")
    found = find_resources(Around(first, second))
    assert len(found) == 2 and any(each is first for each in found) and any(each is second for each in found)


def test_a_reference_cycle_is_searched_once() -> None:
    @dataclass(eq=False)
    class Node:
        others: list[Any] = field(default_factory=list)

        async def __call__(self, stream: Stream) -> None:
            pass

    one, pool = Node(), Pool()
    one.others += [one, Node([one, pool])]
    assert find_resources(one) == [pool]


def test_a_lock_is_not_a_service() -> None:
    assert (
        find_resources(Around(Pool().method, [asyncio.Lock(), asyncio.Semaphore(), threading.Lock()]))[1:]
        == []
    )


def test_a_class_is_not_entered() -> None:
    assert find_resources(Around(Pool)) == []


def test_a_very_long_chain_does_not_recurse() -> None:
    pool = Pool()
    service: Any = pool
    for _ in range(5000):
        service = Around(service)
    assert find_resources(service) == [pool]


async def test_inner_resources_are_entered_first_and_exited_last() -> None:
    log: list[str] = []
    chain = OwningData(Around(OwningData(Pool("inner", log), "middle", log)), "outer", log)
    async with AsyncExitStack() as exits:
        await enter_resources(exits, chain)
        assert log == ["enter inner", "enter middle", "enter outer"]
    assert log[3:] == ["leave outer", "leave middle", "leave inner"]


async def test_when_one_resource_fails_to_enter_the_earlier_ones_are_exited() -> None:
    log: list[str] = []

    class Fails(OwningData):
        async def __aenter__(self) -> None:
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        async with AsyncExitStack() as exits:
            await enter_resources(exits, OwningData(Fails(Pool("inner", log), "bad", log), "outer", log))
    assert log == ["enter inner", "leave inner"]


async def test_serve_exits_resources_after_the_last_connection() -> None:
    log: list[str] = []
    inside, finish = asyncio.Event(), asyncio.Event()

    class Slow(Pool):
        async def __call__(self, stream: Stream) -> None:
            inside.set()
            await finish.wait()
            self.log.append("connection ends")

    async with serve(Slow("slow", log), listen="127.0.0.1:0") as server:
        connection = await tcp.connect()(Target("127.0.0.1", server.port))
        await inside.wait()
        asyncio.get_running_loop().call_soon(finish.set)
    await connection.aclose()
    assert log == ["enter slow", "connection ends", "leave slow"]


async def test_testing_connect_enters_resources_too() -> None:
    log: list[str] = []
    async with testing.connect(Around(Pool("pool", log))) as stream:
        assert await stream.read() == b""
    assert log == ["enter pool", "call pool", "leave pool"]

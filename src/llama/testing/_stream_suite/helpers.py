"""Helpers shared by the conformance cases."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from llama._core.errors import StreamClosedError, TruncatedError
from llama._core.stream import Stream

T = TypeVar("T")

MakePair: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Stream, Stream]]]
"""Opens two connected streams, and closes them when the block ends."""

BREAK = (OSError, TruncatedError)
BULK = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamCase:
    """One requirement for every Stream: `await case(make_pair)`."""

    function: Callable[[MakePair, int], Awaitable[None]]
    bulk: int

    @property
    def __name__(self) -> str:
        return self.function.__name__  # shown by pytest

    async def __call__(self, make_pair: MakePair, /) -> None:
        await self.function(make_pair, self.bulk)

    def __repr__(self) -> str:
        return f"<case {self.__name__}>"


async def spin(count: int = 20) -> None:
    """Yield to the loop until all ready callbacks, and those that they schedule, have run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def exactly(stream: Stream, count: int) -> bytes:
    """Read exactly `size` bytes."""
    parts: list[bytes] = []
    while count:
        data = await stream.read(min(count, 65536))
        assert data, f"the end came with {count} bytes still to come"
        assert len(data) <= count, f"a read of at most {count} bytes gave {len(data)}"
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


async def everything(stream: Stream) -> bytes:
    """Read to the end of the stream."""
    parts: list[bytes] = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def digest(stream: Stream) -> tuple[int, str]:
    """Read to the end of the stream; return the number of bytes and their hash."""
    seen, count = hashlib.sha256(), 0
    while data := await stream.read(262144):
        seen.update(data)
        count += len(data)
    return count, seen.hexdigest()


def bulk(size: int, seed: int = 1) -> bytes:
    """Return bytes that reveal lost, duplicated and reordered pieces."""
    block = b"".join(number.to_bytes(4, "big") for number in range(seed, seed + 4099))
    return (block * (size // len(block) + 1))[:size]


async def outcome(awaitable: Awaitable[T]) -> T | Exception:
    """Await and return the result, or the exception as a value."""
    try:
        return await awaitable
    except Exception as error:
        return error


def closed(result: object) -> bool:
    return isinstance(result, StreamClosedError)


def broken(result: object) -> bool:
    """Return whether this outcome reports the peer's reset."""
    return isinstance(result, BREAK) and not isinstance(result, (StreamClosedError, TimeoutError))


async def pending(
    group: asyncio.TaskGroup, call: Coroutine[Any, Any, T], count: int = 20
) -> asyncio.Task[T | Exception]:
    """Start a call and check that it waits."""
    task = group.create_task(outcome(call))
    await spin(count)
    assert not task.done(), f"{call!r} was expected to wait, and ended with {task.result()!r}"
    return task

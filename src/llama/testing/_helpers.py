"""What the cases and helpers have in common."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from llama._errors import Closed, Truncated
from llama._stream import Stream

T = TypeVar("T")

MakePair: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Stream, Stream]]]
"""Opens two connected streams, and closes them when the block ends."""

BREAK = (OSError, Truncated)
BULK = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamCase:
    """One thing that every Stream must do: `await case(make_pair)`."""

    function: Callable[[MakePair, int], Awaitable[None]]
    bulk: int

    @property
    def __name__(self) -> str:
        return self.function.__name__  # what pytest shows

    async def __call__(self, make_pair: MakePair, /) -> None:
        await self.function(make_pair, self.bulk)

    def __repr__(self) -> str:
        return f"<case {self.__name__}>"


async def rounds(count: int = 20) -> None:
    """Let the loop go round: enough for everything that is due, and for what that sets off."""
    for _ in range(count):
        await asyncio.sleep(0)


async def exactly(stream: Stream, count: int) -> bytes:
    """So many bytes, read in as many pieces as they come."""
    parts: list[bytes] = []
    while count:
        data = await stream.read(min(count, 65536))
        assert data, f"the end came with {count} bytes still to come"
        assert len(data) <= count, f"a read of at most {count} bytes gave {len(data)}"
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


async def everything(stream: Stream) -> bytes:
    """All bytes up to the end."""
    parts: list[bytes] = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def digest(stream: Stream) -> tuple[int, str]:
    """How many bytes come up to the end, and their hash."""
    seen, count = hashlib.sha256(), 0
    while data := await stream.read(262144):
        seen.update(data)
        count += len(data)
    return count, seen.hexdigest()


def bulk(size: int, seed: int = 1) -> bytes:
    """Bytes in which a piece that is lost, doubled or out of its place shows."""
    block = b"".join(number.to_bytes(4, "big") for number in range(seed, seed + 4099))
    return (block * (size // len(block) + 1))[:size]


async def outcome(awaitable: Awaitable[T]) -> T | Exception:
    """The result, or the exception as a value."""
    try:
        return await awaitable
    except Exception as error:
        return error


def closed(result: object) -> bool:
    return isinstance(result, Closed)


def broken(result: object) -> bool:
    """Whether this is how the other side's break shows."""
    return isinstance(result, BREAK) and not isinstance(result, (Closed, TimeoutError))


async def pending(
    group: asyncio.TaskGroup, call: Coroutine[Any, Any, T], count: int = 20
) -> asyncio.Task[T | Exception]:
    """A call that waits: started, and still not done when the loop has gone round."""
    task = group.create_task(outcome(call))
    await rounds(count)
    assert not task.done(), f"{call!r} was expected to wait, and ended with {task.result()!r}"
    return task

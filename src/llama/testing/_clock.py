"""A fake clock that tests advance."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

Events = list[tuple[selectors.SelectorKey, int]]


class _Selector(Protocol):
    def select(self, timeout: float | None = None) -> Events: ...


class Clock:
    """The fake time of the running loop: it changes only by `advance` and, with autojump, while the loop is idle.

    Everything that uses the loop's time follows it: `asyncio.timeout`, `asyncio.sleep`, `call_later`;
    `time.monotonic` and other threads do not. The loop is idle when no callback is due and no descriptor is ready:
    work in other threads, such as the resolver's, and in other processes is not considered.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, autojump: bool) -> None:
        self._real_time = loop.time
        self._now = loop.time()
        self._real_select = _selector(loop).select
        self._autojump = autojump
        self._target: float | None = None
        self._arrived: asyncio.Future[None] | None = None

    def time(self) -> float:
        """Return the current time of the loop, in seconds."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Advance the time by `seconds`, timer by timer; returns when the loop is idle again.

        0 runs only what is ready now.
        """
        if self._arrived is not None:
            raise RuntimeError("another task is already advancing the clock")
        if seconds < 0:
            raise ValueError(f"{seconds} s: time does not go back")
        self._target = self._now + seconds
        self._arrived = asyncio.get_running_loop().create_future()
        try:
            await self._arrived
        finally:
            self._target = self._arrived = None

    async def settle(self) -> None:
        """Run everything that is ready now."""
        await self.advance(0)

    def _select(self, timeout: float | None = None) -> Events:
        """Poll for events; advance the time instead of waiting."""
        moving = self._target is not None
        if timeout is not None and timeout <= 0:
            return self._real_select(0)
        if not moving and not (self._autojump and timeout is not None):
            return self._real_select(None)
        events = self._real_select(0)
        if not events:
            self._pass(timeout)
        return events

    def _pass(self, timeout: float | None) -> None:
        if self._target is None or self._arrived is None:
            assert timeout is not None
            self._now += timeout
        elif timeout is not None and self._now + timeout <= self._target:
            self._now += timeout
        else:
            self._now = self._target
            if not self._arrived.done():
                self._arrived.set_result(None)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """Continue at real speed from the current fake time, so that the loop's time never goes back."""
        ahead = self._now - self._real_time()
        real_time = self._real_time
        _patch(loop, "time", lambda: real_time() + ahead)
        _patch(_selector(loop), "select", self._real_select)


@asynccontextmanager
async def clock(*, autojump: bool = False) -> AsyncGenerator[Clock]:
    """Replace the running loop's clock within the block: `async with testing.clock() as clock:`.

    With `autojump`, time jumps to the next timer whenever the loop is idle. Raises RuntimeError for a loop that is
    not asyncio's own, or that has a fake clock already.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop) or not hasattr(loop, "_selector"):
        raise RuntimeError(
            f"{type(loop).__name__} has its clock to itself: the fake clock needs asyncio's own loop"
        )
    if isinstance(getattr(loop.time, "__self__", None), Clock):
        raise RuntimeError("this loop has a fake clock already")
    held = Clock(loop, autojump=autojump)
    _patch(loop, "time", held.time)
    _patch(_selector(loop), "select", held._select)
    try:
        yield held
    finally:
        held._leave(loop)


def _selector(loop: asyncio.AbstractEventLoop) -> _Selector:
    return cast("_Selector", cast("Any", loop)._selector)


def _patch(owner: object, name: str, value: Callable[..., object]) -> None:
    setattr(owner, name, value)

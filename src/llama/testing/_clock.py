"""A clock that a test moves by hand."""

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
    """The time of the running loop: it stands still but for `advance` and, with autojump, while all wait.

    What uses the loop's time follows it: `asyncio.timeout`, `asyncio.sleep`, `call_later`. `time.monotonic`
    and other threads do not. All wait when no callback is due and no descriptor is ready: a thread at work,
    such as the resolver's, or another process is not seen.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, autojump: bool) -> None:
        self._real_time = loop.time
        self._now = loop.time()
        self._real_select = _selector(loop).select
        self._autojump = autojump
        self._target: float | None = None
        self._arrived: asyncio.Future[None] | None = None

    def time(self) -> float:
        """Now, in the loop's seconds."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass, timer by timer; returns when everything that came of it waits again.

        0 lets everything run that can run now.
        """
        if self._arrived is not None:
            raise RuntimeError("the clock is being advanced already")
        if seconds < 0:
            raise ValueError(f"{seconds} s: time does not go back")
        self._target = self._now + seconds
        self._arrived = asyncio.get_running_loop().create_future()
        try:
            await self._arrived
        finally:
            self._target = self._arrived = None

    async def settle(self) -> None:
        """Let everything run that can run now."""
        await self.advance(0)

    def _select(self, timeout: float | None = None) -> Events:
        """The loop asks for events: when it would wait, time passes instead."""
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
        """Go on from here at the real pace: the loop's time never goes back."""
        ahead = self._now - self._real_time()
        real_time = self._real_time
        _patch(loop, "time", lambda: real_time() + ahead)
        _patch(_selector(loop), "select", self._real_select)


@asynccontextmanager
async def clock(*, autojump: bool = False) -> AsyncGenerator[Clock]:
    """Hold the running loop's clock within the block: `async with testing.clock() as clock:`.

    With `autojump` time jumps to the next timer whenever everything waits. Raises RuntimeError on a loop that
    is not asyncio's own, or whose clock is held already.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop) or not hasattr(loop, "_selector"):
        raise RuntimeError(
            f"{type(loop).__name__} has its clock to itself: the fake clock needs asyncio's own loop"
        )
    if isinstance(getattr(loop.time, "__self__", None), Clock):
        raise RuntimeError("the clock of this loop is held already")
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

"""Deadlines of many calls, with one timer for all of them: `asyncio.timeout` makes one for each call."""

from __future__ import annotations

import asyncio


class Bound:
    """Cancels the running task's call once, and tells that cancellation from others."""

    __slots__ = ("_cancelling", "_task", "deadline", "expired")

    def __init__(self, deadline: float = 0.0) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is bounded within a task only")
        self._task = task
        self._cancelling = task.cancelling()
        self.deadline = deadline
        self.expired = False

    def expire(self) -> None:
        """Cancel the call."""
        self.expired = True
        self._task.cancel()

    def is_over(self) -> bool:
        """Whether a cancellation that arrives is this bound's own, and nobody else's besides; ask once."""
        if not self.expired:
            return False
        self.expired = False
        return self._task.uncancel() <= self._cancelling

    def leave(self) -> None:
        """The call is over, by whatever."""
        if self.expired:  # the call kept the cancellation to itself
            self._task.uncancel()


class Deadlines:
    """Calls that each have as many seconds, so that the first to begin is the first to be late."""

    __slots__ = ("_calls", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._calls: dict[Bound, None] = {}

    def begin(self) -> Bound:
        """A call begins in the running task."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._timer, self._calls = loop, None, {}
        call = Bound(loop.time() + self._seconds)
        self._calls[call] = None
        if self._timer is None:
            self._timer = loop.call_at(call.deadline, self._look, loop)
        return call

    def end(self, call: Bound) -> None:
        """It is over. The timer stays, for the next ones."""
        self._calls.pop(call, None)
        call.leave()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        self._timer = None
        now = loop.time()
        late: list[Bound] = []
        for call in self._calls:
            if call.deadline > now:
                self._timer = loop.call_at(call.deadline, self._look, loop)
                break
            late.append(call)
        for call in late:
            del self._calls[call]
            call.expire()

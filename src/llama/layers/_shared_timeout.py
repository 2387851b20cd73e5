"""Deadlines of many calls with a single timer; `asyncio.timeout` would create one timer for each call."""

from __future__ import annotations

import asyncio


class DeadlineScope:
    """Cancels the running task's call once, and distinguishes that cancellation from others."""

    __slots__ = ("_cancelling", "_task", "deadline", "expired")

    def __init__(self, deadline: float = 0.0) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("timeout() requires a running task")
        self._task = task
        self._cancelling = task.cancelling()
        self.deadline = deadline
        self.expired = False

    def expire(self) -> None:
        """Cancel the call."""
        self.expired = True
        self._task.cancel()

    def consume_cancellation(self) -> bool:
        """Return whether this bound alone caused a received cancellation; call it once per cancellation."""
        if not self.expired:
            return False
        self.expired = False
        return self._task.uncancel() <= self._cancelling

    def exit(self) -> None:
        """Note that the call has ended, for any reason."""
        if self.expired:  # the call suppressed the cancellation
            self._task.uncancel()


class SharedTimeout:
    """Calls with the same timeout, so that the first to begin is the first to expire."""

    __slots__ = ("_calls", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._calls: dict[DeadlineScope, None] = {}

    def enter(self) -> DeadlineScope:
        """Begin a call in the running task."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._timer, self._calls = loop, None, {}
        call = DeadlineScope(loop.time() + self._seconds)
        self._calls[call] = None
        if self._timer is None:
            self._timer = loop.call_at(call.deadline, self._check, loop)
        return call

    def exit(self, call: DeadlineScope) -> None:
        """End a call. The timer keeps running for later calls."""
        self._calls.pop(call, None)
        call.exit()

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        self._timer = None
        now = loop.time()
        late: list[DeadlineScope] = []
        for call in self._calls:
            if call.deadline > now:
                self._timer = loop.call_at(call.deadline, self._check, loop)
                break
            late.append(call)
        for call in late:
            del self._calls[call]
            call.expire()

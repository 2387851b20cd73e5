"""A semaphore with a first in, first out queue."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class FairSemaphore:
    """A fixed number of slots. While any task waits, no slot is free."""

    __slots__ = ("_gates", "_waiting", "count", "free")

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = count
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._gates: list[asyncio.Future[None]] = []

    @property
    def waiting(self) -> int:
        """The number of tasks that wait for a slot."""
        return len(self._waiting)

    def acquire_nowait(self) -> bool:
        """Take a slot; return False if none is free."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def acquire(self) -> None:
        """Wait for a slot and take it. A cancelled wait takes none."""
        if self.acquire_nowait():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        if self.acquire_nowait():  # creating the future may have collected garbage that released a slot
            del self._waiting[turn]
            return
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                self._waiting.pop(turn, None)
            else:  # the slot was granted in the same tick as the cancellation
                self.release()
            raise

    def release(self) -> None:
        """Release a slot, to the task that has waited longest if there is one."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
        for gate in self._gates:
            if not gate.done():
                gate.set_result(None)

    async def next_free(self) -> None:
        """Wait until a slot is free, without taking it; wakes all waiting tasks."""
        while not self.free:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            try:
                await gate
            finally:
                self._gates.remove(gate)

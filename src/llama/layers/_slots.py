"""A count of slots that are taken and given back: first come, first served."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class Slots:
    """So many at once. A free slot means that nobody waits for one."""

    __slots__ = ("_gates", "_waiting", "count", "free")

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = count
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._gates: list[asyncio.Future[None]] = []

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def take_nowait(self) -> bool:
        """Take a slot, if one is free."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def take(self) -> None:
        """Take a slot, in turn. A wait that is cancelled takes none."""
        if self.take_nowait():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        if self.take_nowait():  # garbage that was collected just now has given its slot back
            del self._waiting[turn]
            return
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                self._waiting.pop(turn, None)
            else:  # the slot came in the very tick of the cancellation
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back: to who waits longest, if anyone does."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
        for gate in self._gates:
            if not gate.done():
                gate.set_result(None)

    async def opening(self) -> None:
        """Return when a slot is free, without taking it; everyone who waits here returns."""
        while not self.free:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            try:
                await gate
            finally:
                self._gates.remove(gate)

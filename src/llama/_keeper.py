"""Resources that several generations of servers share: entered once, left after the last of them."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from llama._resources import resources
from llama._shutdown import Shutdown


class Keeper:
    """Holds each resource open for as long as a generation uses it, however many do."""

    def __init__(self) -> None:
        self._shutdown = Shutdown()
        self._held: dict[int, _Held] = {}

    async def enter(self, exits: AsyncExitStack, *services: object) -> None:
        """Enter what these services own and nobody has entered; the exit stack gives it back."""
        for each in resources(*services):
            held = self._held.get(id(each))
            if held is None:
                held = self._held[id(each)] = _Held(each, self._shutdown)
            held.users += 1
            exits.push_async_callback(self._give_back, held)
            await asyncio.shield(held.entered)

    async def _give_back(self, held: _Held) -> None:
        held.users -= 1
        if not held.users:
            del self._held[id(held.resource)]
            await held.leave()


class _Held:
    """One resource, entered and left by a task of its own: generations come and go in theirs."""

    def __init__(self, resource: AbstractAsyncContextManager[object], shutdown: Shutdown) -> None:
        self.resource = resource
        self.users = 0
        self.entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unused = asyncio.Event()
        self._task = shutdown.spawn(self._hold(), name=f"holds {resource!r}")

    async def _hold(self) -> None:
        try:
            async with self.resource:
                self.entered.set_result(None)
                await self._unused.wait()
        except BaseException as error:
            if self.entered.done():
                raise
            self.entered.set_exception(error)
            self.entered.exception()  # whoever waited may be gone

    async def leave(self) -> None:
        """Leave it; raises what that raises."""
        self._unused.set()
        if not self.entered.done():
            self._task.cancel()
        await self._task

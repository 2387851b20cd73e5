"""Resources shared by several generations of servers: entered once, exited after the last generation."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from llama._core.resources import find_resources
from llama._core.shutdown import Shutdown


class SharedResources:
    """Holds each resource open as long as at least one generation uses it."""

    def __init__(self) -> None:
        self._shutdown = Shutdown()
        self._held: dict[int, _SharedResource] = {}

    async def enter_shared(self, exits: AsyncExitStack, *services: object) -> None:
        """Enter the resources of these services that are not entered yet; the exit stack releases them."""
        for each in find_resources(*services):
            held = self._held.get(id(each))
            if held is None:
                held = self._held[id(each)] = _SharedResource(each, self._shutdown)
            held.users += 1
            exits.push_async_callback(self._release, held)
            await asyncio.shield(held.entered)

    async def _release(self, held: _SharedResource) -> None:
        held.users -= 1
        if not held.users:
            del self._held[id(held.resource)]
            await held.close()


class _SharedResource:
    """One resource, entered and exited by a dedicated task, because each generation runs in its own task."""

    def __init__(self, resource: AbstractAsyncContextManager[object], shutdown: Shutdown) -> None:
        self.resource = resource
        self.users = 0
        self.entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unused = asyncio.Event()
        self._task = shutdown.spawn(self._run(), name=f"holds {resource!r}")

    async def _run(self) -> None:
        try:
            async with self.resource:
                self.entered.set_result(None)
                await self._unused.wait()
        except BaseException as error:
            if self.entered.done():
                raise
            self.entered.set_exception(error)
            self.entered.exception()  # the waiting generation may have ended; mark the exception as retrieved

    async def close(self) -> None:
        """Exit the resource; raises what its exit raises."""
        self._unused.set()
        if not self.entered.done():
            self._task.cancel()
        await self._task

"""One generation of servers: it opens their resources, serves, and drains until the last connection ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from llama._core.resources import enter_resources as enter_resources
from llama._core.shutdown import Shutdown
from llama._runtime.listeners import STREAM, Listener, close

log = logging.getLogger("llama.server")


class ResourceEnterer(Protocol):
    """Enters the resources of services and registers their exits with the exit stack."""

    async def __call__(self, exits: AsyncExitStack, *services: object) -> None: ...


class ServerGroup:
    """Running servers with their own Shutdown; owns their sockets and closes them."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        grace: float | None = None,
        enter: ResourceEnterer = enter_resources,
    ) -> None:
        self.listeners = listeners
        self._enter = enter
        self.shutdown = Shutdown()
        self._grace = grace
        self._serving: dict[Listener, asyncio.Task[None]] = {}
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False
        self._failure: BaseException | None = None
        self.addresses = tuple(address for each in listeners for address in each.addresses())
        """The bound addresses; they remain after `stop`."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Serve while the block runs; leaving it waits for open connections, at most for the grace period.

        An exception in the block cancels all tasks. Raises the error of a server that failed.
        """
        async with AsyncExitStack() as exits:
            exits.callback(close, self.listeners)
            await self._enter(exits, *(each.server.service for each in self.listeners))
            async with self.shutdown:
                for each in self.listeners:
                    self._serve(each)
                await asyncio.sleep(0)
                # Runs after the servers' own callbacks, which accept the connections in the kernel's queue.
                self.shutdown.on_stop(self._close_streams)
                self.shutdown.on_stop(self._stopped.set)
                yield
                if not await self.shutdown.drain(self._grace):
                    log.warning(
                        "the grace period of %g seconds expired: cancelled the remaining connections",
                        self._grace,
                    )
        if self._failure is not None:
            raise self._failure

    def _serve(self, listener: Listener) -> None:
        server = listener.server
        task = self.shutdown.spawn(server.serve(listener.sockets, self.shutdown), name=repr(server))
        self._serving[listener] = task
        task.add_done_callback(self._on_server_done)

    def _on_server_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self.shutdown.stop()

    def _close_streams(self) -> None:
        # A datagram socket carries its connections itself, so it is closed after the last of them.
        for each in self.listeners:
            each.close((STREAM,))

    async def run(self, on_started: Callable[[], object]) -> None:
        """Serve until `stop`, then drain; call `on_started` when the servers listen."""
        self._task = asyncio.current_task()
        if self._cancelled:
            raise asyncio.CancelledError
        async with self.running():
            on_started()
            await self.wait_stopped()
            if left := self.connections():
                log.info("draining, connections left: %d", left, extra={"llama.connections": left})
        log.info("drained: the last connection has ended")

    def connections(self) -> int:
        """The number of tasks, without those of the servers themselves."""
        return len(self.shutdown) - sum(not task.done() for task in self._serving.values())

    @property
    def is_running(self) -> bool:
        """Whether the generation listens or drains; before that, it opens resources."""
        return bool(self._serving)

    def stop(self) -> None:
        """Stop accepting, and drain."""
        if self.is_running:
            self.shutdown.stop()
        else:
            self.cancel()

    def cancel(self) -> None:
        """Cancel `run` and all that it runs."""
        self._cancelled = True
        if self._task is not None:
            self._task.cancel()

    def hand_off(self, taken: Iterable[Listener]) -> None:
        """Stop, but leave the queued connections to the generation that took over these listeners."""
        waiting = {self._serving[each] for each in taken if each in self._serving}

        def ended(task: asyncio.Task[None]) -> None:
            waiting.discard(task)
            if not waiting:
                self.stop()

        for each in tuple(waiting):
            each.add_done_callback(ended)
            each.cancel()
        if not waiting:
            self.stop()

    async def wait_stopped(self) -> None:
        """Return when the generation accepts no more connections."""
        await self._stopped.wait()

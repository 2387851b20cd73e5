"""Serving in this process: signals, and generations of servers on one loop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from llama._core.shutdown import Shutdown
from llama._runtime.listeners import Listener, close, listen
from llama._runtime.server_group import ServerGroup
from llama._runtime.servers_source import ServersSource
from llama._runtime.shared_resources import SharedResources
from llama._runtime.signals import SIGHUP, restore_default_handlers, signal_handlers
from llama._runtime.systemd import Notifier

log = logging.getLogger("llama.server")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Process:
    """Runs the generations that a plan builds, one after another, until SIGTERM or SIGINT."""

    def __init__(
        self, plan: ServersSource, grace: float | None, on_ready: Callable[[tuple[str, ...]], object] | None
    ) -> None:
        self._plan = plan
        self._grace = grace
        self._on_ready = on_ready
        self._notifier = Notifier()
        self._root = Shutdown()
        self._shared_resources = SharedResources()
        self._groups: set[ServerGroup] = set()
        self._failure: BaseException | None = None
        self._stopping = self._reload_wanted = False
        self._wake = asyncio.Event()

    async def main(self) -> None:
        """Start, reload at each SIGHUP, stop at SIGTERM or SIGINT; returns after the last connection."""
        callbacks: dict[int, Callable[[], object]] = dict.fromkeys(STOP_SIGNALS, self._on_sigterm)
        if SIGHUP is not None:
            callbacks[SIGHUP] = self._on_sighup
        with signal_handlers(callbacks):
            try:
                await self._serve()
            except BaseException:
                self._root.cancel()
                raise
            finally:
                await self._root.drain()
        if self._failure is not None:
            raise self._failure
        log.info("stopped")

    async def _serve(self) -> None:
        current = await self._start(listen(self._plan.build()))
        if current is None:
            return
        addresses = current.addresses
        log.info("listening on %s", ", ".join(addresses))
        if self._on_ready is not None:
            self._on_ready(addresses)
        self._notifier.ready()
        while await self._wait_for_reload():
            self._notifier.reloading()
            current = await self._reload(current)
            self._notifier.ready()

    async def _start(self, listeners: list[Listener]) -> ServerGroup | None:
        """Return a listening generation; None if it was stopped earlier. Raises the error of a failed start."""
        generation = ServerGroup(listeners, self._grace, self._shared_resources.enter_shared)
        started: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._groups.add(generation)
        self._root.spawn(self._run(generation, started))
        return generation if await started else None

    async def _run(self, generation: ServerGroup, started: asyncio.Future[bool]) -> None:
        try:
            await generation.run(lambda: started.set_result(True))
        except Exception as error:
            if not started.done():
                started.set_exception(error)
            else:
                self._fail(error)
        finally:
            self._groups.discard(generation)
            close(generation.listeners)
            if not started.done():
                started.set_result(False)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._stop()

    async def _wait_for_reload(self) -> bool:
        while not self._stopping:
            if self._reload_wanted:
                self._reload_wanted = False
                return True
            self._wake.clear()
            await self._wake.wait()
        return False

    async def _reload(self, current: ServerGroup) -> ServerGroup:
        """Return the next generation once it listens, or the current one if the reload failed."""
        try:
            listeners = listen(self._plan.build(), current.listeners)
            generation = await self._start(listeners)
        except Exception as error:
            log.error(
                "reload failed, the current configuration stays active: %s: %s", type(error).__name__, error
            )
            return current
        if generation is None:
            return current
        taken = [each.inherited_from for each in listeners if each.inherited_from is not None]
        for each in listeners:
            each.adopt_path()
        current.hand_off(taken)
        await current.wait_stopped()
        log.info("reloaded, listening on %s", ", ".join(generation.addresses))
        return generation

    def _on_sighup(self) -> None:
        if self._plan.is_reloadable:
            self._reload_wanted = True
            self._wake.set()
        else:
            log.info("SIGHUP ignored: run() was not given a function that builds the servers")
            self._notifier.reload_skipped()

    def _on_sigterm(self) -> None:
        if self._stopping:
            log.warning("second signal: exiting immediately")
            restore_default_handlers(*STOP_SIGNALS)
            self._root.cancel()
            return
        self._notifier.stopping()
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()
        for each in tuple(self._groups):
            each.stop()

"""The lifespan of an ASGI application: one task from entry to exit."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from llama._asgi.types import Application, ASGIProtocolError, Event, Scope
from llama._core.errors import LlamaError
from llama._core.shutdown import Shutdown

log = logging.getLogger("llama.server")


class Lifespan:
    """Starts and stops an application; does nothing for one without lifespan support."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.state: dict[str, Any] = {}
        """The application's lifespan state; each request gets a shallow copy."""
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[str] = loop.create_future()
        self._stop = asyncio.Event()
        self._stopped: asyncio.Future[str] = loop.create_future()
        self._task: asyncio.Task[None] | None = None
        self._asked = False

    async def start(self) -> None:
        """Wait until the application has started; raises LlamaError if it reports a failure."""
        self._task = Shutdown().spawn(self._run(), name="asgi lifespan")
        failure = await self._started
        if failure:
            await self._task
            raise LlamaError(f"the application failed to start: {failure}")

    async def stop(self) -> None:
        """Send the shutdown event and wait until the application has handled it."""
        if self._task is None or self._task.done():
            return
        self._stop.set()
        if failure := await self._stopped:
            log.error("the application failed to stop: %s", failure)
        await self._task

    async def _run(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._application(scope, self._receive, self._send)
        except Exception as error:
            self._failed(error)
        finally:
            for waiter in (self._started, self._stopped):
                if not waiter.done():
                    waiter.set_result("")

    def _failed(self, error: Exception) -> None:
        if not self._started.done():
            # By the specification, an application without lifespan support raises.
            log.debug("the application has no lifespan: %r", error)
        elif not self._started.result():
            log.error("the application's lifespan failed", exc_info=error)

    async def _receive(self) -> Event:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Event) -> None:
        phase, _, outcome = message["type"].removeprefix("lifespan.").partition(".")
        waiter = {"startup": self._started, "shutdown": self._stopped}.get(phase)
        if waiter is None or waiter.done() or outcome not in ("complete", "failed"):
            raise ASGIProtocolError(message["type"], "out of turn")
        waiter.set_result("" if outcome == "complete" else str(message.get("message") or "no reason given"))

"""A server in a separate thread, so that tests may block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager

from llama._runtime.serve import Serving

PATIENCE = 30.0


class Background:
    """Serves in a separate thread with its own loop, from `start` to `stop`."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Serving]], name: str) -> None:
        self._make = make
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._up: Future[Serving] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._error: BaseException | None = None

    def start(self) -> Serving:
        """Start and wait until it listens; raises the error of a failed start."""
        self._thread.start()
        return self._up.result(PATIENCE)

    def stop(self) -> None:
        """Stop and wait for the thread; raises the server's error."""
        if self._loop is not None and self._over is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise TimeoutError(f"the thread {self._thread.name} has not ended within {PATIENCE:g} s")
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._up.done():
                self._error = error
            else:
                self._up.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self._make() as serving:
            self._up.set_result(serving)
            await self._over.wait()

"""An event loop that waits on llama's sockets directly."""

from __future__ import annotations

import asyncio
import math
import select
import selectors
import sys

from llama.tcp._io.reactor import set_current

if sys.platform == "linux":
    from llama.tcp._io.reactor import Ports, SelectorReactor

    _BATCH = 1024

    class ReactorSelector(selectors.EpollSelector):
        """The stock selector, nested in an epoll whose ports are called directly."""

        def __init__(self) -> None:
            super().__init__()
            self._outer = select.epoll()
            self._default = self.fileno()
            self._outer.register(self._default, select.EPOLLIN)
            self._loop: asyncio.AbstractEventLoop | None = None
            self._poller: SelectorReactor | None = None
            self._ports = Ports(self._outer)

        def serve(self, loop: asyncio.AbstractEventLoop) -> None:
            """Report to the ports of this loop."""
            self._loop = loop
            self._poller = SelectorReactor(loop, self._ports)
            set_current(self._poller)

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Wait for ports, which are called, and for the stock selector's files, which are returned."""
            if self._poller is not None and self._poller.senders:
                self._poller.send_all()
            if timeout is None:
                timeout = -1
            elif timeout > 0:  # epoll takes milliseconds: round up, never wake early
                timeout = math.ceil(timeout * 1e3) * 1e-3
            ready: list[tuple[selectors.SelectorKey, int]] = []
            report = self._ports.report
            for fd, events in self._outer.poll(timeout, _BATCH):
                if fd == self._default:
                    ready = super().select(0)
                    continue
                try:
                    report(fd, events)
                except Exception as error:
                    self._failed(error)
            return ready

        def _failed(self, error: Exception) -> None:
            if self._loop is not None:
                context = {"message": "a readiness callback failed", "exception": error}
                self._loop.call_exception_handler(context)

        def close(self) -> None:
            """Close both."""
            self._outer.close()
            super().close()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a stock event loop whose selector waits on llama's sockets directly; `run` uses it.

    Pass it to `asyncio.Runner` as `loop_factory`. On Linux it saves a loop iteration for each event; elsewhere
    it is the platform's default loop.
    """
    if sys.platform != "linux":
        return asyncio.new_event_loop()
    selector = ReactorSelector()
    loop = asyncio.SelectorEventLoop(selector)
    selector.serve(loop)
    return loop

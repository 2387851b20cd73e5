"""A worker: the forked process that serves, controlled by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Sequence

from llama._core.errors import LlamaError
from llama._runtime.listeners import Listener
from llama._runtime.server_group import ServerGroup
from llama._runtime.signals import signal_handlers, unblock
from llama.tcp._io.event_loop import new_event_loop

log = logging.getLogger("llama.server")


def run_worker(
    listeners: Sequence[Listener], control: socket.socket, grace: float | None, mask: set[int]
) -> int:
    """Serve until SIGTERM, an order from the parent, or the parent's death; returns the exit status.

    SIGTERM may arrive twice, from a service manager and from the parent; it always means drain.
    """
    worker = _Worker(listeners, control, grace, mask)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(worker.main())
    except asyncio.CancelledError:
        return 0
    except Exception as error:
        expected = isinstance(error, (LlamaError, OSError))
        log.error("a worker failed: %s", error, exc_info=None if expected else error)
        worker._report_status("failed", f"{type(error).__name__}: {error}")
        return 1
    return 0


class _Worker:
    def __init__(
        self, listeners: Sequence[Listener], control: socket.socket, grace: float | None, mask: set[int]
    ) -> None:
        self._listeners = listeners
        self._control = control
        self._grace = grace
        self._mask = mask
        self._buffer = b""

    async def main(self) -> None:
        self._generation = ServerGroup(self._listeners, self._grace)
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control.fileno(), self._on_control_readable)
        try:
            with signal_handlers({signal.SIGTERM: self._generation.stop}):
                unblock(self._mask)
                await self._generation.run(self._on_started)
        finally:
            loop.remove_reader(self._control.fileno())

    def _on_started(self) -> None:
        self._report_status("ready")
        self._generation.shutdown.on_stop(lambda: self._report_status("stopped"))

    def _report_status(self, *words: str) -> None:
        """Send one line to the parent, if it is still alive."""
        with contextlib.suppress(OSError):
            self._control.send(" ".join(words).replace("\n", " ").encode() + b"\n")

    def _on_control_readable(self) -> None:
        try:
            data = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            log.warning("the parent process has died: draining")
            self._generation.stop()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._handle_command(line.decode())

    def _handle_command(self, line: str) -> None:
        order, _, detail = line.partition(" ")
        if order == "stop":
            self._generation.stop()
        elif order == "retire" and self._generation.is_running:
            pairs = zip(self._listeners, detail, strict=True)
            self._generation.hand_off([each for each, taken in pairs if taken == "1"])
        else:
            self._generation.cancel()

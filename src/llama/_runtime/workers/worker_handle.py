"""The supervisor's record of one worker process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Sequence

from llama._runtime.listeners import Listener

FIRST_DELAY, MAX_DELAY = 0.1, 10.0
STABLE_AFTER = 10.0  # seconds; a worker that lived longer than this is not in a crash loop


class WorkerListeners:
    """The listeners of one configuration: one list for each worker slot."""

    def __init__(self, slots: Sequence[list[Listener]]) -> None:
        self.slots = slots

    def __len__(self) -> int:
        return len(self.slots)

    def all(self) -> list[Listener]:
        """The listeners of all slots."""
        return [each for slot in self.slots for each in slot]

    def addresses(self) -> tuple[str, ...]:
        """The bound addresses, the same for every slot."""
        return tuple(address for each in self.slots[0] for address in each.addresses())


class WorkerHandle:
    """A worker process: its state and its control socket, which this object owns."""

    def __init__(self, pid: int, slots: WorkerListeners, slot: int, control: socket.socket) -> None:
        self.pid = pid
        self.slots = slots
        self.slot = slot
        self.control = control
        self.ready = self.stopped = self.retired = False
        self.failure = ""
        self._born = time.monotonic()
        self._buffer = b""

    @property
    def age(self) -> float:
        """Seconds since it was forked."""
        return time.monotonic() - self._born

    def send_command(self, command: str) -> None:
        """Send the worker an order, if it is still alive."""
        with contextlib.suppress(OSError):
            self.control.send(f"{command}\n".encode())

    def read_status(self) -> bool:
        """Read the worker's messages; False after the last one."""
        try:
            data = self.control.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            word, _, detail = line.decode(errors="replace").partition(" ")
            self.ready = self.ready or word == "ready"
            self.stopped = self.stopped or word == "stopped"
            self.failure = detail if word == "failed" else self.failure
        return bool(data)

    def reap(self) -> str | None:
        """How the worker ended; None while it is alive."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # other code has already waited for it
            return "unknown status"
        if not pid:
            return None
        code = os.waitstatus_to_exitcode(status)
        return f"exit status {code}" if code >= 0 else f"killed by {_signal_name(-code)}"

    def kill(self) -> None:
        """Send SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Backoff:
    """The delay before a slot gets its next worker: none at first, then longer each time."""

    def __init__(self) -> None:
        self._deaths = 0

    def delay(self, age: float) -> float:
        """Seconds to wait after the death of a worker that lived `age` seconds."""
        self._deaths = 1 if age >= STABLE_AFTER else self._deaths + 1
        if self._deaths == 1:
            return 0.0
        return min(FIRST_DELAY * 2.0 ** min(self._deaths - 2, 30), MAX_DELAY)

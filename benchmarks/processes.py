"""Starting, placing and ending the processes of a benchmark."""

from __future__ import annotations

import json
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port of the loopback that nobody listens on, and that no connection will be given meanwhile."""
    while True:
        port = random.randrange(15_000, 32_000)  # the system's own choices begin at 32768
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Process:
    """A child process, ended when the block is left."""

    def __init__(self, command: Sequence[str], *, log: Path) -> None:
        self.command = list(command)
        self.log = log
        with log.open("ab") as errors:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            )
        self.pid = self.child.pid
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End of input, then SIGTERM, then SIGKILL."""
        assert self.child.stdin and self.child.stdout
        self.child.stdin.close()
        self.child.terminate()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()

    def line(self, seconds: float) -> str:
        """The next line that the process prints."""
        assert self.child.stdout
        deadline = time.monotonic() + seconds
        while b"\n" not in self._read:
            if not select.select([self.child.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"{' '.join(self.command)} said nothing for {seconds} s\n{self.errors()}")
            data = os.read(self.child.stdout.fileno(), 65536)
            if not data:
                raise RuntimeError(f"{' '.join(self.command)} ended\n{self.errors()}")
            self._read += data
        line, self._read = self._read.split(b"\n", 1)
        return line.decode()

    def go(self) -> None:
        """Let the process take its next step."""
        assert self.child.stdin
        self.child.stdin.write(b"\n")
        self.child.stdin.flush()

    def errors(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log.read_text(errors="replace")[-2000:]

    def wait_for_port(self, port: int, seconds: float = 15.0) -> None:
        """Return when the process accepts on the port."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise RuntimeError(
                    f"{' '.join(self.command)} ended with {self.child.returncode}\n{self.errors()}"
                )
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"{' '.join(self.command)} does not listen on port {port}\n{self.errors()}")


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of the benchmarks."""
    return [sys.executable, "-m", module, *arguments]


def origin_ports(origin: Process) -> dict[str, int]:
    """What the origin says that it listens on."""
    ports: dict[str, int] = json.loads(origin.line(10))
    return ports

"""pango in a process of its own, and what it logs."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


def free_port() -> int:
    """A port that is free for TCP and for UDP."""
    while True:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets,
        ):
            port = int(listener.getsockname()[1])
            try:
                packets.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Pango:
    """`python -m pango ...`, whose log is read line by line."""

    module = "pango"

    def __init__(self, folder: Path, *arguments: str) -> None:
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self._rest = b""
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
        )

    def expect(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Read on until a line matches, and return the match."""
        deadline = time.monotonic() + patience
        while True:
            start = len(self.log)
            more = self._read(max(0.0, deadline - time.monotonic()))
            for position, line in enumerate(self.log[start:], start):
                if match := re.search(pattern, line):
                    self._unread(position + 1)
                    return match
            if not more:
                self.discard()
                pytest.fail(f"{self.module} did not say {pattern!r}:\n" + "\n".join(self.log))

    def _unread(self, position: int) -> None:
        """Leave the lines from here on to the next look."""
        later = "".join(f"{line}\n" for line in self.log[position:]).encode()
        self._rest = later + self._rest
        del self.log[position:]

    def _read(self, patience: float) -> bool:
        """Take up lines; False at the end or when nothing came."""
        assert self.process.stdout is not None
        if b"\n" not in self._rest:
            readable, _, _ = select.select([self.process.stdout], [], [], patience)
            data = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            if not data:
                return False
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        self.log += [line.decode() for line in lines]
        return True

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> list[str]:
        """Ask it to end, which it has to do well; every line that it logged."""
        self.send(number)
        code = self.wait()
        assert code == 0, f"{self.module} ended with {code}:\n" + "\n".join(self.log)
        return self.log

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code, once it has ended by itself."""
        while self._read(patience):
            pass
        return self.process.wait(patience)

    def discard(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


class Proxy(Pango):
    """`pango serve` on a free port of 127.0.0.1."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder, "serve", "--listen", "127.0.0.1:0", *options)
        self.port = int(self.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
        self.url = f"https://localhost:{self.port}"

    def complaints(self) -> list[str]:
        """The warnings and errors that were logged, without their times: all of them after `stop`."""
        found = [re.match(r"\S+ \S+ (WARNING|ERROR) \S+: (.*)", line) for line in self.log]
        return [match[2] for match in found if match]

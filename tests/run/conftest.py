"""Programs that call `run`, as processes: their output is the transcript that tests wait on."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PATIENCE = 20.0
PREAMBLE = """
import asyncio, logging, os, sys
from llama import ConfigError, Stream, run, tcp
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")

def ready(addresses):
    print("ready", *addresses, flush=True)

"""


class Program:
    """A running script; what it prints is read as it comes."""

    def __init__(self, folder: Path, text: str, environment: dict[str, str]) -> None:
        script = folder / f"program{len(list(folder.iterdir()))}.py"
        script.write_text(PREAMBLE + textwrap.dedent(text), encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        )
        assert self.process.stdout is not None
        self._output = self.process.stdout.fileno()
        self.heard = ""
        self._seen = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, pattern: str) -> re.Match[str]:
        """The next line of output that the pattern is found in."""
        deadline = time.monotonic() + PATIENCE
        while True:
            end = self.heard.rfind("\n") + 1
            for match in re.finditer(pattern, self.heard[self._seen : end]):
                self._seen += self.heard[self._seen :].index("\n", match.end()) + 1
                return match
            assert self._hear(deadline), f"no line with {pattern!r} in:\n{self.heard}"

    def port(self) -> int:
        """The port of the first address it is ready at."""
        return int(self.line(r"ready \S*:(\d+)")[1])

    def _hear(self, deadline: float) -> bool:
        readable, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self._output, 65536) if readable else b""
        self.heard += data.decode()
        return bool(data)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def reload(self) -> None:
        self.signal(signal.SIGHUP)
        self.line("INFO reloaded")

    def end(self, status: int = 0) -> str:
        """Its whole output, once it has ended by itself; it has to end with this status."""
        deadline = time.monotonic() + PATIENCE
        while self._hear(deadline):
            pass
        assert self.process.wait(max(0.1, deadline - time.monotonic())) == status, self.heard
        return self.heard

    def stop(self) -> str:
        self.signal(signal.SIGTERM)
        return self.end()

    def discard(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Program]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Start]:
    """`program(text)` runs a script; it must call `run(..., on_ready=ready)` for `port` to be known."""
    running: list[Program] = []

    def start(text: str, **environment: str) -> Program:
        running.append(Program(tmp_path, text, environment))
        return running[-1]

    yield start
    for each in running:
        each.discard()


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def ask(client: socket.socket, question: bytes) -> bytes:
    """One question, and everything that comes back until the end."""
    client.sendall(question)
    return rest(client)


def rest(client: socket.socket) -> bytes:
    """Everything until the end; a reset raises."""
    with client:
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer

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

# Greets with the number of the generation that serves it and answers one question.
GREETER = """
built = 0

def build():
    global built
    built += 1
    name = b"%d" % built

    async def greet(stream: Stream) -> None:
        await stream.write(name)
        await stream.write(b" answers " + await stream.read())

    return tcp.server("127.0.0.1:0", greet)

run(build, on_ready=ready, workers=WORKERS)
"""


class Program:
    """A running script; what it prints is read as it comes."""

    def __init__(self, folder: Path, text: str, environment: dict[str, str]) -> None:
        script = folder / f"program{len(list(folder.iterdir()))}.py"
        workers = environment.pop("WORKERS", "None")
        script.write_text(f"{PREAMBLE}WORKERS = {workers}\n{textwrap.dedent(text)}", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "always::ResourceWarning", str(script)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[int(environment["FD"])] if "FD" in environment else [],
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
            for match in re.finditer(pattern, self.heard[self._seen : end], re.MULTILINE):
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

    def signal_group(self, number: int) -> None:
        """To it and all its workers."""
        os.killpg(self.pid, number)

    def count(self, text: str) -> int:
        """How often it has printed this so far."""
        while self._hear(time.monotonic()):
            pass
        return self.heard.count(text)

    def reload(self) -> None:
        self.signal(signal.SIGHUP)
        self.line("INFO reloaded")

    def end(self, status: int = 0) -> str:
        """Its whole output, once it has ended by itself; it has to end with this status."""
        deadline = time.monotonic() + PATIENCE
        while self._hear(deadline):
            pass
        assert "ResourceWarning" not in self.heard, self.heard
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


@pytest.fixture(params=["None", "2"], ids=["in process", "2 workers"])
def workers(request: pytest.FixtureRequest) -> str:
    """What is said here holds in one process and with workers."""
    return str(request.param)


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
    while dialled:
        dialled.pop().close()


dialled: list[socket.socket] = []  # a test that fails halfway leaves them to the fixture


def dial(port: int) -> socket.socket:
    dialled.append(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
    return dialled[-1]


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


def lost(client: socket.socket) -> bool:
    """Whether the other side goes away and says nothing."""
    try:
        return rest(client) == b""
    except ConnectionError:
        return True

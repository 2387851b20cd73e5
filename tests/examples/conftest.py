"""The fixture `example`: runs a file of examples/ in a process of its own."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from llama import tls

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("runner.py")


class Running:
    """An example that runs; its ports are known by the numbers that its text names."""

    def __init__(self, name: str, cwd: Path, elsewhere: Mapping[int, int]) -> None:
        self.name = name
        self._report, theirs = os.pipe()
        self._heard = b""
        leads = ",".join(f"{named}={real}" for named, real in elsewhere.items())
        path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self.process = subprocess.Popen(
            [sys.executable, str(RUNNER), str(theirs), leads, str(ROOT / "examples" / f"{name}.py")],
            cwd=cwd,
            pass_fds=[theirs],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
        )
        os.close(theirs)

    def port(self, named: int, patience: float = 20) -> int:
        """The real port that stands for the one the example's text names, once it is listened on."""
        deadline = time.monotonic() + patience
        while True:
            for line in self._heard.decode().splitlines():
                if line.split()[0] == str(named):
                    return int(line.split()[1])
            readable, _, _ = select.select([self._report], [], [], max(0.0, deadline - time.monotonic()))
            if not readable or not (data := os.read(self._report, 4096)):
                self.process.kill()
                pytest.fail(f"examples/{self.name}.py does not listen on {named}:\n{self.output()}")
            self._heard += data

    def output(self, patience: float = 20) -> str:
        """What it printed until it ended by itself."""
        return self.process.communicate(timeout=patience)[0].decode()

    def stop(self, patience: float = 20) -> str:
        """Asks it to end as a service manager would; it has to end well, and its output is returned."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        output = self.output(patience)
        assert self.process.returncode == 0, (
            f"examples/{self.name}.py ended with {self.process.returncode}:\n{output}"
        )
        return output

    def discard(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self._report)


class Start(Protocol):
    def __call__(self, name: str, elsewhere: Mapping[int, int] = {}, /) -> Running: ...


@pytest.fixture
def authority(tmp_path: Path) -> tls.CertificateAuthority:
    """Signs what the examples need; ca.pem is beside them."""
    made = tls.CertificateAuthority.create()
    made.write_pem(tmp_path / "ca.pem")
    return made


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Start]:
    """`example("echo", {8080: port})` runs examples/echo.py below tmp_path.

    What the example connects to on 8080 is found at `port`.
    """
    running: list[Running] = []

    def start(name: str, elsewhere: Mapping[int, int] = {}, /) -> Running:
        running.append(Running(name, tmp_path, elsewhere))
        return running[-1]

    yield start
    for each in running:
        each.discard()

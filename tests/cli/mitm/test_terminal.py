"""`llama mitm` on a terminal: the live view, and Ctrl-C with a command and without one."""

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.mitm.site import CLEAN, Site, curl, site
from tests.pango.conftest import needs
from tests.pango.process import PATIENCE, ROOT

if sys.platform == "win32":
    pytest.skip("needs terminals of POSIX", allow_module_level=True)

import fcntl
import pty
import struct
import termios

pytestmark = pytest.mark.peer
LLAMA = (sys.executable, "-m", "llama", "mitm", "--ca", "ca", "--upstream-ca", "ca.pem")
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self._terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 160, 0, 0))
        self._process = subprocess.Popen(
            command,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**CLEAN, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(inner)
        self.text = ""

    def expect(self, pattern: str) -> re.Match[str]:
        """Read on until there is such a text; what comes before and it are gone then."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.text)) is None:
            assert self._read(deadline - time.monotonic()), f"no {pattern!r} in:\n{self.text}"
        self.text = self.text[found.end() :]
        return found

    def _read(self, patience: float) -> bool:
        if not select.select([self._terminal], [], [], max(0.0, patience))[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # the last program on it is gone
            return False
        self.text += _CODES.sub("", data.decode(errors="replace"))
        return True

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait(self) -> int:
        """Its exit code; what it still says is in `text`."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture
def cloud(files: Path) -> Iterator[Site]:
    with site() as found:
        yield found


@pytest.fixture
def terminal(files: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*command: str) -> Terminal:
        made.append(Terminal(*command))
        return made[-1]

    yield make
    for each in made:
        each.close()


@needs("curl")
def test_the_live_view(cloud: Site, terminal: Callable[..., Terminal]) -> None:
    pytest.importorskip("rich")
    shown = terminal(*LLAMA, "--listen", "127.0.0.1:0", "--har", "out.har")
    port = shown.expect(r"listening on 127\.0\.0\.1:(\d+)")[1]
    curl("-x", f"http://127.0.0.1:{port}", "--cacert", "ca/ca.pem", f"{cloud.url}/a")
    shown.expect(rf"GET +200 .*{re.escape(cloud.url)}/a")
    shown.type("\x03")
    assert shown.wait() == 0
    assert len(json.loads(Path("out.har").read_text())["log"]["entries"]) == 1


@needs("curl")
def test_lines_on_a_terminal(cloud: Site, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(*LLAMA, "--listen", "127.0.0.1:0", "--no-console")
    port = shown.expect(r"listening on 127\.0\.0\.1:(\d+)")[1]
    curl("-x", f"http://127.0.0.1:{port}", "--cacert", "ca/ca.pem", f"{cloud.url}/a")
    shown.expect(rf"\d\d:\d\d:\d\d GET {cloud.url}/a 200 23 B \d+ ms\n")
    shown.type("\x03")
    assert shown.wait() == 0


def test_the_keyboard_s_interrupt_reaches_a_command_once(
    cloud: Site, terminal: Callable[..., Terminal]
) -> None:
    script = f"""
import signal, sys, time, urllib.request
count = 0
def told(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, told)
urllib.request.urlopen({cloud.url + "/a"!r}).read()
print("ready", flush=True)
sys.stdin.readline()
print("count", count, flush=True)
sys.exit(5)
"""
    shown = terminal(*LLAMA, "--", sys.executable, "-c", script)
    shown.expect("ready\n")
    shown.type("\x03")
    shown.expect(r"\^C")
    shown.type("go\n")
    shown.expect("count 1\n")
    assert shown.wait() == 5
    assert re.search(rf"llama: GET 200 23 B +\d+ ms {cloud.url}/a\n", shown.text)


def test_a_live_view_needs_a_terminal(files: Path) -> None:
    pytest.importorskip("rich")
    for options, problem in ((("--listen", "127.0.0.1:0"), "no terminal"), (("--", "true"), "the command's")):
        done = subprocess.run(
            [*LLAMA, "--console", *options],
            capture_output=True,
            text=True,
            env={**CLEAN, "PYTHONPATH": str(ROOT / "src")},
            timeout=60,
            check=False,
        )
        assert done.returncode == 78
        assert done.stderr.startswith("llama: --console: ") and problem in done.stderr

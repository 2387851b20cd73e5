"""The keys of the live view, and the terminal after it."""

import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.mitm.site import CLEAN
from tests.pango.process import ROOT

termios = pytest.importorskip("termios")
fcntl = pytest.importorskip("fcntl")
pytest.importorskip("rich")
PATIENCE = 30.0


class Terminal:
    """A program whose terminal this is."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llama", *arguments],
            cwd=folder,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**CLEAN, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "PYTHONUTF8": "1"},
        )

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until the screen was told so; what was read before it is gone then."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.text)) is None:
            readable, _, _ = select.select([self.ours], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                pytest.fail(f"the terminal did not show {pattern!r}:\n{self.text}")
            self.text += os.read(self.ours, 65536).decode()
        self.text = self.text[found.end() :]
        return found

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    @property
    def flags(self) -> int:
        """Whether it echoes and edits lines."""
        return int(termios.tcgetattr(self.theirs)[3] & (termios.ECHO | termios.ICANON))

    def end(self) -> int:
        """Its exit code; all that it said is read."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.05)[0]:
                self.text += os.read(self.ours, 65536).decode()
        while select.select([self.ours], [], [], 0)[0]:
            self.text += os.read(self.ours, 65536).decode()
        return self.process.wait(0)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path, "mitm", "--ca", "ca", "--listen", "127.0.0.1:0")
    yield made
    made.close()


def get(port: int, url: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {url} HTTP/1.0\r\nHost: {url.split('/')[2]}\r\nX-Secret: 7\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            return answer.read()


def test_exchanges_are_shown_as_they_pass_and_keys_work(terminal: Terminal, web: str) -> None:
    port = int(terminal.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
    terminal.expect(r"0 in all, .*q: quit")
    assert terminal.flags == 0
    assert b"page /one" in get(port, f"http://{web}/one")
    terminal.expect(rf"GET .*200.* http://{web}/one")
    terminal.expect("1 in all, 0 going on, 0 failed")
    terminal.press("\x1b[A")
    terminal.expect("> X-Secret: 7")
    terminal.press("\x1bp")
    terminal.expect("paused")
    terminal.press("pq")
    assert terminal.end() == 0, terminal.text
    assert terminal.text.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in terminal.text
    assert terminal.flags == termios.ECHO | termios.ICANON
    assert termios.tcgetattr(terminal.theirs) == terminal.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(terminal: Terminal, number: signal.Signals) -> None:
    terminal.expect(r"0 in all, .*q: quit")
    terminal.process.send_signal(number)
    assert terminal.end() == 0, terminal.text
    assert "\x1b[?25h" in terminal.text
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_a_terminal_that_is_held_holds_up_no_exchange(terminal: Terminal, web: str) -> None:
    port = int(terminal.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
    terminal.expect(r"0 in all, .*q: quit")
    terminal.press("\x13")  # Ctrl-S
    for number in range(20):
        assert b"page" in get(port, f"http://{web}/{number}")
    terminal.press("\x11")  # Ctrl-Q
    terminal.expect("20 in all, 0 going on, 0 failed")
    terminal.press("q")
    assert terminal.end() == 0, terminal.text


def test_a_reload_keeps_the_view(terminal: Terminal, web: str) -> None:
    port = int(terminal.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
    terminal.expect(r"0 in all, .*q: quit")
    get(port, f"http://{web}/one")
    terminal.expect("1 in all, 0 going on")
    terminal.process.send_signal(signal.SIGHUP)
    terminal.expect("INFO llama.server: ")
    get(port, f"http://{web}/two")
    terminal.expect("2 in all, 0 going on")
    terminal.press("q")
    assert terminal.end() == 0, terminal.text
    assert termios.tcgetattr(terminal.theirs) == terminal.before


def test_lines_instead_where_they_are_asked_for(tmp_path: Path, web: str) -> None:
    terminal = Terminal(tmp_path, "mitm", "--ca", "ca", "--listen", "127.0.0.1:0", "--access-log", "short")
    try:
        port = int(terminal.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
        get(port, f"http://{web}/one")
        terminal.expect(rf"\d GET http://{web}/one 200 ")
        terminal.press("\x03")
        assert terminal.end() == 0, terminal.text
        assert "\x1b[" not in terminal.text
    finally:
        terminal.close()

"""`pango demo`: start it, run the line it prints, see the page."""

from __future__ import annotations

import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pango.conftest import Call, needs
from tests.pango.process import Pango

WORDS = r"curl --cacert (\S+)/ca\.pem https://localhost:(\d+)/"


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Pango]:
    process = Pango(tmp_path, "demo")
    yield process
    process.discard()


@pytest.mark.peer
@needs("curl")
def test_the_printed_line_shows_the_page(demo: Pango) -> None:
    line = demo.expect(rf"^{WORDS}$")[0]
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=True)
    said = done.stdout.splitlines()
    assert said[0] == "Hello from pango."
    assert said[2] == "  TLS      TLSv1.3, TLS_AES_256_GCM_SHA384"
    assert said[3] == "  request  GET /"
    page = f"{line}a%20b?q=%3Cb%3E -H accept:text/html"
    done = subprocess.run(page, shell=True, capture_output=True, text=True, timeout=30, check=True)
    assert "<dt>request<dd>GET /a b?q=%3Cb%3E\n" in done.stdout
    demo.stop(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_its_files_are_gone(demo: Pango, number: signal.Signals) -> None:
    folder = Path(demo.expect(WORDS)[1])
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert {each.name for each in folder.iterdir()} == {"ca.pem", "cert.pem", "key.pem"}
    demo.expect("Ctrl-C")
    log = demo.stop(number)
    assert not folder.exists()
    assert [line for line in log if re.search("Traceback|WARNING|ERROR", line)] == []


def test_a_port_that_is_busy_is_passed_over(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        demo = Pango(tmp_path, "demo", "--port", str(port))
        try:
            assert int(demo.expect(WORDS)[2]) > port
            demo.stop()
        finally:
            demo.discard()


def test_no_port_is_left(pango: Call) -> None:
    with socket.socket() as busy:
        try:
            busy.bind(("127.0.0.1", 65535))
        except OSError:
            pytest.skip("port 65535 is in use")
        busy.listen()
        done = pango("demo --port 65535")
    assert done.code == 1
    assert done.errors == "pango: no port is free from 65535 to 65535\n"

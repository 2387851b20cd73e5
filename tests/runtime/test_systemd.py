"""What a service manager hears."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import GREETER, PATIENCE, Start


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path if request.param == "a path" else f"\0{path}")
        sock.settimeout(PATIENCE)
        yield sock


def named(manager: socket.socket) -> str:
    """As NOTIFY_SOCKET spells it."""
    name = manager.getsockname()
    return f"@{name[1:].decode()}" if isinstance(name, bytes) else str(name)


def test_a_service_manager_is_notified_of_each_state(
    manager: socket.socket, program: Start, workers: str
) -> None:
    server = program(GREETER, WORKERS=workers, NOTIFY_SOCKET=named(manager))
    ready = f"READY=1\nMAINPID={server.pid}"
    assert manager.recv(4096).decode() == ready
    server.signal(signal.SIGHUP)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(4096).decode())
    assert manager.recv(4096).decode() == ready
    server.signal(signal.SIGTERM)
    assert manager.recv(4096).decode() == "STOPPING=1"
    server.end()


def test_a_reload_without_changes_is_notified_too(
    manager: socket.socket, program: Start, workers: str
) -> None:
    server = program(
        GREETER.replace("run(build", "run(build()"), WORKERS=workers, NOTIFY_SOCKET=named(manager)
    )
    assert manager.recv(4096).startswith(b"READY=1")
    server.signal(signal.SIGHUP)
    assert manager.recv(4096).startswith(b"RELOADING=1")
    assert manager.recv(4096).startswith(b"READY=1")
    server.stop()


def test_a_missing_service_manager_does_not_stop_the_server(program: Start, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    server = program(GREETER, NOTIFY_SOCKET=os.fspath(gone))
    server.line(f"WARNING NOTIFY_SOCKET {gone}: ")
    server.stop()

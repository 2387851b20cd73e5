"""Workers: forked, watched, replaced."""

import os
import re
import signal
import socket
import sys

import pytest

from llama import ConfigError, Stream, run
from tests.runtime.conftest import Start, ask, dial, lost, rest

# Says which process serves, then answers one question.
WHO = """
async def who(stream: Stream) -> None:
    await stream.write(b"%d" % os.getpid())
    await stream.write(b" answers " + await stream.read())

run(who, listen="127.0.0.1:0", on_ready=ready, workers=WORKERS)
"""


def test_a_killed_worker_loses_only_its_own_connections(program: Start) -> None:
    server = program(WHO, WORKERS="2")
    port = server.port()
    clients = [dial(port) for _ in range(50)]
    owners = [int(client.recv(20)) for client in clients]
    victim, other = sorted(set(owners))
    os.kill(victim, signal.SIGKILL)
    server.line(f"^ERROR worker {victim} died: killed by SIGKILL; replacing it at once$")
    later = [dial(port) for _ in range(50)]
    heirs = {int(client.recv(20)) for client in later}
    assert len(heirs) == 2 and other in heirs and victim not in heirs
    for client, owner in zip(clients, owners, strict=True):
        if owner == other:
            assert ask(client, b"it") == b" answers it"
        else:
            assert lost(client)
    assert {ask(client, b"it") for client in later} == {b" answers it"}
    server.stop()


def test_a_single_worker_is_supervised_too(program: Start) -> None:
    server = program(WHO, WORKERS="1")
    port = server.port()
    client = dial(port)
    worker = int(client.recv(20))
    client.close()
    assert worker != server.pid
    os.kill(worker, signal.SIGKILL)
    client = dial(port)
    assert int(client.recv(20)) != worker
    assert ask(client, b"it") == b" answers it"
    server.stop()


def test_a_worker_that_dies_repeatedly_is_replaced_with_a_growing_delay(program: Start) -> None:
    server = program(
        """
        async def die(stream):
            os._exit(3)

        run(die, listen="127.0.0.1:0", on_ready=ready, workers=1)
        """
    )
    port = server.port()
    for when in ("at once", "in 0.1 s", "in 0.2 s", "in 0.4 s"):
        with dial(port):
            server.line(f"^ERROR worker [0-9]+ died: exit status 3; replacing it {when}$")
    server.stop()


def test_a_worker_that_cannot_start_ends_the_start(program: Start) -> None:
    server = program(FAILS.replace("BUILDS", "1"), WORKERS="2")
    assert "llama._core.errors.ConfigError: no space left" in server.end(1)


def test_a_worker_that_cannot_start_keeps_the_current_configuration(program: Start) -> None:
    server = program(FAILS.replace("BUILDS", "2"), WORKERS="2")
    port = server.port()
    server.signal(signal.SIGHUP)
    server.line("^ERROR reload failed, the current configuration stays active: ConfigError: no space left$")
    assert rest(dial(port)) == b"1"
    server.reload()
    assert rest(dial(port)) == b"3"
    server.stop()


FAILS = """
class Service:
    def __init__(self, number):
        self.number = number
    async def __aenter__(self):
        if self.number == BUILDS:
            raise ConfigError("no space left")
    async def __aexit__(self, *_): ...
    async def __call__(self, stream):
        await stream.write(b"%d" % self.number)

built = []

def build():
    built.append(1)
    return tcp.server("127.0.0.1:0", Service(len(built)))

run(build, on_ready=ready, workers=WORKERS)
"""


def test_workers_whose_parent_dies_drain_and_end(program: Start) -> None:
    server = program(WHO, WORKERS="2")
    port = server.port()
    client = dial(port)
    client.recv(20)
    server.signal(signal.SIGKILL)
    server.line("WARNING the parent process has died: draining")
    server.line("WARNING the parent process has died: draining")
    assert ask(client, b"it") == b" answers it"
    output = server.end(-signal.SIGKILL)  # the output ends when the last worker does
    assert output.count("INFO drained") == 2
    with pytest.raises(ConnectionRefusedError):
        dial(port)


def test_an_address_is_not_shared_with_other_programs(program: Start) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        server = program(WHO.replace("127.0.0.1:0", f"127.0.0.1:{port}"), WORKERS="2")
        error = f"cannot listen on 127.0.0.1 port {port}: Address already in use"
        assert error in server.end(1)


def test_every_worker_listens_on_every_address(program: Start) -> None:
    server = program(
        WHO.replace(
            'who, listen="127.0.0.1:0"', 'tcp.server("127.0.0.1:0", who), tcp.server("[::1]:0", who)'
        ),
        WORKERS="3",
    )
    match = server.line(r"ready 127\.0\.0\.1:(\d+) \[::1\]:(\d+)$")
    for host, port in (("127.0.0.1", match[1]), ("::1", match[2])):
        clients = [socket.create_connection((host, int(port))) for _ in range(100)]
        assert len({client.recv(20) for client in clients}) == 3
        for client in clients:
            client.close()
    server.stop()


async def nothing(stream: Stream) -> None:
    del stream


def test_fewer_than_one_worker_is_an_error() -> None:
    with pytest.raises(ConfigError, match=re.escape("workers=0: expected at least 1")):
        run(nothing, listen="127.0.0.1:0", workers=0)


def test_workers_are_an_error_on_a_platform_without_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(ConfigError, match=f"workers=2: {sys.platform} cannot fork"):
        run(nothing, listen="127.0.0.1:0", workers=2)

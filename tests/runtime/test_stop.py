"""SIGTERM: no new connections, and those that are there end as they would."""

import os
import signal
from pathlib import Path

import pytest

from tests.runtime.conftest import GREETER, Start, ask, dial, lost, rest

HALF = 50_000


def test_a_thousand_transfers_complete_during_a_stop(program: Start, workers: str) -> None:
    server = program(
        f"""
        async def send(stream):
            await stream.write(b"x" * {HALF})
            await stream.read()
            await stream.write(b"y" * {HALF})

        run(send, listen="127.0.0.1:0", on_ready=ready, workers=WORKERS)
        """,
        WORKERS=workers,
    )
    port = server.port()
    clients = [dial(port) for _ in range(1000)]
    assert all(client.recv(1) == b"x" for client in clients)
    server.signal(signal.SIGTERM)
    server.line("connections left: [1-9]")
    whole = b"x" * (HALF - 1) + b"y" * HALF
    assert all(ask(client, b"go on") == whole for client in clients)
    server.end()


def test_connections_in_the_listen_queue_are_served(program: Start, workers: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    server = program(
        """
        async def stand_still(stream):
            print("standing", flush=True)
            open(os.environ["GATE"]).close()  # the whole loop waits
            await stream.write(b"served")

        run(stand_still, listen="127.0.0.1:0", on_ready=ready, workers=WORKERS)
        """,
        WORKERS=workers,
        GATE=str(gate),
    )
    port = server.port()
    count = 1 if workers == "None" else int(workers)
    clients = [dial(port)]
    standing = 0
    while standing < count:  # each worker has one that holds it up
        clients.append(dial(port))
        standing = server.count("standing")
    clients += [dial(port) for _ in range(100)]
    server.signal(signal.SIGTERM)
    with open(gate, "w"):
        assert {rest(client) for client in clients} == {b"served"}
    server.end()


def test_a_stopping_server_refuses_new_connections(program: Start, workers: str) -> None:
    server = program(GREETER, WORKERS=workers)
    port = server.port()
    client = dial(port)
    assert client.recv(1) == b"1"
    server.signal(signal.SIGTERM)
    server.line("connections left: 1")
    for _ in range(1000):  # the other worker may be a moment behind
        try:
            assert ask(dial(port), b"it") == b"1 answers it"
        except ConnectionRefusedError:
            break
    with pytest.raises(ConnectionRefusedError):
        dial(port)
    assert ask(client, b"it") == b" answers it"
    assert server.end().endswith("INFO stopped\n")


def test_sigint_from_a_terminal_drains_too(program: Start, workers: str) -> None:
    server = program(GREETER, WORKERS=workers)
    client = dial(server.port())
    assert client.recv(1) == b"1"
    server.signal_group(signal.SIGINT)  # as a terminal does, to every process
    server.line("connections left: 1")
    assert ask(client, b"it") == b" answers it"
    server.end()


def test_sigterm_to_every_process_drains_too(program: Start) -> None:
    server = program(GREETER, WORKERS="2")
    client = dial(server.port())
    assert client.recv(1) == b"1"
    server.signal_group(signal.SIGTERM)
    server.line("connections left: 1")
    assert ask(client, b"it") == b" answers it"
    server.end()


def test_the_grace_period_limits_the_drain(program: Start, workers: str) -> None:
    server = program(GREETER.replace("on_ready", "grace=0.05, on_ready"), WORKERS=workers)
    client = dial(server.port())
    assert client.recv(1) == b"1"
    server.signal(signal.SIGTERM)
    with pytest.raises(ConnectionResetError):
        rest(client)
    server.line("WARNING the grace period of 0.05 seconds expired")
    server.end()


def test_a_second_signal_exits_immediately(program: Start, workers: str) -> None:
    server = program(GREETER, WORKERS=workers)
    client = dial(server.port())
    assert client.recv(1) == b"1"
    server.signal(signal.SIGTERM)
    server.line("connections left: 1")
    server.signal(signal.SIGTERM)
    server.line("WARNING second signal: exiting immediately")
    assert lost(client)
    server.end()


def test_an_unresponsive_worker_is_killed(program: Start) -> None:
    server = program(
        """
        import time

        async def stand_still(stream):
            print("standing", flush=True)
            time.sleep(600)

        run(stand_still, listen="127.0.0.1:0", on_ready=ready, workers=2)
        """
    )
    with dial(server.port()):
        server.line("standing")
        server.signal(signal.SIGTERM)
        server.line("INFO stopping 2 workers")
        server.signal(signal.SIGTERM)
        server.line("WARNING second signal")
        server.signal(signal.SIGTERM)
        server.line("WARNING worker .* ended: killed by SIGKILL")
        server.end()


def test_signal_handlers_are_restored(program: Start, workers: str) -> None:
    server = program(
        """
        import signal
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = [signal.getsignal(each) for each in numbers]
        async def nothing(stream): ...
        run(nothing, listen="127.0.0.1:0", on_ready=ready, workers=WORKERS)
        print("as before:", before == [signal.getsignal(each) for each in numbers], signal.set_wakeup_fd(-1))
        """,
        WORKERS=workers,
    )
    server.port()
    assert server.stop().endswith("as before: True -1\n")

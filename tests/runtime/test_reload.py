"""SIGHUP: everything is built anew, and no connection notices."""

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.runtime.conftest import GREETER, Program, Start, ask, dial, rest


def test_a_thousand_connections_in_flight_survive_a_reload(program: Start, workers: str) -> None:
    server = program(GREETER, WORKERS=workers)
    port = server.port()
    clients = [dial(port) for _ in range(1000)]
    assert {client.recv(1) for client in clients} == {b"1"}
    server.reload()
    assert ask(dial(port), b"it") == b"2 answers it"
    assert {ask(client, b"it") for client in clients} == {b" answers it"}
    server.stop()


def test_no_new_connection_is_refused_during_twenty_reloads(program: Start, workers: str) -> None:
    server = program(GREETER, WORKERS=workers)
    port = server.port()
    enough = threading.Event()
    answers: list[bytes] = []
    errors: list[OSError] = []

    def keep_asking() -> None:
        while not enough.is_set():
            try:
                answers.append(ask(dial(port), b"it"))
            except OSError as error:
                errors.append(error)

    clients = [threading.Thread(target=keep_asking) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for generation in range(2, 22):
            server.reload()
            assert ask(dial(port), b"it") == b"%d answers it" % generation
    finally:
        enough.set()
        for client in clients:
            client.join()
    assert errors == []
    assert answers and all(answer.endswith(b" answers it") for answer in answers)
    server.stop()


def test_a_failing_builder_keeps_the_current_configuration(program: Start, workers: str) -> None:
    server = program(
        """
        async def greet(stream):
            await stream.write(b"hello")

        calls = []

        def build():
            calls.append(1)
            if len(calls) == 2:
                raise ConfigError("site.toml line 3: a port is missing")
            return tcp.server("127.0.0.1:0", greet)

        run(build, on_ready=ready, workers=WORKERS)
        """,
        WORKERS=workers,
    )
    port = server.port()
    server.signal(signal.SIGHUP)
    server.line(
        "^ERROR reload failed, the current .* stays active: ConfigError: site.toml line 3: a port is missing$"
    )
    assert rest(dial(port)) == b"hello"
    server.reload()
    assert rest(dial(port)) == b"hello"
    server.stop()


# Listens where the lines of a file say.
BY_FILE = """
async def where(stream):
    host, port = stream.socket.getsockname()[:2]
    await stream.write(str(port).encode())

def build():
    with open(os.environ["LISTEN"]) as file:
        return [tcp.server(line.strip(), where) for line in file]

run(build, on_ready=ready, workers=WORKERS)
"""


def test_a_reload_adds_and_removes_addresses(program: Start, workers: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        first, second = (f"127.0.0.1:{each.getsockname()[1]}" for each in (one, two))
    config = tmp_path / "listen"
    config.write_text(f"127.0.0.1:0\n{first}\n")
    server = program(BY_FILE, WORKERS=workers, LISTEN=str(config))
    port = server.port()
    assert rest(dial_at(first)) == first.split(":")[1].encode()
    config.write_text(f"{second}\n127.0.0.1:0\n")
    server.reload()
    assert rest(dial_at(second)) == second.split(":")[1].encode()
    assert rest(dial(port)) == str(port).encode()
    assert refused(first)
    server.stop()


def test_an_address_in_use_keeps_the_current_configuration(
    program: Start, workers: str, tmp_path: Path
) -> None:
    config = tmp_path / "listen"
    config.write_text("127.0.0.1:0\n")
    server = program(BY_FILE, WORKERS=workers, LISTEN=str(config))
    port = server.port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        config.write_text(f"127.0.0.1:0\n127.0.0.1:{taken}\n")
        server.signal(signal.SIGHUP)
        server.line(
            rf"^ERROR reload failed.*cannot listen on 127\.0\.0\.1 port {taken}: Address already in use$"
        )
    assert rest(dial(port)) == str(port).encode()
    server.reload()
    assert rest(dial_at(f"127.0.0.1:{taken}")) == str(taken).encode()
    server.stop()


def test_the_path_of_a_unix_socket_outlives_a_reload(program: Start, workers: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = program(
        """
        async def greet(stream):
            await stream.write(b"hello")

        def build():
            return tcp.server("unix:" + os.environ["SOCKET"], greet)

        run(build, on_ready=ready, workers=WORKERS)
        """,
        WORKERS=workers,
        SOCKET=str(path),
    )
    server.line(f"ready unix:{path}")
    for _ in range(2):
        server.reload()
        assert rest(dial_path(str(path))) == b"hello"
    server.stop()
    assert not path.exists()


def test_an_inherited_socket_outlives_the_process(program: Start, workers: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as inherited:
        inherited.bind(path)
        inherited.listen()
        server = program(
            """
            async def greet(stream):
                await stream.write(b"hello")

            run(lambda: tcp.server("fd:" + os.environ["FD"], greet), on_ready=ready, workers=WORKERS)
            """,
            WORKERS=workers,
            FD=str(inherited.fileno()),
        )
        server.line("ready unix:")
        for _ in range(2):
            server.reload()
            assert rest(dial_path(path)) == b"hello"
        server.stop()
        client = dial_path(path)  # the kernel queues it for the next process
        inherited.accept()[0].close()
        assert rest(client) == b""


@pytest.mark.parametrize("workers", ["None", "1"], ids=["in process", "1 worker"])
def test_a_hundred_reloads_leak_no_descriptors_or_processes(program: Start, workers: str) -> None:
    server = program(GREETER, WORKERS=workers)
    port = server.port()
    before = descriptors(server)
    for _ in range(100):
        server.reload()
    assert ask(dial(port), b"it") == b"101 answers it"
    while len(children(server)) > (0 if workers == "None" else 1):
        server.reload()  # those that retire end in their own time
    assert descriptors(server) == before
    server.stop()


def test_without_a_builder_sighup_is_ignored(program: Start, workers: str) -> None:
    server = program(
        """
        async def greet(stream):
            await stream.write(b"hello")

        run(greet, listen="127.0.0.1:0", on_ready=ready, workers=WORKERS)
        """,
        WORKERS=workers,
    )
    port = server.port()
    server.signal(signal.SIGHUP)
    server.line("^INFO SIGHUP ignored: ")
    assert rest(dial(port)) == b"hello"
    server.stop()


def dial_path(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    return client


def dial_at(address: str) -> socket.socket:
    return dial(int(address.rpartition(":")[2]))


def refused(address: str) -> bool:
    try:
        dial_at(address).close()
    except ConnectionRefusedError:
        return True
    return False


def descriptors(server: Program) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def children(server: Program) -> list[str]:
    """Zombies count."""
    return Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()

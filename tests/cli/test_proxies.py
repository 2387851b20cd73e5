"""Each proxy in a process of its own."""

import signal
import socket
import ssl
from pathlib import Path

import pytest

from tests.cli.conftest import Start


def say(connection: socket.socket, text: bytes) -> bytes:
    """Send a text, and read as much."""
    connection.sendall(text)
    with connection.makefile("rb") as answers:
        return answers.read(len(text))


def test_echo_over_tls(start: Start, files: Path) -> None:
    server = start("echo", "--cert", "c.pem", "--key", "k.pem")
    context = ssl.create_default_context(cafile=str(files / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert say(connection, b"hello") == b"hello"
    server.stop()


def test_forward_through_a_chain(start: Start) -> None:
    echo = start("echo")
    first = start("socks5", "--user", "john:secret")
    second = start("http-proxy", "--user", "jane:other")
    chain = [
        "--via",
        f"socks5h://john:secret@{first.address}",
        "--via",
        f"http://jane:other@{second.address}",
    ]
    server = start("forward", "--to", echo.address, *chain)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        assert say(connection, b"hello") == b"hello"


def test_grace_bounds_the_end(start: Start) -> None:
    server = start("echo", "--grace", "100ms")
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        assert say(connection, b"hello") == b"hello"
        server.stop(signal.SIGINT)


@pytest.mark.parametrize("more", [["--open"], ["--user", "john:secret"]])
def test_others_are_served_when_it_is_asked_for(start: Start, more: list[str]) -> None:
    server = start("socks5", "--listen", "0.0.0.0:0", *more)
    server.stop()

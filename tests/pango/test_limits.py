"""The limits that pango sets on a connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.pango.conftest import Start
from tests.pango.process import Proxy

PATIENCE = 10.0


def connect(server: Proxy) -> closing[socket.socket]:
    return closing(socket.create_connection(("127.0.0.1", server.port), PATIENCE))


def ask(client: socket.socket, words: bytes = b"hello") -> bytes:
    client.sendall(words)
    return client.recv(100)


def test_an_idle_connection_ends_with_one_line(proxy: Start, echo: str) -> None:
    server = proxy("--plain", "--to", echo, "--idle-timeout", "500ms")
    with connect(server) as client:
        assert ask(client) == b"hello"
        started = time.monotonic()
        assert client.recv(1) == b""
        assert 0.4 < time.monotonic() - started < 5
    server.stop()
    (complaint,) = server.complaints()
    assert "no traffic for 0.5 s" in complaint


def test_a_busy_connection_is_not_idle(proxy: Start, echo: str) -> None:
    server = proxy("--plain", "--to", echo, "--idle-timeout", "400ms")
    with connect(server) as client:
        for _ in range(8):
            assert ask(client) == b"hello"
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.settimeout(PATIENCE)
    server.stop()
    assert server.complaints() == []


def test_beyond_the_limit_connections_wait_for_their_turn(proxy: Start, echo: str) -> None:
    server = proxy("--plain", "--to", echo, "--max-connections", "2")
    with connect(server) as first, connect(server) as second, connect(server) as third:
        assert ask(first) == b"hello"
        assert ask(second) == b"hello"
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ask(third)
        first.close()
        third.settimeout(PATIENCE)
        assert third.recv(100) == b"hello"
    server.stop()
    assert server.complaints() == []


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a listener whose queue is full, so that connecting to it takes for ever."""
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        while True:
            filler = held.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                break
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_target_has_to_answer_in_time(proxy: Start, silent: str) -> None:
    server = proxy("--plain", "--to", silent, "--connect-timeout", "300ms")
    with connect(server) as client:
        assert client.recv(1) == b""
    server.stop()
    (complaint,) = server.complaints()
    assert f"no connection to {silent} within 0.3 s" in complaint


def test_a_target_that_is_too_slow_is_passed_over(proxy: Start, silent: str, echo: str) -> None:
    server = proxy("--plain", "--to", silent, "--to", echo, "--connect-timeout", "300ms")
    for _ in range(3):
        with connect(server) as client:
            assert ask(client) == b"hello"
    server.stop()
    (complaint,) = server.complaints()
    assert f"upstream {silent} ejected for 10 s" in complaint


def test_a_header_of_the_proxy_protocol_has_to_come_in_time(proxy: Start, echo: str) -> None:
    options = ("--proxy-protocol-from", "127.0.0.1", "--handshake-timeout", "300ms")
    server = proxy("--plain", "--to", echo, *options)
    with connect(server) as client:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            pass
    server.stop()
    (complaint,) = server.complaints()
    assert "no PROXY header within 0.3 s" in complaint

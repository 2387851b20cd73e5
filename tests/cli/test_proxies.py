"""Each proxy in a process of its own."""

import json
import re
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


@pytest.mark.parametrize("more", [["--allow-anonymous"], ["--user", "john:secret"]])
def test_others_are_served_when_it_is_asked_for(start: Start, more: list[str]) -> None:
    server = start("socks5", "--listen", "0.0.0.0:0", *more)
    server.stop()


def test_an_idle_connection_is_ended(start: Start) -> None:
    server = start("echo", "--idle-timeout", "200ms")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        assert say(connection, b"hello") == b"hello"
        assert connection.recv(1) == b""


@pytest.mark.parametrize("option", ["--first-byte-timeout", "--handshake-timeout"])
def test_who_says_nothing_or_half_of_it_is_closed(start: Start, option: str, tmp_path: Path) -> None:
    server = start("static", str(tmp_path), option, "200ms")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        if option == "--handshake-timeout":
            connection.sendall(b"GET / HTTP/1.1\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        else:
            assert connection.recv(1) == b""


def test_an_upstream_that_does_not_answer_is_504(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = start("reverse", "--to", to, "--response-header-timeout", "100ms", "--access-log", "json")
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 504 ")
        assert json.loads(server.expect(r"^{.*}$")[0])["http.response.status_code"] == 504


def test_connections_leave_lines_in_the_access_log(start: Start) -> None:
    echo = start("echo", "--access-log", "common")
    forward = start("forward", "--to", echo.address, "--access-log", "combined")
    with socket.create_connection(("127.0.0.1", forward.port), timeout=20) as connection:
        assert say(connection, b"hello") == b"hello"
    echo.expect(r'^127\.0\.0\.1 - - \[.*\] "ECHO" - 5$')
    target = re.escape(echo.address)
    forward.expect(rf'^127\.0\.0\.1 - - \[.*\] "FORWARD {target}" - 5 "5 bytes up" "\d+\.\d+ s"$')


def test_users_of_a_file_and_of_the_environment(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users").write_text("# ours\njohn:se:cret\n")
    monkeypatch.setenv("LLAMA_USER", "jane:with space\nmary:other")
    echo = start("echo")
    server = start("socks5", "--user-file", "users", "--access-log", "json")
    monkeypatch.delenv("LLAMA_USER")
    for user in ("john:se%3Acret", "jane:with%20space", "mary:other"):
        forward = start("forward", "--to", echo.address, "--via", f"socks5://{user}@{server.address}")
        with socket.create_connection(("127.0.0.1", forward.port), timeout=20) as connection:
            assert say(connection, b"hello") == b"hello"
        line = json.loads(server.expect(r"^{.*}$")[0])
        assert (line["user.name"], line["server.address"]) == (user.partition(":")[0], echo.address)
        assert (line["client.bytes"], line["server.bytes"], line["error.type"]) == (5, 5, "")


def test_files_of_a_directory(start: Start, tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a.txt").write_text("a" * 2000)
    server = start(
        "static", "public", "--listing", "--cache-control", "max-age=60", "--compress", "--access-log"
    )

    def get(path: str, *lines: str) -> bytes:
        head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", "Connection: close", *lines, "", ""])
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(head.encode())
            with connection.makefile("rb") as answer:
                return answer.read()

    assert b'<a href="./a.txt">' in get("/")
    plain = get("/a.txt")
    assert b"Cache-Control: max-age=60\r\n" in plain
    assert plain.endswith(b"\r\n\r\n" + b"a" * 2000)
    assert b"Content-Encoding: gzip\r\n" in get("/a.txt", "Accept-Encoding: gzip")
    assert get("/../secret").startswith(b"HTTP/1.1 404 ")
    server.expect(r'"GET / HTTP/1\.1" 200 \d+ "-" "-"$')

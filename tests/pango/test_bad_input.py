"""What is no TLS, too slow, or leaves: each ends soon, with one line in the log, and nothing else notices."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llama.tls import CertificateAuthority
from tests.pango.conftest import write_pair
from tests.pango.process import Proxy

HANDSHAKE = 0.5  # seconds that a handshake may take here
ENDS = 5.0  # seconds within which a bad connection has to be gone


@pytest.fixture(scope="module")
def folder(authority: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_pair(authority, folder, "c.pem", "k.pem", "localhost")
    authority.write_pem(folder / "ca.pem")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, echo: str) -> Iterator[Proxy]:
    """One for all of these tests, which it has to outlive; it logs nothing beside what they look at."""
    server = Proxy(
        folder, "--cert", "c.pem", "--key", "k.pem", "--to", echo, "--handshake-timeout", f"{HANDSHAKE:g}s"
    )
    yield server
    try:
        log = "\n".join(server.stop())
        assert "Traceback" not in log
        assert "ERROR" not in log
    finally:
        server.discard()


class Bystander:
    """A TLS connection that was there before and has to be there afterwards."""

    def __init__(self, server: Proxy, folder: Path) -> None:
        self._context = ssl.create_default_context(cafile=folder / "ca.pem")
        self._stream = open_tls(server, self._context)

    def check(self, server: Proxy) -> None:
        """It still works, and so does a new one."""
        for each in (self._stream, open_tls(server, self._context)):
            each.sendall(b"still here")
            assert each.recv(100) == b"still here"
            each.unwrap().close()


def open_tls(server: Proxy, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", server.port), 10)
    return context.wrap_socket(raw, server_hostname="localhost")


def hello(minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> bytes:
    """A ClientHello as Python's own client makes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.minimum_version = minimum
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def rest(connection: socket.socket) -> bytes:
    """Everything that the server says until it ends the connection, in whichever way."""
    connection.settimeout(ENDS)
    said = b""
    try:
        while data := connection.recv(65536):
            said += data
    except ConnectionResetError:
        pass
    return said


def send_and_wait(data: bytes) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        connection.sendall(data)
        rest(connection)

    return act


def send_and_leave(data: bytes) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        rest(connection)

    return act


def drip(connection: socket.socket) -> None:
    """A ClientHello of a few bytes at a time, for ever."""
    connection.settimeout(0.1)
    for byte in hello():
        try:
            connection.send(bytes([byte]))
            if connection.recv(1) == b"":
                return
        except TimeoutError:
            continue
        except OSError:
            return
    pytest.fail("the server took the whole ClientHello")


SSL2 = bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16)
SSL3 = b"\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00" + bytes(32) + b"\x00\x00\x02\x00\x0a\x01\x00"
TLS10 = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x01" + bytes(32) + b"\x00\x00\x02\x00\x2f\x01\x00"

BAD: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "garbage": (send_and_wait(b"\xff\x00garbage\r\n\r\n" * 9), "TLS handshake failed: "),
    "zeros": (send_and_wait(bytes(100)), "TLS handshake failed: "),
    "plain HTTP": (send_and_wait(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), "HTTP"),
    "a CONNECT": (send_and_wait(b"CONNECT a:443 HTTP/1.1\r\n\r\n"), "HTTP"),
    "SSH": (send_and_wait(b"SSH-2.0-OpenSSH_9.6\r\n"), "TLS handshake failed: "),
    "SSLv2": (send_and_wait(SSL2), "TLS handshake failed: "),
    "SSLv3": (send_and_wait(SSL3), "none of the enabled TLS versions"),
    "TLS 1.0": (send_and_wait(TLS10), "none of the enabled TLS versions"),
    "an alert": (send_and_wait(b"\x15\x03\x01\x00\x02\x02\x28"), "TLS handshake failed: "),
    "a record that is too long": (send_and_wait(b"\x16\x03\x01\xff\xff" + bytes(99)), "TLS handshake failed: "),
    "a hello that is too long": (
        send_and_wait(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16380)),
        "TLS handshake failed: ",
    ),
    "a truncated hello": (send_and_leave(hello()[:100]), "TLS handshake failed: "),
    "a hello, then nothing more": (send_and_wait(hello()), f"TLS handshake timed out after {HANDSHAKE:g} s"),
    "a hello, then the end": (send_and_leave(hello()), "TLS handshake failed: the peer closed the connection"),
    "a hello, then garbage": (send_and_wait(hello() + b"garbage" * 100), "TLS handshake failed: "),
    "silence": (send_and_wait(b""), f"TLS handshake timed out after {HANDSHAKE:g} s"),
    "a byte, then silence": (send_and_wait(b"\x16"), f"TLS handshake timed out after {HANDSHAKE:g} s"),
    "a slow hello": (drip, f"TLS handshake timed out after {HANDSHAKE:g} s"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_ends_soon_with_one_line(server: Proxy, folder: Path, what: str) -> None:
    act, words = BAD[what]
    bystander = Bystander(server, folder)
    started = time.monotonic()
    with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
        port = connection.getsockname()[1]
        act(connection)
    assert time.monotonic() - started < ENDS
    before = len(server.log)
    server.expect(rf"WARNING \S+ 127\.0\.0\.1:{port}: .*{re.escape(words)}")
    bystander.check(server)
    assert len(server.log) == before + 1


STAGES = {
    "at once": ("the peer sent nothing", "WARNING"),
    "within the hello": ("the peer closed the connection before its ClientHello", "WARNING"),
    "after the hello": ("the peer closed the connection during the handshake", "WARNING"),
    "after the handshake": ("ended without close_notify", "INFO"),
    "with data": ("", "INFO"),  # closing over bytes that were not read is a reset
}


@pytest.mark.parametrize("reset", [False, True], ids=["by FIN", "by RST"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_peer_may_vanish_at_every_stage(server: Proxy, folder: Path, stage: str, reset: bool) -> None:
    bystander = Bystander(server, folder)
    connection = socket.create_connection(("127.0.0.1", server.port), 10)
    port = connection.getsockname()[1]
    if stage == "within the hello":
        connection.sendall(hello()[:50])
    elif stage == "after the hello":
        connection.sendall(hello())
        connection.recv(65536)
    elif stage in ("after the handshake", "with data"):
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        connection = context.wrap_socket(connection, server_hostname="localhost")
        connection.sendall(b"x" * (100000 if stage == "with data" else 1))
        connection.recv(1)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()
    words, level = ("", "INFO|WARNING") if reset else STAGES[stage]
    before = len(server.log)
    server.expect(rf"({level}) \S+ 127\.0\.0\.1:{port}: .*{words}")
    bystander.check(server)
    assert len(server.log) == before + 1

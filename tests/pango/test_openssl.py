"""`openssl s_client` through pango to nginx."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from llama.tls import CertificateAuthority
from tests.pango.conftest import Start, needs, write_pair
from tests.pango.nginx import Nginx
from tests.pango.process import Proxy

pytestmark = [pytest.mark.peer, needs("openssl", "nginx")]
GET = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Client:
    """A running s_client; a line that begins with R, k or K is a command to it."""

    def __init__(self, server: Proxy, cwd: Path, *options: str) -> None:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", "ca.pem"]
        self.said = ""
        self.process = subprocess.Popen(
            [*command, "-verify_return_error", *options],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def expect(self, words: str, patience: float = 20) -> str:
        """Read until these words came; all that was said since the last look."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + patience
        while words not in self.said:
            waiting = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self.process.stdout], [], [], waiting)
            data = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            assert data, f"s_client did not say {words!r}:\n{self.said}"
            self.said += data.decode(errors="replace")
        before, _, self.said = self.said.partition(words)
        return before

    def end(self) -> str:
        """Close its input; the rest of what it says."""
        said, _ = self.process.communicate(timeout=20)
        return self.said + said.decode(errors="replace")


class Connect(Protocol):
    def __call__(self, server: Proxy, *options: str) -> Client: ...


@pytest.fixture
def s_client(files: Path) -> Iterator[Connect]:
    running: list[Client] = []

    def start(server: Proxy, *options: str) -> Client:
        running.append(Client(server, files, *options))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.communicate()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_page_over_each_version(proxy: Start, nginx: Nginx, s_client: Connect, version: str) -> None:
    server = proxy("--to", nginx.web)
    client = s_client(server, f"-tls{version.replace('.', '_')}", "-servername", "localhost")
    client.type(GET)
    assert f"TLSv{version}" in client.expect("hello from nginx")
    client.end()
    server.stop()
    assert server.complaints() == []


@pytest.mark.parametrize("command", ["k", "K"])
def test_keys_are_updated_while_the_connection_lives(
    proxy: Start, nginx: Nginx, s_client: Connect, command: str
) -> None:
    server = proxy("--to", nginx.web)
    client = s_client(server, "-tls1_3")
    for _ in range(3):
        client.type(GET)
        client.expect("hello from nginx")
        client.type(f"{command}\n")
        client.expect("KEYUPDATE")
    client.type(GET)
    client.expect("hello from nginx")
    client.end()
    server.stop()
    assert server.complaints() == []


def test_renegotiation_is_refused_and_hurts_nobody_else(
    proxy: Start, nginx: Nginx, s_client: Connect
) -> None:
    server = proxy("--to", nginx.web)
    other, client = s_client(server, "-tls1_2"), s_client(server, "-tls1_2")
    for each in (other, client):
        each.type(GET)
        each.expect("hello from nginx")
    client.type("R\n")
    client.expect("RENEGOTIATING")
    assert "no renegotiation" in client.end()
    other.type(GET)
    other.expect("hello from nginx")
    other.end()
    server.stop()
    (complaint,) = server.complaints()
    assert "the peer sent the alert handshake_failure" in complaint


def test_a_name_without_a_certificate_gets_the_default_one(
    proxy: Start, nginx: Nginx, s_client: Connect
) -> None:
    server = proxy("--to", nginx.web)
    client = s_client(server, "-servername", "wrong.example", "-verify_hostname", "localhost")
    client.type(GET)
    client.expect("hello from nginx")
    mistrusting = s_client(server, "-servername", "wrong.example", "-verify_hostname", "wrong.example")
    mistrusting.expect("hostname mismatch")
    assert mistrusting.process.wait(20) == 1
    client.end()
    server.stop()
    (complaint,) = server.complaints()
    assert "TLS handshake failed: the peer sent the alert bad_certificate" in complaint


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_client_certificates(
    proxy: Start,
    nginx: Nginx,
    s_client: Connect,
    files: Path,
    authority: CertificateAuthority,
    version: str,
) -> None:
    write_pair(authority, files, "client.pem", "client.key", "john", client=True)
    stranger = CertificateAuthority.create(name="somebody else")
    write_pair(stranger, files, "stranger.pem", "stranger.key", "john", client=True)
    server = proxy("--to", nginx.web, "--client-ca", "ca.pem")
    known = s_client(server, version, "-cert", "client.pem", "-key", "client.key")
    known.type(GET)
    known.expect("hello from nginx")
    s_client(server, version, "-cert", "stranger.pem", "-key", "stranger.key").expect("alert unknown ca")
    nobody = "alert certificate required" if version == "-tls1_3" else "alert handshake failure"
    s_client(server, version).expect(nobody)
    known.end()
    server.stop()
    assert len(server.complaints()) == 2


def test_a_session_without_a_client_certificate_is_not_resumed_where_one_is_required(
    proxy: Start, nginx: Nginx, s_client: Connect
) -> None:
    """Tickets are each server's own: a session of an open server opens no door of a closed one."""
    free = proxy("--to", nginx.web)
    first = s_client(free, "-sess_out", "session")
    first.type(GET)
    first.expect("hello from nginx")
    first.end()
    closed = proxy("--to", nginx.web, "--client-ca", "ca.pem")
    s_client(closed, "-sess_in", "session").expect("alert certificate required")


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(proxy: Start, nginx: Nginx, s_client: Connect, version: str) -> None:
    server = proxy("--to", nginx.web)
    old = s_client(server, version, "-cipher", "DEFAULT:@SECLEVEL=0")
    old.expect("alert protocol version")
    server.stop()
    (complaint,) = server.complaints()
    assert "none of the enabled TLS versions" in complaint

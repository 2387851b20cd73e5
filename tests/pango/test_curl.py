"""curl through pango to nginx."""

import hashlib
import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from llama.tls import CertificateAuthority
from tests.pango.conftest import Start, needs, write_pair
from tests.pango.nginx import Nginx
from tests.pango.process import Proxy
from tests.pango.test_http import nobody

pytestmark = [pytest.mark.peer, needs("curl", "nginx")]
MEGABYTES = 64
BROKEN = (35, 52, 55, 56)  # curl's words for a connection that ended without an answer


def curl(proxy: Proxy, path: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "60", "--cacert", "ca.pem", *options]
    return subprocess.run([*command, proxy.url + path], capture_output=True, timeout=90, check=False)


@pytest.mark.parametrize(("version", "options"), [("1.2", ["--tls-max", "1.2"]), ("1.3", ["--tlsv1.3"])])
def test_a_page_over_each_version(proxy: Start, nginx: Nginx, version: str, options: list[str]) -> None:
    server = proxy("--to", nginx.web)
    done = curl(server, "/hello", *options, "-v")
    assert done.stdout == b"hello from nginx\n"
    assert f"SSL connection using TLSv{version}".encode() in done.stderr
    server.stop()
    assert server.complaints() == []


def test_the_lowest_version_can_be_raised(proxy: Start, nginx: Nginx) -> None:
    server = proxy("--to", nginx.web, "--tls-min", "1.3")
    assert curl(server, "/hello", "--tls-max", "1.2").returncode == 35
    assert curl(server, "/hello").stdout == b"hello from nginx\n"
    server.stop()
    assert len(server.complaints()) == 1


def test_a_connection_is_kept_and_the_session_resumed(proxy: Start, nginx: Nginx) -> None:
    server = proxy("--to", nginx.web)
    done = curl(server, "/hello", f"{server.url}/hello", "-v")
    assert done.stdout == b"hello from nginx\n" * 2
    assert b"Re-using existing connection" in done.stderr
    server.stop()
    assert server.complaints() == []


def test_large_bodies_arrive_whole_both_ways(proxy: Start, nginx: Nginx, files: Path) -> None:
    server = proxy("--to", nginx.web)
    content = os.urandom(1 << 20) * MEGABYTES
    sent = files / "sent"
    sent.write_bytes(content)
    assert curl(server, "/stored", "-T", str(sent)).returncode == 0
    assert curl(server, "/stored", "-o", "received").returncode == 0
    wanted = hashlib.sha256(content).hexdigest()
    assert hashlib.sha256((nginx.www / "stored").read_bytes()).hexdigest() == wanted
    assert hashlib.sha256((files / "received").read_bytes()).hexdigest() == wanted
    server.stop()
    assert server.complaints() == []


def test_a_client_certificate_is_required(
    proxy: Start, nginx: Nginx, files: Path, authority: CertificateAuthority
) -> None:
    write_pair(authority, files, "client.pem", "client.key", "john", client=True)
    stranger = CertificateAuthority.create(name="somebody else")
    write_pair(stranger, files, "stranger.pem", "stranger.key", "john", client=True)
    server = proxy("--to", nginx.web, "--client-ca", "ca.pem")
    assert (
        curl(server, "/hello", "--cert", "client.pem", "--key", "client.key").stdout == b"hello from nginx\n"
    )
    assert curl(server, "/hello").returncode in BROKEN
    assert curl(server, "/hello", "--cert", "stranger.pem", "--key", "stranger.key").returncode in BROKEN
    server.stop()
    none, other = server.complaints()
    assert "the client sent no certificate, and one is required" in none
    assert "certificate is not trusted" in other


def test_a_certificate_is_chosen_by_name(
    proxy: Start, nginx: Nginx, files: Path, authority: CertificateAuthority
) -> None:
    write_pair(authority, files, "b.pem", "b.key", "*.b.example")
    server = proxy(
        "--cert", "c.pem", "--key", "k.pem", "--cert", "b.pem", "--key", "b.key", "--to", nginx.web
    )
    site = f"https://www.b.example:{server.port}"
    done = curl(server, "/hello", f"{site}/hello", "--resolve", f"www.b.example:{server.port}:127.0.0.1")
    assert done.stdout == b"hello from nginx\n" * 2


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_target_is_told_the_clients_address(proxy: Start, nginx: Nginx, version: str) -> None:
    server = proxy("--to", nginx.proxied, "--proxy-protocol", version)
    assert curl(server, "/").stdout == f"127.0.0.1 {server.port}\n".encode()


def test_a_clients_address_is_passed_on_from_proxy_to_proxy(proxy: Start, nginx: Nginx, files: Path) -> None:
    server = proxy("--to", nginx.proxied, "--proxy-protocol", "--proxy-protocol-from", "127.0.0.0/8")
    context = ssl.create_default_context(cafile=files / "ca.pem")
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\r\n")
        with context.wrap_socket(connection, server_hostname="localhost") as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            said = b"".join(iter(lambda: client.recv(65536), b""))
    assert said.endswith(b"203.0.113.7 443\n")


def test_tls_to_the_target_is_verified(
    proxy: Start, nginx: Nginx, files: Path, authority: CertificateAuthority
) -> None:
    inner = proxy("--to", nginx.web)
    outer = proxy("--to", f"tls://localhost:{inner.port}", "--to-ca", "ca.pem")
    assert curl(outer, "/hello").stdout == b"hello from nginx\n"
    CertificateAuthority.create(name="somebody else").write_pem(files / "other.pem")
    doubting = proxy("--to", f"tls://localhost:{inner.port}", "--to-ca", "other.pem")
    assert curl(doubting, "/hello").returncode in BROKEN
    doubting.stop()
    assert len(doubting.complaints()) == 1
    assert "certificate is not trusted" in doubting.complaints()[0]
    trusting = proxy("--to", f"tls://localhost:{inner.port}", "--to-insecure")
    assert curl(trusting, "/hello").stdout == b"hello from nginx\n"


def test_when_no_target_answers_the_connection_breaks(proxy: Start) -> None:
    server = proxy("--to", "unix:nowhere", "--to", "127.0.0.1:1")
    assert curl(server, "/").returncode in BROKEN
    server.stop()
    first, second, whole = server.complaints()
    assert first.startswith("upstream unix:nowhere ejected for 10 s: cannot connect to unix:nowhere: ")
    assert second.startswith("upstream 127.0.0.1:1 ejected for 10 s: cannot connect to 127.0.0.1:1: ")
    assert "none of 2 targets answers" in whole


def test_a_protocol_is_agreed_on(proxy: Start, nginx: Nginx) -> None:
    server = proxy("--to", nginx.web, "--alpn", "http/1.1")
    done = curl(server, "/hello", "-v")
    assert done.stdout == b"hello from nginx\n"
    assert b"accepted http/1.1" in done.stderr
    server.stop()
    assert server.complaints() == []


def test_a_client_of_another_protocol_is_refused(proxy: Start, nginx: Nginx) -> None:
    server = proxy("--to", nginx.web, "--alpn", "mqtt")
    done = curl(server, "/hello", "--http1.1")
    assert done.returncode == 35
    assert b"no application protocol" in done.stderr
    server.stop()
    (complaint,) = server.complaints()
    assert "the client offers http/1.1 in ALPN, expected mqtt" in complaint


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/", "502", "destination_unavailable"),
        (f"/{'x' * 40_000}", "414", "http_request_error"),
    ],
)
def test_pango_names_itself_in_its_error_pages(
    proxy: Start, files: Path, version: str, path: str, status: str, error: str
) -> None:
    server = proxy("--to", f"http://{nobody()}")
    first, *lines = curl(server, path, version, "-i").stdout.decode().splitlines()
    assert first.split()[1] == status
    assert f"proxy-status: pango; error={error}" in [line.lower() for line in lines]

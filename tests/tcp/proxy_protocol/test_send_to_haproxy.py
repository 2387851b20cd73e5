"""The PROXY protocol with HAProxy at the other end: each understands what the other sends."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama.tcp._proxy_protocol.header import ProxyHeader, parse
from llama.tcp._proxy_protocol.tlv import TlvType
from llama.tls._certificates.authority import CertificateAuthority

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
pytestmark = [pytest.mark.peer, pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")]

PATIENCE = 20.0
AUTHORITY = CertificateAuthority.create()


@contextmanager
def haproxy(
    folder: Path, bind: str, server: str
) -> Generator[tuple[tuple[str, int], socket.socket], None, None]:
    """HAProxy between two sockets of ours: where it listens, and the socket that it connects to."""
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as front, socket.create_server(("127.0.0.1", 0)) as back:
        back.settimeout(PATIENCE)
        front.set_inheritable(True)
        settings = folder / "haproxy.cfg"
        settings.write_text(
            "defaults\n mode tcp\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n"
            f"listen it\n unique-id-format id-of-%ci\n bind fd@{front.fileno()} {bind}\n"
            f" server one 127.0.0.1:{back.getsockname()[1]} {server}\n"
        )
        command = [HAPROXY, "-db", "-q", "-f", str(settings)]
        with subprocess.Popen(command, pass_fds=[front.fileno()], stderr=subprocess.PIPE) as process:
            try:
                yield front.getsockname(), back
            finally:
                process.kill()


def receive_header(back: socket.socket) -> ProxyHeader:
    connection, _ = back.accept()
    data = b""
    with connection:
        connection.settimeout(PATIENCE)
        while (found := parse(data)) is None:
            piece = connection.recv(1)
            assert piece, f"the connection ended after {data!r}"
            data += piece
    return found[0]


@pytest.mark.parametrize(
    "how", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"]
)
def test_headers_from_haproxy_are_parsed(tmp_path: Path, how: str) -> None:
    with haproxy(tmp_path, "", how) as (address, back), socket.create_connection(address) as client:
        header = receive_header(back)
        mine, its = client.getsockname(), client.getpeername()
    assert (header.command, header.family, header.source, header.destination) == ("proxy", "tcp4", mine, its)
    assert header.unique_id == (b"id-of-127.0.0.1" if "unique-id" in how else None)


def test_tls_information_from_haproxy_is_parsed(tmp_path: Path) -> None:
    pair = AUTHORITY.issue("a.example")
    (tmp_path / "site.pem").write_bytes(pair.cert_pem + pair.key_pem)
    AUTHORITY.write_pem(tmp_path / "ca.pem")
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.load_cert_chain(*AUTHORITY.issue("john", client=True).write(tmp_path / "client"))
    bind = f"ssl crt {tmp_path / 'site.pem'} alpn h2 ca-file {tmp_path / 'ca.pem'} verify required"
    server = "send-proxy-v2-ssl-cn proxy-v2-options crc32c,authority,cert-key,cert-sig,ssl-cipher"
    with (
        haproxy(tmp_path, bind, server) as (address, back),
        socket.create_connection(address) as raw,
        context.wrap_socket(raw, server_hostname="a.example") as client,
    ):
        client.settimeout(PATIENCE)
        header = receive_header(back)
        cipher = client.cipher()
    assert (header.alpn, header.authority) == (b"h2", "a.example")
    told = header.ssl
    assert told is not None
    assert cipher is not None
    assert (told.tls, told.verified, told.certificate_now) == (True, True, True)
    assert (told.version, told.common_name, told.cipher) == ("TLSv1.3", "john", cipher[0])
    assert (told.key_algorithm, told.signature_algorithm) == ("EC256", "ecdsa-with-SHA256")


@pytest.mark.parametrize(
    "header",
    [
        ProxyHeader("proxy", "tcp4", ("192.0.2.1", 56324), ("198.51.100.2", 443)),
        ProxyHeader("proxy", "tcp6", ("2001:db8::1", 56324), ("2001:db8::2", 443)),
    ],
)
def test_haproxy_accepts_encoded_headers(tmp_path: Path, header: ProxyHeader) -> None:
    rich = ProxyHeader(
        header.command,
        header.family,
        header.source,
        header.destination,
        ((TlvType.ALPN, b"h2"), (TlvType.AUTHORITY, b"a.example"), (TlvType.UNIQUE_ID, b"7"), (0xE0, b"own")),
    )
    sent = [header.encode_v1(), header.encode_v2(), rich.encode_v2(), rich.encode_v2(checksum=True)]
    with haproxy(tmp_path, "accept-proxy", "send-proxy-v2") as (address, back):
        for data in sent:
            with socket.create_connection(address) as client:
                client.sendall(data)
                got = receive_header(back)
            assert (got.source, got.destination) == (header.source, header.destination)


def test_haproxy_uses_the_socket_addresses_of_a_local_connection(tmp_path: Path) -> None:
    settings = tmp_path, "accept-proxy", "send-proxy-v2"
    with haproxy(*settings) as (address, back), socket.create_connection(address) as client:
        client.sendall(ProxyHeader("local").encode_v2())
        assert receive_header(back).source == client.getsockname()


def test_haproxy_verifies_the_checksum_that_is_sent(tmp_path: Path) -> None:
    header = ProxyHeader("proxy", "tcp4", ("192.0.2.1", 56324), ("198.51.100.2", 443))
    wrong = bytearray(header.encode_v2(checksum=True))
    wrong[-1] ^= 1
    settings = tmp_path, "accept-proxy", "send-proxy-v2"
    with haproxy(*settings) as (address, _), socket.create_connection(address) as client:
        client.settimeout(PATIENCE)
        client.sendall(wrong)
        assert end_of(client) in ("closed", "reset")


def end_of(connection: socket.socket) -> str:
    try:
        return "data" if connection.recv(1) else "closed"
    except ConnectionResetError:
        return "reset"

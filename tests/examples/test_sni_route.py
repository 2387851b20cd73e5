import ssl
from pathlib import Path

import pytest

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all, service, tls_client


def test_the_name_decides(example: Start, authority: tls.CertificateAuthority, tmp_path: Path) -> None:
    pair = authority.issue("*.b.example")
    (tmp_path / "b.pem").write_bytes(pair.cert_pem)
    (tmp_path / "b.key").write_bytes(pair.key_pem)
    with service(bytes.upper) as terminated, service(lambda hello: hello[:1]) as passed:
        running = example("sni_route", {8080: terminated, 9443: passed})
        port = running.port(8443)
        with tls_client(port, tmp_path / "ca.pem", "www.b.example") as session:
            session.sendall(b"hello")
            assert read_all(session) == b"HELLO"
        with client(port) as sock:
            sock.sendall(client_hello("a.example"))
            assert read_all(sock) == b"\x16", "the ClientHello itself arrives behind"
        with (
            pytest.raises(ssl.SSLError, match=r"(?i)unrecognized"),
            tls_client(port, tmp_path / "ca.pem", "c.example"),
        ):
            pass
        running.stop()


def client_hello(name: str) -> bytes:
    outgoing = ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()

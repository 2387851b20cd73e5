from pathlib import Path

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import read_all, tls_client


def test_an_application_is_served_in_one_line(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    pair = authority.issue("localhost")
    (tmp_path / "site.pem").write_bytes(pair.cert_pem)
    (tmp_path / "site.key").write_bytes(pair.key_pem)
    running = example("pango_asgi")
    with tls_client(running.port(443), tmp_path / "ca.pem") as session:
        session.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        said = read_all(session)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"hello\n" in said
    running.stop()

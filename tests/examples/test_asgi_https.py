from pathlib import Path

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all, tls_client

ASK = b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_https_answers_and_http_leads_there(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    pair = authority.issue("localhost")
    (tmp_path / "site.pem").write_bytes(pair.cert_pem)
    (tmp_path / "site.key").write_bytes(pair.key_pem)
    running = example("asgi_https")
    with tls_client(running.port(443), tmp_path / "ca.pem") as session:
        session.sendall(ASK)
        assert b"https /page\n" in read_all(session)
    with client(running.port(80)) as plain:
        plain.sendall(ASK)
        assert b"location: https://localhost/page\r\n" in read_all(plain).lower()
    running.stop()

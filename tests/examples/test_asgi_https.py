from pathlib import Path

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all, tls_client

GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_an_application_answers_by_https_and_the_plain_port_leads_there(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    authority.issue("localhost").write(tmp_path)
    running = example("asgi_https")
    with tls_client(running.port(8443), tmp_path / "ca.pem") as session:
        session.sendall(GET)
        assert b"hello by https\n" in read_all(session)
    with client(running.port(8080)) as sock:
        sock.sendall(GET)
        assert b"\r\nLocation: https://localhost:8443/a\r\n" in read_all(sock)
    running.stop()

from pathlib import Path

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import read_all, tls_client


def test_the_application_answers_over_https(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    authority.issue("localhost").write(tmp_path)
    running = example("pango_app")
    with tls_client(running.port(8443), tmp_path / "ca.pem") as session:
        session.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = read_all(session)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Hello from an ASGI application.\n" in answer
    running.stop()

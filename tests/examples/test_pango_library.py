from pathlib import Path

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import read_all, service, tls_client

PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n%b"


def test_an_application_and_two_services_answer_over_https(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    authority.issue("localhost").write(tmp_path)

    def get(port: int) -> bytes:
        with tls_client(port, tmp_path / "ca.pem") as session:
            session.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return read_all(session)

    with service(lambda _: PAGE % b"first") as first, service(lambda _: PAGE % b"other") as second:
        running = example("pango_library", {8081: first, 8082: second})
        assert get(running.port(8443)).endswith(b"Hello from an ASGI application.\n")
        turns = [get(running.port(9443))[-5:] for _ in range(2)]
        assert sorted(turns) == [b"first", b"other"]
        running.stop()

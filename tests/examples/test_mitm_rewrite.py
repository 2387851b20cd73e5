import ssl
from pathlib import Path

from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all, service

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\nmade by the cloud"


def test_pages_are_changed_for_clients_that_trust_the_authority(example: Start, tmp_path: Path) -> None:
    with service(lambda heard: PAGE) as port:
        running = example("mitm_rewrite", {80: port})
        with client(running.port(8080)) as sock:
            sock.sendall(b"GET http://127.0.0.1/ HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            assert read_all(sock).endswith(b"\r\n\r\nmade by the llama")
        context = ssl.create_default_context(cafile=str(tmp_path / "ca" / "ca.pem"))
        with client(running.port(8080)) as sock:
            sock.sendall(b"CONNECT llama.internal:443 HTTP/1.1\r\nHost: llama.internal\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            with context.wrap_socket(sock, server_hostname="llama.internal") as session:
                session.sendall(b"GET /ca.pem HTTP/1.0\r\nHost: llama.internal\r\n\r\n")
                got = b""
                while data := session.recv(65536):
                    got += data
        assert got.endswith((tmp_path / "ca" / "ca.pem").read_bytes())
        running.stop()

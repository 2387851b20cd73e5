from pathlib import Path

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import read_all, service, tls_client


def test_a_connection_passes_all_guards_and_leaves_a_line(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    authority.issue("localhost").write(tmp_path)
    with service(bytes.upper) as port:
        running = example("guarded", {8080: port})
        with tls_client(running.port(8443), tmp_path / "ca.pem") as session:
            session.sendall(b"hello")
            assert read_all(session) == b"HELLO"
        log = running.stop()
    assert "site" in log
    assert "127.0.0.1" in log

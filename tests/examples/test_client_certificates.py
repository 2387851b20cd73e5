import ssl
from pathlib import Path

import pytest

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import read_all, tls_client


def test_only_who_shows_a_certificate_gets_in(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    authority.issue("localhost").write(tmp_path)
    john = authority.issue("john", client=True).write(tmp_path / "john")
    running = example("client_certificates")
    port = running.port(8443)
    with tls_client(port, tmp_path / "ca.pem", certificate=john) as session:
        assert read_all(session) == b"you are john\n"
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),  # by TLS 1.3 the refusal comes with the first read
        tls_client(port, tmp_path / "ca.pem") as session,
    ):
        read_all(session)
    running.stop()

"""Repeated --cert and --key: a certificate with each type of key for one name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from llama.tls import CertificateAuthority
from tests.cli.conftest import Llama
from tests.pango.process import Pango
from tests.tls.programs import needs


class TwoTypes:
    """A server with certificates whose keys are RSA and EC, as files of a folder."""

    def __init__(self, folder: Path, command: str) -> None:
        authority = CertificateAuthority.create(name="tests")
        authority.write_pem(folder / "ca.pem")
        options: list[str] = []
        for kind in ("rsa", "ec"):
            cert, key = authority.issue("localhost", key=kind).write(folder / kind)
            options += ["--cert", str(cert), "--key", str(key)]
        if command == "pango":
            self.server: Pango = Pango(
                folder, "serve", "--listen", "127.0.0.1:0", *options, "--to", "127.0.0.1:1"
            )
            self.port = int(self.server.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
        else:
            started = Llama(folder, "echo", *options)
            self.server, self.port = started, started.port


@pytest.mark.peer
@needs("openssl")
@pytest.mark.parametrize("command", ["llama", "pango"])
def test_each_client_gets_the_type_of_key_that_it_takes(tmp_path: Path, command: str) -> None:
    two = TwoTypes(tmp_path, command)
    try:
        for algorithms, expected in (("ECDSA+SHA256:RSA+SHA256", "ECDSA"), ("RSA-PSS+SHA256", "RSA-PSS")):
            done = subprocess.run(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{two.port}", "-CAfile", "ca.pem",
                 "-servername", "localhost", "-verify_return_error", "-sigalgs", algorithms],
                cwd=tmp_path, input=b"", capture_output=True, timeout=20, check=False,
            )  # fmt: skip
            assert f"Peer signature type: {expected}" in done.stdout.decode(), done.stderr
    finally:
        two.server.discard()

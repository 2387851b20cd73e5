import os
import subprocess
from pathlib import Path

import pytest

from llama import tls
from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all, service
from tests.pango.conftest import needs

PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


@pytest.mark.peer
@needs("curl")
def test_every_kind_of_proxy_is_on_one_port(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    authority.issue("localhost").write(tmp_path)
    with service(lambda _: PAGE) as web, service(lambda said: said + b"indeed") as ssh:
        running = example("one_port", {22: ssh})
        port = running.port(8443)
        page = f"http://127.0.0.1:{web}/"
        for kind in ("socks5", "http", "https"):
            assert curl(tmp_path, "-x", f"{kind}://localhost:{port}", page) == b"hello", kind
            assert curl(tmp_path, "-p", "-x", f"{kind}://localhost:{port}", page) == b"hello", kind
        with client(port) as sock:
            sock.sendall(b"SSH-2.0-me\r\n")
            assert read_all(sock) == b"SSH-2.0-me\r\nindeed"
        with client(port) as sock:
            sock.sendall(b"\xff\xff")
            assert read_all(sock) == b""
        running.stop()


def curl(folder: Path, *arguments: str) -> bytes:
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = ["curl", "-sS", "--max-time", "20", "--proxy-cacert", str(folder / "ca.pem"), *arguments]
    return subprocess.run(command, capture_output=True, timeout=30, check=True, env=clean).stdout

from pathlib import Path

import pytest

pytest.importorskip("qh3")

from llama import http, tls
from llama.http import Request
from tests.examples.conftest import Start


async def test_the_second_visit_is_over_http3(
    example: Start, authority: tls.CertificateAuthority, tmp_path: Path
) -> None:
    authority.issue("localhost").write(tmp_path)
    running = example("http3")
    url = f"https://localhost:{running.port(8443)}/"
    ca = tmp_path / "ca.pem"
    async with (
        http.client(tls=tls.connect(ca=ca)) as over_tcp,
        http.h3_client(ca=ca, fallback=over_tcp) as client,
    ):
        answers: list[bytes] = []
        for _ in range(2):
            response = await client(Request("GET", url))
            answers.append(await response.body.read())
    assert answers == [b"hello over HTTP/2\n", b"hello over HTTP/3\n"]
    running.stop()

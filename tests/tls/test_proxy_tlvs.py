"""What a target learns of the client's TLS from a PROXY header."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import ConnectionHandler, Connector, Stream, Target, serve, stack, tcp, tls
from llama.tcp import ProxyHeader
from llama.tls import CertificateAuthority

AUTHORITY = CertificateAuthority.create()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AUTHORITY.issue("localhost").write(tmp_path / "site")
    AUTHORITY.issue("john", client=True).write(tmp_path / "john")
    AUTHORITY.write_pem(tmp_path / "ca.pem")
    return tmp_path


@asynccontextmanager
async def in_front_of(
    proxy: ConnectionHandler, backend: str
) -> AsyncGenerator[tuple[int, list[ProxyHeader]]]:
    """A proxy, and a backend that remembers the headers it got and says hello."""
    headers: list[ProxyHeader] = []

    async def hello(stream: Stream) -> None:
        headers.append(stream.extensions[ProxyHeader])
        await stream.write(b"hello")

    behind = stack(tcp.proxy_protocol(trust=["unix"], require=True), hello)
    async with serve(tcp.server(backend, behind), tcp.server("127.0.0.1:0", proxy)) as server:
        yield int(server.addresses[1].rpartition(":")[2]), headers


async def greet(connect: Connector, port: int) -> None:
    stream = await connect(Target("localhost", port))
    try:
        assert await stream.read() == b"hello"
    finally:
        await stream.aclose()


def forward(to: str) -> ConnectionHandler:
    return tcp.forward(to, connect=tcp.send_proxy(tlvs=tls.proxy_tlvs, checksum=True))


async def test_a_terminated_session_has_all_tlvs(folder: Path) -> None:
    backend = f"unix:{folder / 'backend'}"
    ca, site, john = folder / "ca.pem", folder / "site", folder / "john"
    proxy = stack(
        tls.server(
            site / "cert.pem", site / "key.pem", alpn=["x", "y"], client_ca=ca, client_auth="optional"
        ),
        forward(backend),
    )
    async with in_front_of(proxy, backend) as (port, headers):
        await greet(tls.connect(ca=ca, alpn=["y"]), port)
        await greet(tls.connect(ca=ca, cert=john / "cert.pem", key=john / "key.pem"), port)
    plain, with_certificate = headers
    assert (plain.authority, plain.alpn) == ("localhost", b"y")
    assert plain.ssl is not None and with_certificate.ssl is not None
    assert (plain.ssl.tls, plain.ssl.version, plain.ssl.verified) == (True, "TLSv1.3", False)
    assert (plain.ssl.cipher or "").startswith("TLS_")
    assert with_certificate.alpn is None
    assert (with_certificate.ssl.verified, with_certificate.ssl.common_name) == (True, "john")
    assert with_certificate.ssl.certificate_now and with_certificate.ssl.certificate_in_session


async def test_without_tls_there_are_no_tlvs(folder: Path) -> None:
    backend = f"unix:{folder / 'backend'}"
    async with in_front_of(forward(backend), backend) as (port, headers):
        await greet(tcp.connect(), port)
    assert headers[0].tlvs == () and headers[0].source is not None

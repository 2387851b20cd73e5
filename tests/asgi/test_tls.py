"""What an ASGI application is told of TLS, over real TLS."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

from llama import asgi, serve, stack
from llama.http import server
from llama.tls import CertificateAuthority
from llama.tls import server as tls_server
from tests.asgi.test_http import hello
from tests.http.serving import get, last


def test_the_scope_has_tls_and_the_client_certificate(tmp_path: Path) -> None:
    authority = CertificateAuthority.create()
    ca = authority.write_pem(tmp_path / "ca.pem")
    site = authority.issue("localhost").write(tmp_path / "site")
    mary = authority.issue("mary", client=True).write(tmp_path / "mary")
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scopes.append(scope)
        await hello(scope, receive, send)

    def ask(port: int) -> bytes:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(*mary)
        context.set_alpn_protocols(["h9", "http/1.1"])
        plain = socket.create_connection(("127.0.0.1", port))
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            assert client.selected_alpn_protocol() == "http/1.1"
            client.sendall(get() + last())
            data = b""
            while more := client.recv(65536):
                data += more
            return data

    async def main() -> bytes:
        handler = stack(tls_server(*site, client_ca=ca), server(), asgi(app))
        async with serve(handler, listen="127.0.0.1:0") as serving:
            return await asyncio.to_thread(ask, serving.port)

    assert asyncio.run(main()).endswith(b"hello")
    for scope in scopes:
        assert scope["scheme"] == "https"
        tls = scope["extensions"]["tls"]
        assert tls["tls_version"] == 0x0304
        assert tls["client_cert_name"] == "CN=mary"
        assert tls["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
    assert len(scopes) == 2

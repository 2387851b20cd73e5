"""Certificates of an HTTP/3 server, chosen by server name."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("qh3")

from qh3.asyncio.client import connect
from qh3.quic.configuration import QuicConfiguration

from llama import TLSError, http, serve, tls
from llama.http import Request
from tests.http.h3.fixtures import Raw, client
from tests.http.serving import hello
from tests.tls.sessions import authority, ca_file, pair_files

NAMES = ("localhost", "a.example", "*.b.example")


@asynccontextmanager
async def site(*, early_data: bool = False) -> AsyncGenerator[str]:
    """The URL of a server with a certificate for each of the names."""
    first, *others = (tls.Certificate(*pair_files(name)) for name in NAMES)
    async with serve(
        http.h3_server("127.0.0.1:0", hello, first, None, *others, early_data=early_data)
    ) as server:
        yield f"https://localhost:{server.addresses[0].rpartition(':')[2]}/"


async def status(url: str, name: str) -> int:
    async with client(server_name=name) as ask:
        response = await ask(Request("GET", url))
        await response.aclose()
        return int(response.status)


@pytest.mark.parametrize("early_data", [False, True])
async def test_the_certificate_is_for_the_server_name(early_data: bool) -> None:
    async with site(early_data=early_data) as url:
        for name in ("localhost", "a.example", "A.Example", "x.b.example"):
            assert await status(url, name) == 200
        for name in ("b.example", "c.example"):
            with pytest.raises(TLSError):
                await status(url, name)


async def test_the_certificate_has_a_key_type_that_the_client_can_verify(tmp_path: Path) -> None:
    pairs: list[tls.Certificate] = []
    for kind in ("ec", "rsa"):
        made = authority().issue("localhost", key="rsa" if kind == "rsa" else "ec")
        (tmp_path / kind).write_bytes(made.cert_pem + made.key_pem)
        pairs.append(tls.Certificate(tmp_path / kind))
    async with serve(http.h3_server("127.0.0.1:0", hello, pairs[0], None, pairs[1])) as server:
        port = int(server.addresses[0].rpartition(":")[2])
        for scheme in (0x0403, 0x0804):
            settings = QuicConfiguration(
                alpn_protocols=["h3"],
                server_name="localhost",
                cafile=ca_file(),
                signature_algorithms=[scheme],
            )
            async with connect("127.0.0.1", port, configuration=settings, create_protocol=Raw) as connection:
                await connection.ping()


async def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    def install(name: str) -> None:
        for source, to in zip(pair_files(name), ("cert.pem", "key.pem"), strict=True):
            shutil.copy(source, tmp_path / "new")
            os.replace(tmp_path / "new", tmp_path / to)

    install("a.example")
    files = (tmp_path / "cert.pem", tmp_path / "key.pem")
    async with serve(http.h3_server("127.0.0.1:0", hello, *files)) as server:
        url = f"https://localhost:{server.addresses[0].rpartition(':')[2]}/"
        assert await status(url, "a.example") == 200
        install("c.example")
        async with asyncio.timeout(5):
            while True:  # the files are looked at once a second
                try:
                    assert await status(url, "c.example") == 200
                    break
                except TLSError:
                    await asyncio.sleep(0.1)


@pytest.mark.peer
async def test_aioquic_gets_the_certificate_for_its_name() -> None:
    aioquic = pytest.importorskip("aioquic.asyncio")
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.quic.configuration import QuicConfiguration

    class Silent(QuicConnectionProtocol):
        def quic_event_received(self, event: object) -> None: ...

    async with site() as url:
        port = int(url.rpartition(":")[2].rstrip("/"))
        for name in ("localhost", "a.example", "x.b.example"):
            settings = QuicConfiguration(alpn_protocols=["h3"], server_name=name)
            settings.load_verify_locations(ca_file())
            async with aioquic.connect(
                "127.0.0.1", port, configuration=settings, create_protocol=Silent
            ) as protocol:
                await protocol.ping()

"""SIGHUP and changed certificates while a thousand connections are in flight; SIGTERM in the middle of transfers."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import Serving, Stream, Target, serve, tls
from llama.tls import CertificateAuthority
from tests.pango.conftest import Call, Start, write_pair
from tests.pango.process import Proxy

CONNECTIONS = 1000
AT_ONCE = 50


async def answer_lines(stream: Stream) -> None:
    """Answer each line by the same line."""
    while data := await stream.read():
        await stream.write(data)


@asynccontextmanager
async def target() -> AsyncGenerator[Serving]:
    async with serve(answer_lines, listen="127.0.0.1:0") as serving:
        yield serving


class Crowd:
    """Many TLS clients of one server."""

    def __init__(self, server: Proxy, ca: Path) -> None:
        self._connect = tls.connect(ca=ca)
        self._target = Target("localhost", server.port)
        self._free = asyncio.Semaphore(AT_ONCE)
        self.streams: list[Stream] = []

    async def gather(self, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._join())

    async def _join(self) -> None:
        async with self._free:
            self.streams.append(await self._connect(self._target))

    async def say(self, words: bytes) -> None:
        """Each one says something and hears it back."""
        async with asyncio.TaskGroup() as group:
            for each in self.streams:
                group.create_task(self._echo(each, words))

    async def _echo(self, stream: Stream, words: bytes) -> None:
        async with self._free:
            await stream.write(words)
            heard = b""
            while len(heard) < len(words):
                data = await stream.read()
                assert data, "the connection ended"
                heard += data
            assert heard == words

    async def leave(self) -> None:
        async with asyncio.TaskGroup() as group:
            for each in self.streams:
                group.create_task(each.aclose())
        self.streams.clear()

    async def serial(self) -> int:
        """The serial number of the certificate that a new connection sees."""
        stream = await self._connect(self._target)
        info = stream.extensions[tls.TLSInfo].peer_certificate
        await stream.aclose()
        assert info is not None
        return int(info["serialNumber"], 16)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
async def test_a_thousand_connections_survive_sighup_and_a_new_certificate(
    proxy: Start, files: Path, authority: CertificateAuthority, workers: tuple[str, ...]
) -> None:
    async with target() as serving:
        server = proxy("--to", serving.address, *workers)
        crowd = Crowd(server, files / "ca.pem")
        await crowd.gather(CONNECTIONS)
        await crowd.say(b"before")
        old = await crowd.serial()
        write_pair(authority, files, "c.pem", "k.pem", "localhost")
        server.send(signal.SIGHUP)
        server.expect("reloaded, listening on")
        await crowd.say(b"after " * 1000)
        assert await crowd.serial() != old
        await crowd.gather(10)
        await crowd.say(b"all")
        await crowd.leave()
        server.stop()
        assert server.complaints() == []


async def test_sigterm_lets_transfers_end(proxy: Start, files: Path) -> None:
    async with target() as serving:
        server = proxy("--to", serving.address)
        crowd = Crowd(server, files / "ca.pem")
        await crowd.gather(CONNECTIONS)
        server.send(signal.SIGTERM)
        await crowd.say(b"to the end " * 1000)
        await crowd.leave()
        assert server.wait() == 0
        assert server.complaints() == []


async def test_grace_bounds_the_wait(proxy: Start, files: Path) -> None:
    async with target() as serving:
        server = proxy("--to", serving.address, "--grace", "200ms")
        crowd = Crowd(server, files / "ca.pem")
        await crowd.gather(3)
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        for each in crowd.streams:
            each.abort()


async def test_a_second_signal_ends_it_at_once(proxy: Start, files: Path) -> None:
    async with target() as serving:
        server = proxy("--to", serving.address)
        crowd = Crowd(server, files / "ca.pem")
        await crowd.gather(3)
        server.send(signal.SIGTERM)
        await crowd.say(b"still there")
        server.send(signal.SIGTERM)
        server.wait()
        for each in crowd.streams:
            each.abort()


async def test_a_reload_that_fails_changes_nothing(proxy: Start, files: Path) -> None:
    async with target() as serving:
        server = proxy("--to", serving.address)
        crowd = Crowd(server, files / "ca.pem")
        old = await crowd.serial()
        (files / "c.pem").write_text("no certificate")
        server.send(signal.SIGHUP)
        server.expect(
            r"reload failed, the current configuration stays active: .*--cert: c\.pem: holds no certificate"
        )
        assert await crowd.serial() == old
        server.stop()


async def test_a_client_certificate_authority_is_read_again(
    proxy: Start, files: Path, authority: CertificateAuthority
) -> None:
    fresh = CertificateAuthority.create(name="fresh")
    write_pair(fresh, files, "client.pem", "client.key", "john", client=True)
    async with target() as serving:
        authority.write_pem(files / "clients.pem")
        server = proxy("--to", serving.address, "--client-ca", "clients.pem")
        connect = tls.connect(ca=files / "ca.pem", cert=files / "client.pem", key=files / "client.key")
        with pytest.raises((OSError, ssl.SSLError)):
            await read_back(await connect(Target("localhost", server.port)))
        fresh.write_pem(files / "clients.pem")
        server.send(signal.SIGHUP)
        server.expect("reloaded, listening on")
        await read_back(await connect(Target("localhost", server.port)))
        server.stop()


async def read_back(stream: Stream) -> None:
    try:
        await stream.write(b"x")
        assert await stream.read() == b"x"
        await stream.aclose()
    finally:
        stream.abort()


def test_an_address_in_use_is_a_failure(proxy: Start, pango: Call) -> None:
    server = proxy("--plain", "--to", "127.0.0.1:1")
    done = pango(f"serve --plain --listen 127.0.0.1:{server.port} --to 127.0.0.1:1")
    assert done.code == 1
    words = f"cannot listen on 127.0.0.1 port {server.port}: Address already in use"
    assert done.errors.splitlines()[-1] == f"pango: --listen: {words}"
    server.stop()

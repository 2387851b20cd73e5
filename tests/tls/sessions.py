"""Certificates for tests, and connected TLS streams over each kind of transport."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from llama import Buffer, Extensions, NonblockingStream, Stream, testing
from llama.tls import CertificateAuthority
from llama.tls._nonblocking import open_session
from llama.tls._stream import TLSStream
from tests.tcp.socket_pairs import over_tcp


@cache
def authority() -> CertificateAuthority:
    return CertificateAuthority.create(name="tests")


@cache
def folder() -> Path:
    return Path(mkdtemp(prefix="llama-tls-"))


@cache
def ca_file() -> str:
    return str(authority().write_pem(folder() / "ca.pem"))


@cache
def pair_files(*names: str, client: bool = False) -> tuple[str, str]:
    """Certificate and key files for names, made once."""
    place = folder() / ("-".join(names).replace("*", "any") + ("-client" if client else ""))
    place.mkdir(exist_ok=True)
    cert, key = authority().issue(*names, client=client).write(place)
    return str(cert), str(key)


@cache
def server_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair_files("localhost"))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@cache
def client_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file())


Transport = Callable[[], AbstractAsyncContextManager[tuple[Stream, Stream]]]


class Plain(Stream):
    """A stream without readiness callbacks, as a user's own would be."""

    def __init__(self, inner: Stream) -> None:
        super().__init__()
        self.inner = inner

    @property
    def extensions(self) -> Extensions:
        return self.inner.extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self.inner.extensions = value

    async def read(self, limit: int = 65536, /) -> bytes:
        return await self.inner.read(limit)

    async def write(self, data: Buffer, /) -> None:
        await self.inner.write(data)

    async def write_eof(self) -> None:
        await self.inner.write_eof()

    def unread(self, data: bytes, /) -> None:
        self.inner.unread(data)

    async def aclose(self) -> None:
        await self.inner.aclose()

    def abort(self) -> None:
        self.inner.abort()


@asynccontextmanager
async def in_memory() -> AsyncGenerator[tuple[Stream, Stream]]:
    one, two = testing.memory_pair()
    try:
        yield one, two
    finally:
        one.abort()
        two.abort()


@asynccontextmanager
async def without_callbacks() -> AsyncGenerator[tuple[Stream, Stream]]:
    async with over_tcp() as (one, two):
        yield Plain(one), Plain(two)


@asynccontextmanager
async def shaken(
    transport: Transport, version: ssl.TLSVersion | None = None
) -> AsyncGenerator[tuple[TLSStream, TLSStream]]:
    """Client and server of a session over a transport."""
    async with transport() as (below, other):
        client = open_session(below, client_context(), server_side=False, server_hostname="localhost")
        server = open_session(other, server_context(version), server_side=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(client.handshake())
            group.create_task(server.handshake())
        assert isinstance(client, NonblockingStream) == isinstance(below, NonblockingStream)
        try:
            yield client, server
        finally:
            client.abort()
            server.abort()


@asynccontextmanager
async def within_tls() -> AsyncGenerator[tuple[Stream, Stream]]:
    async with shaken(over_tcp) as pair:
        yield pair

"""A TLS client that is not ours, over any stream, and a handler served over a pair of sockets."""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import cache

from cryptography import x509

from llama import ConnectionHandler, LlamaError, Stream
from llama._core.server import should_close_gracefully
from llama.tls import TLSInfo
from tests.tcp.socket_pairs import over_tcp
from tests.tls.sessions import Transport, ca_file

log = logging.getLogger("tests")
V10, V11 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def trusting(
    *,
    ca: str | None = None,
    version: ssl.TLSVersion | None = None,
    pair: tuple[str, str] | None = None,
    alpn: tuple[str, ...] = (),
) -> ssl.SSLContext:
    """A client's context that trusts the tests' authority; one of its own for every call."""
    context = ssl.create_default_context(cafile=ca or ca_file())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if pair is not None:
        context.load_cert_chain(*pair)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@cache
def plain_client(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client's context without anything else; shared, so that sessions can be resumed with it."""
    return trusting(version=version)


def careless() -> ssl.SSLContext:
    """A client's context that verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    """The standard library's TLS over a stream, with what it says of the session."""

    def __init__(
        self,
        stream: Stream,
        context: ssl.SSLContext,
        name: str | None = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        if name is None and context.check_hostname:
            context.check_hostname = False
        self.stream = stream
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=name, session=session)

    async def shake(self) -> "Client":
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
                continue
            finally:
                if self._out.pending:
                    await self._flush()
            return self

    async def read(self) -> bytes:
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()

    async def write(self, data: bytes) -> None:
        self.tls.write(data)
        await self._flush()

    async def ask(self, data: bytes) -> bytes:
        """Write, then read once."""
        await self.write(data)
        return await self.read()

    async def bye(self) -> None:
        """Say close_notify."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        await self._flush()

    @property
    def names(self) -> set[str]:
        """The DNS names in the server's certificate."""
        found = x509.load_der_x509_certificate(self.certificate).extensions
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
        return set(names.get_values_for_type(x509.DNSName))

    @property
    def certificate(self) -> bytes:
        """The server's certificate."""
        der = self.tls.getpeercert(binary_form=True)
        assert der is not None
        return der

    async def _flush(self) -> None:
        if self._out.pending:
            await self.stream.write(self._out.read())

    async def _feed(self) -> None:
        if data := await self.stream.read():
            self._in.write(data)
        else:
            self._in.write_eof()


class Outcome:
    """How a handler ended."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.ended = asyncio.Event()

    async def failure(self) -> str:
        """Wait for the end, which has to be an error; its words."""
        await asyncio.wait_for(self.ended.wait(), 10)
        assert self.error is not None, "the handler ended without an error"
        return str(self.error)


@asynccontextmanager
async def dialled(
    handler: ConnectionHandler, transport: Transport = over_tcp
) -> AsyncGenerator[tuple[Stream, Outcome]]:
    """A connection to a handler, which is served as a listener does it."""
    outcome = Outcome()
    async with transport() as (client, server), asyncio.timeout(20), asyncio.TaskGroup() as group:
        serving = group.create_task(_serve(handler, server, outcome))
        try:
            yield client, outcome
            await client.aclose()
            await serving
        finally:
            client.abort()
            serving.cancel()


async def _serve(handler: ConnectionHandler, stream: Stream, outcome: Outcome) -> None:
    try:
        await handler(stream)
        await stream.aclose()
    except (LlamaError, TimeoutError, OSError) as error:
        outcome.error = error
        if should_close_gracefully(error):
            await stream.aclose()
    finally:
        stream.abort()
        outcome.ended.set()


@asynccontextmanager
async def client_of(
    handler: ConnectionHandler,
    context: ssl.SSLContext | None = None,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> AsyncGenerator[Client]:
    """A client that has shaken hands with a handler and says goodbye at the end."""
    async with dialled(handler) as (stream, _):
        client = await Client(stream, context or plain_client(), name, session).shake()
        yield client
        await client.bye()


async def alert_of(
    handler: ConnectionHandler,
    context: ssl.SSLContext | None = None,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> tuple[str, str]:
    """Of a handshake that fails: what the client's library says of the alert, and what the handler raised."""
    async with dialled(handler) as (stream, outcome):
        client = Client(stream, context or plain_client(), name, session)
        try:
            await client.shake()
            await client.read()  # a TLS 1.3 client is through before the server has judged it
        except ssl.SSLError as error:
            await stream.aclose()  # the handler waits for that
            return error.reason or str(error), await outcome.failure()
        raise AssertionError("the handshake did not fail")


async def raw_answer(
    handler: ConnectionHandler, data: bytes, transport: Transport = over_tcp
) -> tuple[bytes, str]:
    """All that a handler answers to bytes and an end, and what it raised."""
    async with dialled(handler, transport) as (stream, outcome):
        answer = b""
        with suppress(OSError):  # it may close before it has read all
            await stream.write(data)
            await stream.write_eof()
        with suppress(ConnectionResetError):
            while more := await stream.read():
                answer += more
        return answer, await outcome.failure()


async def echo(stream: Stream) -> None:
    """Says all back."""
    while data := await stream.read():
        await stream.write(data)


async def tell(stream: Stream) -> None:
    """Answers every message with what is known of the session and its peer."""
    info = stream.extensions[TLSInfo]
    peer = info.peer_certificate
    subject = dict(part[0] for part in peer["subject"])["commonName"] if peer else "nobody"
    while await stream.read():
        resumed = "resumed" if info.resumed else "fresh"
        await stream.write(f"{info.version} {subject} {resumed} {info.alpn} {info.server_name}".encode())

"""Key updates and renegotiation, which Python's own TLS never asks for."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from llama import ConnectionHandler, Stream, serve, tcp, tls
from llama.tls._stream import MAX_PENDING_OUTPUT, TLSStream
from tests.tcp.socket_pairs import over_tcp
from tests.tls.clients import client_of, dialled, echo
from tests.tls.libssl import TLS_1_2, UPDATE_BOTH, UPDATE_OWN, LibraryClient, library
from tests.tls.sessions import Transport, in_memory, pair_files, without_callbacks

pytestmark = pytest.mark.skipif(library() is None, reason="the system has no libssl to load")
MANY = 16 * 1024 * 1024
PIECE = 32 * 1024


@asynccontextmanager
async def library_client(
    handler: ConnectionHandler, transport: Transport = over_tcp, *, version: int = 0
) -> AsyncGenerator[LibraryClient]:
    async with dialled(tls.server(*pair_files("localhost"))(handler), transport) as (stream, _):
        client = LibraryClient(stream, version=version)
        try:
            await client.shake()
            yield client
        finally:
            client.close()


@pytest.mark.parametrize("kind", [UPDATE_OWN, UPDATE_BOTH])
@pytest.mark.parametrize("transport", [over_tcp, without_callbacks, in_memory])
async def test_a_session_continues_after_a_key_update(kind: int, transport: Transport) -> None:
    async with library_client(echo, transport) as client:
        for number in range(5):
            await client.write(b"%d" % number)
            assert await client.read() == b"%d" % number
            await client.update_key(kind)
        await client.bye()


@pytest.mark.parametrize("transport", [over_tcp, without_callbacks, in_memory])
@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_peer_that_sends_only_key_updates_is_answered(
    transport: Transport, half_closed: bool
) -> None:
    """The answers leave although nothing else is written; after this side's end they are dropped."""
    owed: list[int] = []

    async def read_on(stream: Stream) -> None:
        assert isinstance(stream, TLSStream)
        if half_closed:
            await stream.write_eof()
        while await stream.read():
            pass
        owed.append(stream._outgoing.pending)

    async with library_client(read_on, transport) as client, asyncio.TaskGroup() as group:
        heard = group.create_task(_hear(client))
        for _ in range(4000):
            await client.update_key(UPDATE_BOTH)
        await client.bye()
    assert owed[0] <= MAX_PENDING_OUTPUT + 100  # the answers are 104 KB
    assert heard.result() == hashlib.sha256(b"").hexdigest()


async def test_a_relay_drops_answers_after_its_end() -> None:
    async def end_and_listen(stream: Stream) -> None:
        await stream.write_eof()
        received.append(b"".join([data async for data in chunks(stream)]))

    received: list[bytes] = []
    async with (
        serve(end_and_listen, listen="127.0.0.1:0", grace=5) as server,
        library_client(tcp.forward(server.address)) as client,
    ):
        assert await client.read() == b""
        for number in range(100):
            await client.write(b"%d," % number)
            await client.update_key(UPDATE_BOTH)
        await client.bye()
    assert received == [b"".join(b"%d," % number for number in range(100))]


async def chunks(stream: Stream) -> AsyncGenerator[bytes]:
    while data := await stream.read():
        yield data


async def hashed_and_patterned(stream: Stream, seen: list[str]) -> None:
    """Send a pattern while what comes is hashed, with one reader and one writer at once."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_send_pattern(stream))
        digest = hashlib.sha256()
        while data := await stream.read():
            digest.update(data)
    seen.append(digest.hexdigest())


async def _send_pattern(stream: Stream) -> None:
    for start in range(0, MANY, PIECE):
        await stream.write(piece(start))
    await stream.write_eof()


def piece(start: int) -> bytes:
    return hashlib.sha256(start.to_bytes(8, "big")).digest() * (PIECE // 32)


def pattern_digest() -> str:
    whole = hashlib.sha256()
    for start in range(0, MANY, PIECE):
        whole.update(piece(start))
    return whole.hexdigest()


@pytest.mark.parametrize("transport", [over_tcp, without_callbacks])
async def test_16_mib_each_way_at_once_under_key_updates_in_both_directions(transport: Transport) -> None:
    seen: list[str] = []
    async with library_client(lambda stream: hashed_and_patterned(stream, seen), transport) as client:
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(_hear(client))
            await _send_with_updates(client)
        assert heard.result() == pattern_digest()
    assert seen == [pattern_digest()]


async def _hear(client: LibraryClient) -> str:
    digest = hashlib.sha256()
    while data := await client.read():
        digest.update(data)
    return digest.hexdigest()


async def _send_with_updates(client: LibraryClient) -> None:
    for number, start in enumerate(range(0, MANY, PIECE)):
        await client.write(piece(start))
        if number % 4 == 0:
            await client.update_key(UPDATE_BOTH if number % 8 else UPDATE_OWN)
    await client.bye()


async def test_a_relay_keeps_up_with_key_updates() -> None:
    """The callbacks that relays drive a session by see them too."""
    async with (
        serve(echo, listen="127.0.0.1:0", grace=5) as server,
        library_client(tcp.forward(server.address)) as client,
    ):
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(_hear(client))
            await _send_with_updates(client)
        assert heard.result() == pattern_digest()


@pytest.mark.parametrize("transport", [over_tcp, without_callbacks, in_memory])
async def test_renegotiation_is_refused_and_the_next_client_is_served(transport: Transport) -> None:
    handler = tls.server(*pair_files("localhost"))(echo)
    async with dialled(handler, transport) as (stream, outcome):
        client = LibraryClient(stream, version=TLS_1_2)
        await client.shake()
        await client.write(b"hi")
        assert await client.read() == b"hi"
        await client.renegotiate()
        with pytest.raises(ConnectionError, match="the library says"):  # it heard no_renegotiation
            await client.read()
        client.close()
        stream.abort()
        await asyncio.wait_for(outcome.ended.wait(), 10)
    async with client_of(handler) as other:
        assert await other.ask(b"hi") == b"hi"

"""Hostile servers: each handshake ends with one clear error, and nothing stays behind."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama import Stream, Target, TLSError, testing, tls
from llama._core.shutdown import Shutdown
from llama.tls._nonblocking import open_session
from tests.tls.client_hello import hellos
from tests.tls.sessions import ca_file, server_context

TARGET = Target("localhost", 443)


async def met_by(answer: bytes) -> Exception:
    """Connect to a server that answers the hello with these bytes and an end; the error."""
    client, server = testing.memory_pair(capacity=1 << 20)

    async def over(target: Target) -> Stream:
        return client

    await server.write(answer)
    await server.write_eof()
    with pytest.raises(TLSError) as caught:
        await tls.connect(over, ca=ca_file())(TARGET)
    server.abort()
    assert str(caught.value).startswith("TLS handshake with localhost:443 failed: ")
    assert "\n" not in str(caught.value)
    return caught.value


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
async def test_random_bytes(data: bytes) -> None:
    await met_by(data)


@settings(max_examples=60, deadline=None)
@given(kind=st.integers(0, 25), data=st.binary(max_size=300))
async def test_random_messages_in_good_records(kind: int, data: bytes) -> None:
    await met_by(hellos.record(hellos.message(kind, data), version=0x0303))


@pytest.mark.parametrize("changed", [False, True])
async def test_a_truncated_or_changed_first_flight(changed: bool) -> None:
    """Every seventh byte: the flight holds a certificate, and each try is a whole handshake."""
    for place in range(0, 900, 7):
        if not await first_flight(place, changed=changed):
            return
    raise AssertionError("the flight is longer than it is thought to be")


async def first_flight(place: int, *, changed: bool) -> bool:
    """A handshake whose answer is cut or changed at one byte; False when it is not that long."""
    client, near = testing.memory_pair()
    far, server = testing.memory_pair()

    async def over(target: Target) -> Stream:
        return client

    async def answer() -> None:
        session = open_session(server, server_context(), server_side=True)
        with pytest.raises((OSError, TLSError)):
            await session.handshake()

    async def between() -> None:
        await far.write(await near.read())
        flight = bytearray(await far.read())
        whole.append(len(flight))
        if changed and place < len(flight):
            flight[place] ^= 0xFF
        await near.write(flight if changed else flight[:place])
        await near.write_eof()
        far.abort()

    whole: list[int] = []
    async with Shutdown() as shutdown:
        shutdown.spawn(answer())
        shutdown.spawn(between())
        said = ""
        try:
            (await tls.connect(over, ca=ca_file())(TARGET)).abort()
        except TLSError as error:
            said = str(error)
        for each in (client, near, far, server):
            each.abort()
        await shutdown.drain()
    within = place < whole[0]
    assert bool(said) == said.startswith("TLS handshake with localhost:443 failed: ") == within
    return within

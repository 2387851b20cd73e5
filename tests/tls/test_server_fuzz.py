"""Hostile beginnings: each ends with one clear error, and nothing stays behind."""

import ssl
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama import ConnectionHandler, Stream, TLSError, tls
from tests.tls.client_hello import hellos
from tests.tls.clients import V12, V13, Client, dialled, echo, plain_client
from tests.tls.sessions import ca_file, in_memory, pair_files


@cache
def handlers() -> dict[str, ConnectionHandler]:
    pair = pair_files("localhost")
    return {
        "one": tls.server(*pair, handshake_timeout=30)(echo),
        "several": tls.server(
            tls.Certificate(*pair), None, tls.Certificate(*pair_files("a.example"), client_ca=ca_file())
        )(echo),
        "alpn": tls.server(*pair, alpn=["h2"])(echo),
        "routed": tls.route({"localhost": tls.server(*pair)(echo)}),
    }


@cache
def first_flight(version: ssl.TLSVersion) -> bytes:
    client = Client(Nowhere(), plain_client(version))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    return client._out.read()


class Nowhere(Stream):
    """A stream that leads nowhere."""

    async def read(self, limit: int = 65536, /) -> bytes:
        return b""

    async def write(self, data: object, /) -> None: ...

    async def write_eof(self) -> None: ...

    def unread(self, data: bytes, /) -> None: ...

    async def aclose(self) -> None: ...

    def abort(self) -> None: ...


async def ends_well(handler: ConnectionHandler, data: bytes) -> Exception | None:
    """Send bytes and an end; the error, which is one of those that a user is to expect."""
    async with dialled(handler, in_memory) as (stream, outcome):
        try:
            await stream.write(data)
            await stream.write_eof()
            while await stream.read():
                pass
        except OSError:
            pass
        await outcome.ended.wait()
    error = outcome.error
    assert isinstance(error, TLSError | TimeoutError), repr(error)
    assert str(error)
    assert "\n" not in str(error)
    return error


KINDS = pytest.mark.parametrize("kind", ["one", "several", "alpn", "routed"])


@KINDS
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=300))
async def test_random_bytes(kind: str, data: bytes) -> None:
    await ends_well(handlers()[kind], data)


@KINDS
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=300))
async def test_random_messages_in_good_records(kind: str, data: bytes) -> None:
    await ends_well(handlers()[kind], hellos.record(hellos.message(1, data)))


@KINDS
@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    version=st.sampled_from([V12, V13]),
)
async def test_changed_hellos(kind: str, changes: list[tuple[int, int]], version: ssl.TLSVersion) -> None:
    data = bytearray(first_flight(version))
    for place, value in changes:
        data[place % len(data)] = value
    await ends_well(handlers()[kind], bytes(data))


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_hello_truncated_at_every_byte(version: ssl.TLSVersion) -> None:
    data = first_flight(version)
    for size in range(len(data) + 1):
        error = await ends_well(handlers()["several"], data[:size])
        if size < len(data):
            left = (
                "the peer closed the connection before its ClientHello" if size else "the peer sent nothing"
            )
        else:
            left = "the peer closed the connection during the handshake"
        assert str(error) == f"TLS handshake failed: {left}"


@pytest.mark.parametrize("version", [V12, V13])
async def test_a_second_flight_truncated_or_changed_at_every_byte(version: ssl.TLSVersion) -> None:
    size = await second_flight(version, None, None)
    for place in range(size):
        await second_flight(version, place, None)
        await second_flight(version, None, place)


async def second_flight(version: ssl.TLSVersion, cut: int | None, changed: int | None) -> int:
    """Shake hands up to the client's answer, which is cut or changed at one byte; its size."""
    async with dialled(handlers()["one"], in_memory) as (stream, outcome):
        client = Client(stream, plain_client(version))
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        await client._flush()
        while not client._out.pending:
            await client._feed()
            try:
                client.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
        answer = bytearray(client._out.read())
        if changed is not None:
            answer[changed] ^= 0xFF
        await stream.write(answer[:cut])
        await stream.write_eof()
        try:
            while await stream.read():
                pass
        except OSError:
            pass
        await outcome.ended.wait()
        if cut is not None or changed is not None:
            assert isinstance(outcome.error, TLSError), (cut, changed, outcome.error)
            assert str(outcome.error).startswith("TLS handshake failed: ")
        return len(answer)

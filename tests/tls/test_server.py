"""TLS termination: which certificate, which policy, which alert."""

import asyncio
import ssl

import pytest

from llama import ConnectionHandler, Stream, TLSError, stack, testing, timeout, tls
from llama.layers import close
from llama.tls import Certificate, ClientHello
from tests.tls.client_hello import hellos
from tests.tls.clients import (
    V11,
    V12,
    V13,
    Client,
    alert_of,
    client_of,
    dialled,
    echo,
    raw_answer,
    tell,
    trusting,
)
from tests.tls.sessions import Transport, in_memory, pair_files, within_tls, without_callbacks


@pytest.mark.parametrize("version", [V12, V13])
async def test_bytes_pass_and_the_session_is_in_the_extensions(version: ssl.TLSVersion) -> None:
    async with client_of(tls.server(*pair_files("localhost"))(tell), trusting(version=version)) as client:
        expected = f"{client.tls.version()} nobody fresh None localhost"
        assert await client.ask(b"?") == expected.encode()


@pytest.mark.parametrize("transport", [in_memory, without_callbacks, within_tls])
async def test_any_stream_is_supported(transport: Transport) -> None:
    async with dialled(tls.server(*pair_files("localhost"))(echo), transport) as (stream, _):
        client = await Client(stream, trusting()).shake()
        assert await client.ask(b"hi") == b"hi"
        await client.bye()


async def test_the_hello_is_in_the_extensions_with_its_fingerprints() -> None:
    seen: list[ClientHello] = []

    async def look(stream: Stream) -> None:
        seen.append(stream.extensions[ClientHello])

    async with client_of(tls.server(*pair_files("localhost"))(look), trusting(alpn=("h2",))):
        pass
    (hello,) = seen
    assert (hello.server_name, hello.alpn) == ("localhost", ("h2",))
    assert hello.ja4.startswith("t13d")
    assert len(hello.ja3) == 32


# names


def by_name() -> tuple[Certificate, ...]:
    return (
        Certificate(*pair_files("default.example")),
        Certificate(*pair_files("a.example", "www.a.example")),
        Certificate(*pair_files("*.b.example")),
        Certificate(*pair_files("exact.b.example")),
        Certificate(*pair_files("localhost"), names=["given.example", "*.given.example"]),
    )


@pytest.mark.parametrize(
    ("asked", "certificate"),
    [
        ("default.example", "default.example"),
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("www.a.example", "a.example"),
        ("x.b.example", "*.b.example"),
        ("exact.b.example", "exact.b.example"),
        ("b.example", "default.example"),
        ("x.y.b.example", "default.example"),
        ("given.example", "localhost"),
        ("x.given.example", "localhost"),
        ("localhost", "default.example"),
        ("wrong.example", "default.example"),
        ("a.example:8443", "default.example"),
        ("not a name", "default.example"),
        (None, "default.example"),
    ],
)
async def test_the_certificate_is_chosen_by_name(asked: str | None, certificate: str) -> None:
    first, *more = by_name()
    context = trusting()
    context.check_hostname = False
    async with client_of(tls.server(first, None, *more)(echo), context, asked) as client:
        assert certificate in client.names
        assert await client.ask(b"hi") == b"hi"


async def test_each_certificate_has_its_own_protocols() -> None:
    layer = tls.server(
        Certificate(*pair_files("localhost")),
        None,
        Certificate(*pair_files("a.example"), alpn=["own"]),
        Certificate(*pair_files("c.example"), alpn=[]),
        alpn=["h2", "http/1.1"],
    )
    context = trusting(alpn=("http/1.1", "own", "h2"))
    for name, agreed in (("localhost", "h2"), ("a.example", "own"), ("c.example", None)):
        async with client_of(layer(echo), context, name) as client:
            assert client.tls.selected_alpn_protocol() == agreed


async def test_each_certificate_has_its_own_minimum_version() -> None:
    strict = Certificate(*pair_files("a.example"), minimum_version="TLSv1.3")
    layer = tls.server(Certificate(*pair_files("localhost")), None, strict)
    old = trusting(version=V12)
    async with client_of(layer(echo), old) as client:
        assert client.tls.version() == "TLSv1.2"
    said, raised = await alert_of(layer(echo), old, "a.example")
    assert said == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert raised == "TLS handshake failed: the peer offers none of the enabled TLS versions"


# versions


# SSL 3.0 has no alert protocol_version: the library says handshake_failure in its place.
@pytest.mark.parametrize(("version", "alert"), [(0x0300, 40), (0x0301, 70), (0x0302, 70)])
async def test_offers_of_old_versions_are_refused(version: int, alert: int) -> None:
    hello = hellos.client_hello(hellos.sni(b"localhost"), version=version, ciphers=(0xC013, 0xC009, 0x002F))
    handler = tls.server(*pair_files("localhost"))(echo)
    answer, raised = await raw_answer(handler, hellos.record(hello, version=version))
    assert answer == hellos.record(bytes([2, alert]), 21, version)
    assert raised == "TLS handshake failed: the peer offers none of the enabled TLS versions"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_an_old_version_can_be_allowed() -> None:
    context = trusting()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = V11
    layer = tls.server(*pair_files("localhost"), minimum_version="TLSv1")
    async with client_of(layer(echo), context) as client:
        assert client.tls.version() == "TLSv1.1"


# ALPN


async def test_the_server_preference_decides_alpn() -> None:
    layer = tls.server(*pair_files("localhost"), alpn=["b", "a"])
    async with client_of(layer(tell), trusting(alpn=("a", "b"))) as client:
        assert client.tls.selected_alpn_protocol() == "b"
        assert await client.ask(b"?") == f"{client.tls.version()} nobody fresh b localhost".encode()


@pytest.mark.parametrize("version", [V12, V13])
async def test_no_common_protocol_is_an_alert(version: ssl.TLSVersion) -> None:
    layer = tls.server(*pair_files("localhost"), alpn=["h2", "http/1.1"])
    said, raised = await alert_of(layer(echo), trusting(alpn=("smtp", "imap"), version=version))
    assert "NO_APPLICATION_PROTOCOL" in said.upper().replace(" ", "_")
    assert raised == "TLS handshake failed: the client offers smtp, imap in ALPN, expected h2, http/1.1"


async def test_a_client_without_alpn_gets_no_protocol() -> None:
    async with client_of(tls.server(*pair_files("localhost"), alpn=["h2"])(echo)) as client:
        assert client.tls.selected_alpn_protocol() is None


async def test_the_inner_service_declares_the_protocols() -> None:
    class Speaker:
        __alpn__ = ("spoken", "other")

        async def __call__(self, stream: Stream) -> None:
            await echo(stream)

    chain = stack(tls.server(*pair_files("localhost")), timeout(20), Speaker())
    async with client_of(chain, trusting(alpn=("other", "spoken"))) as client:
        assert client.tls.selected_alpn_protocol() == "spoken"
    silent = stack(tls.server(*pair_files("localhost"), alpn=[]), Speaker())
    async with client_of(silent, trusting(alpn=("other",))) as client:
        assert client.tls.selected_alpn_protocol() is None


# the time for shaking hands


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", hellos.record(hellos.client_hello())[:-1]], ids=len)
async def test_a_slow_client_times_out(sent: bytes) -> None:
    chain = tls.server(*pair_files("localhost"), handshake_timeout=7)(echo)
    async with testing.clock() as clock, dialled(chain, in_memory) as (stream, outcome):
        await stream.write(sent)
        await clock.advance(6.9)
        assert not outcome.ended.is_set()
        await clock.advance(0.2)
        assert await outcome.failure() == "TLS handshake timed out after 7 s"


async def test_the_timeout_applies_only_to_the_handshake() -> None:
    chain = tls.server(*pair_files("localhost"), handshake_timeout=7)(echo)
    async with testing.clock() as clock, dialled(chain, in_memory) as (stream, _):
        client = await Client(stream, trusting()).shake()
        assert await client.ask(b"hi") == b"hi"
        await clock.advance(10)
        assert await client.ask(b"still here") == b"still here"
        await client.bye()


async def test_another_timeout_is_not_reported_as_a_handshake_timeout() -> None:
    chain = stack(timeout(3), tls.server(*pair_files("localhost"), handshake_timeout=7), echo)
    async with testing.clock() as clock, dialled(chain, in_memory) as (_, outcome):
        await clock.advance(3.1)
        assert "handshake" not in await outcome.failure()


# ends


async def test_close_notify_is_sent_when_the_handler_returns() -> None:
    async with dialled(tls.server(*pair_files("localhost"))(close())) as (stream, _):
        client = await Client(stream, trusting()).shake()
        assert await client.read() == b""


async def test_close_notify_is_sent_when_the_handler_refuses() -> None:
    async def refuse(stream: Stream) -> None:
        await stream.write(b"go away")
        raise TLSError("not you")

    async with dialled(tls.server(*pair_files("localhost"))(refuse)) as (stream, outcome):
        client = await Client(stream, trusting()).shake()
        assert await client.read() == b"go away"
        assert await client.read() == b""
        await client.bye()
        assert await outcome.failure() == "not you"


async def test_close_notify_is_not_sent_when_the_handler_fails() -> None:
    async def lose(stream: Stream) -> None:
        raise ConnectionResetError("the upstream is gone")

    async with dialled(tls.server(*pair_files("localhost"))(lose)) as (stream, _):
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            client = await Client(stream, trusting()).shake()
            await client.read()


async def test_a_disconnect_at_each_stage_ends_the_connection() -> None:
    handler = tls.server(*pair_files("localhost"))(echo)
    hello = hellos.record(hellos.client_hello(hellos.sni(b"localhost")))
    assert await raw_answer(handler, b"") == (b"", "TLS handshake failed: the peer sent nothing")
    assert await raw_answer(handler, hello[:9]) == (
        b"",
        "TLS handshake failed: the peer closed the connection before its ClientHello",
    )
    async with dialled(handler) as (stream, outcome):
        client = Client(stream, trusting())
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        await client._flush()
        await stream.read()
        await stream.write_eof()
        assert (
            await outcome.failure()
            == "TLS handshake failed: the peer closed the connection during the handshake"
        )


async def test_a_client_that_rejects_the_certificate_is_reported() -> None:
    context = ssl.create_default_context()
    async with dialled(tls.server(*pair_files("localhost"))(echo)) as (stream, outcome):
        with pytest.raises(ssl.SSLCertVerificationError):
            await Client(stream, context).shake()
        await stream.aclose()
        assert await outcome.failure() == "TLS handshake failed: the peer sent the alert unknown_ca"


async def test_no_shared_cipher_is_an_alert() -> None:
    context = trusting(version=V12)
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # the certificate has an EC key
    said, raised = await alert_of(tls.server(*pair_files("localhost"))(echo), context)
    assert said == "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert raised == "TLS handshake failed: the client offers none of the enabled cipher suites"


# malformed beginnings, and the alerts that answer them

HELLO = hellos.client_hello(hellos.sni(b"localhost"), hellos.groups(29), hellos.versions(0x0304))
BAD = {
    "garbage": (b"\x00\x01\x02\x03\x04\x05\x06\x07", None, "not TLS: first bytes 0x0001020304"),
    "an alert": (hellos.record(b"\x02\x28", 21), None, "an alert (fatal, handshake_failure) where a"),
    "application data": (hellos.record(b"hello", 23), 10, "an application_data record where a ClientHello"),
    "TLS 4": (hellos.record(HELLO, version=0x0401), 70, "first bytes 0x160401"),
    "a record too large": (b"\x16\x03\x01\x40\x01", 22, "a TLS record of 16385 bytes"),
    "an empty record": (hellos.record(b"") + hellos.record(HELLO), 10, "a TLS record of 0 bytes"),
    "a server's hello": (hellos.record(hellos.message(2, bytes(40))), 10, "type 2 (server_hello)"),
    "data inside the hello": (
        hellos.record(HELLO[:20]) + hellos.record(b"x", 23),
        10,
        "an application_data record inside a ClientHello",
    ),
    "bytes behind the hello": (hellos.record(HELLO + b"\x01"), 10, "1 bytes follow the ClientHello"),
    "a hello too large": (hellos.record(b"\x01\x03\x00\x00" + bytes(99)), 50, "the limit is 131400"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("certificates", [1, 2])
async def test_bytes_that_are_not_a_hello_get_the_matching_alert(
    case: tuple[bytes, int | None, str], certificates: int
) -> None:
    data, alert, reason = case
    answer, raised = await raw_answer(server_with(certificates), data, in_memory)
    assert answer == (b"" if alert is None else hellos.record(bytes([2, alert]), 21))
    assert raised.startswith("TLS handshake failed: ")
    assert reason in raised


MALFORMED = {
    "short": hellos.message(1, b"\x03\x03" + bytes(30)),
    "a server name that ends early": hellos.client_hello((0, b"\0\x20\0\0\x10loc")),
    "two names": hellos.client_hello(hellos.sni(b"a.example", b"b.example"), hellos.versions(0x0304)),
    "an extension twice": hellos.client_hello(hellos.groups(29), hellos.groups(29)),
    "an empty protocol": hellos.client_hello(hellos.sni(b"localhost"), hellos.alpn(b"")),
    "extensions too long": hellos.client_hello(block=b"\0\x09\0\0\0\0"),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("certificates", [1, 2])
async def test_a_malformed_hello_gets_an_alert(message: bytes, certificates: int) -> None:
    answer, raised = await raw_answer(server_with(certificates), hellos.record(message), in_memory)
    assert answer[:1] == b"\x15"
    assert answer[-2] == 2
    assert answer[-1] in ({50} if certificates == 2 else {50, 47, 40})  # alone, the library judges
    assert raised.startswith("TLS handshake failed: ")


@pytest.mark.parametrize("certificates", [1, 2])
async def test_the_largest_hello_is_answered(certificates: int) -> None:
    extensions = (hellos.groups(23), hellos.algorithms(0x0403, 0x0804), hellos.sni(b"localhost"))
    hello = hellos.records(hellos.largest_hello(*extensions), 16_384)
    answer, _ = await raw_answer(server_with(certificates), hello, in_memory)
    assert answer[:3] == b"\x16\x03\x03"
    assert answer[5] == 2  # server_hello


def server_with(certificates: int) -> ConnectionHandler:
    first, *more = by_name()[:certificates]
    return tls.server(first, None, *more)(echo)


async def test_a_hello_a_byte_at_a_time_is_served() -> None:
    first, *more = by_name()
    async with dialled(tls.server(first, None, *more)(echo), in_memory) as (stream, _):
        client = Client(stream, trusting(), "x.b.example")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        for byte in client._out.read():
            await stream.write(bytes([byte]))
            await asyncio.sleep(0)
        await client.shake()
        assert await client.ask(b"hi") == b"hi"
        await client.bye()

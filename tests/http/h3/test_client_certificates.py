"""Client certificates over HTTP/3: the policy of `tls.server`, which no handshake evades."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from qh3 import tls as library
from qh3._hazmat import Buffer
from qh3.asyncio.client import connect
from qh3.quic.configuration import QuicConfiguration

from llama import ConfigError, LlamaError, http, serve, tls
from llama.http import Request, Response
from llama.tls import CertificateAuthority
from tests.http.h3.fixtures import GET, Raw, client
from tests.http.serving import hello
from tests.tls.sessions import authority, ca_file, folder, pair_files

Pair = tuple[str, str]
ALERT = 0x100
UNEXPECTED_MESSAGE, UNSUPPORTED_CERTIFICATE, CERTIFICATE_EXPIRED = ALERT + 10, ALERT + 43, ALERT + 45
BAD_CERTIFICATE, ILLEGAL_PARAMETER, UNKNOWN_CA = ALERT + 42, ALERT + 47, ALERT + 48
DECODE_ERROR, DECRYPT_ERROR, CERTIFICATE_REQUIRED = ALERT + 50, ALERT + 51, ALERT + 116


def issued(
    name: str, *, start: int = -2, end: int = 2, signer: Pair | None = None, self_signed: bool = False
) -> Pair:
    """A client certificate that is valid from and until these days, signed by the authority or another certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    ca = authority()
    issuer, signing, chain = ca.certificate.subject, ca._key, b""
    if signer is not None:
        chain = Path(signer[0]).read_bytes()
        issuer = x509.load_pem_x509_certificate(chain).subject
        loaded = load_pem_private_key(Path(signer[1]).read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    subject = issuer if self_signed else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start))
        .not_valid_after(now + timedelta(days=end))
        .sign(key if self_signed else signing, SHA256())
    )
    cert_file, key_file = folder() / f"{name}-cert.pem", folder() / f"{name}-key.pem"
    cert_file.write_bytes(made.public_bytes(Encoding.PEM) + chain)
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(cert_file), str(key_file)


def john() -> Pair:
    return pair_files("john", client=True)


def john_with(kind: Any) -> Pair:
    cert, key = authority().issue("john", client=True, key=kind).write(folder() / f"john-{kind}")
    return str(cert), str(key)


def stranger() -> Pair:
    made = CertificateAuthority.create(name="another").issue("jane", client=True)
    cert, key = made.write(folder() / "stranger-h3")
    return str(cert), str(key)


class Seen:
    """A handler that notes the TLS sessions of its requests."""

    def __init__(self) -> None:
        self.sessions: list[tls.TLSInfo] = []

    async def __call__(self, request: Request) -> Response:
        self.sessions.append(request.extensions[tls.TLSInfo])
        return Response(200)


@asynccontextmanager
async def site(**options: Any) -> AsyncGenerator[tuple[int, Seen]]:
    seen = Seen()
    options.setdefault("client_ca", ca_file())
    server = http.h3_server("127.0.0.1:0", seen, *pair_files("localhost"), **options)
    async with serve(server) as running:
        yield int(running.addresses[0].rpartition(":")[2]), seen


def settings(pair: Pair | None, name: str = "localhost") -> QuicConfiguration:
    made = QuicConfiguration(alpn_protocols=["h3"], server_name=name, cafile=ca_file())
    if pair is not None:
        made.load_cert_chain(*pair)
    return made


async def refused(port: int, configuration: QuicConfiguration) -> int:
    """Send a request beside the end of the handshake; the error code that closes the connection."""
    async with asyncio.timeout(5):
        try:
            async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Raw) as raw:
                assert isinstance(raw, Raw)
                raw.ask(*GET)
                return await raw.ended
        except ConnectionError:
            return -1


@pytest.mark.parametrize("make", [john, lambda: john_with("rsa"), lambda: issued("plain")])
@pytest.mark.parametrize("auth", ["optional", "required"])
async def test_a_verified_certificate_is_in_the_extensions(make: Callable[[], Pair], auth: str) -> None:
    cert, key = make()
    async with site(client_auth=auth) as (port, seen), client(cert=cert, key=key) as ask:
        response = await ask(Request("GET", f"https://localhost:{port}/"))
        await response.aclose()
    (info,) = seen.sessions
    der = ssl.PEM_cert_to_DER_cert(Path(cert).read_text())
    assert (info.peer_certificate_der, info.alpn, info.version) == (der, "h3", "TLSv1.3")
    assert (info.server_name, info.resumed) == ("localhost", False)
    assert info.peer_certificate is not None
    assert info.peer_certificate["subject"][0][0][0] == "commonName"
    assert "notAfter" in info.peer_certificate


async def test_an_optional_certificate_may_be_missing() -> None:
    async with site(client_auth="optional") as (port, seen), client() as ask:
        response = await ask(Request("GET", f"https://localhost:{port}/"))
        await response.aclose()
    (info,) = seen.sessions
    assert (info.peer_certificate, info.peer_certificate_der) == (None, None)


@pytest.mark.parametrize("auth", ["optional", "required"])
@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(stranger, UNKNOWN_CA, id="another authority"),
        pytest.param(lambda: issued("expired", end=-1), CERTIFICATE_EXPIRED, id="expired"),
        pytest.param(lambda: issued("future", start=1), BAD_CERTIFICATE, id="not yet valid"),
        pytest.param(lambda: pair_files("localhost"), UNSUPPORTED_CERTIFICATE, id="server purpose only"),
        pytest.param(
            lambda: issued("self", self_signed=True), UNKNOWN_CA, id="self-signed, with the CA's name"
        ),
        pytest.param(lambda: issued("of-john", signer=john()), UNKNOWN_CA, id="signed by a leaf"),
    ],
)
async def test_a_certificate_that_is_not_verified_is_refused(
    make: Callable[[], Pair], code: int, auth: str
) -> None:
    pair = make()
    async with site(client_auth=auth) as (port, seen):
        assert await refused(port, settings(pair)) == code
        async with client(cert=pair[0], key=pair[1]) as ask:
            with pytest.raises(LlamaError):
                await ask(Request("GET", f"https://localhost:{port}/"))
    assert not seen.sessions


async def test_a_missing_certificate_is_refused() -> None:
    async with site() as (port, seen):
        assert await refused(port, settings(None)) == CERTIFICATE_REQUIRED
        async with client() as ask:
            with pytest.raises(LlamaError):
                await ask(Request("GET", f"https://localhost:{port}/"))
    assert not seen.sessions


def _another_key(patch: pytest.MonkeyPatch, made: QuicConfiguration) -> None:
    """The certificate of john, and the key of somebody else."""
    made.private_key = settings(stranger()).private_key


def _no_signature(patch: pytest.MonkeyPatch, made: QuicConfiguration) -> None:
    made.private_key = None


def _no_messages(patch: pytest.MonkeyPatch, made: QuicConfiguration) -> None:
    def ignore(self: Any, data: Any) -> None:
        library.pull_certificate_request(data)
        self.key_schedule.update_hash(data.data)

    patch.setattr(library.Context, "_client_handle_certificate_request", ignore)


def _settings_first(patch: pytest.MonkeyPatch, made: QuicConfiguration) -> None:
    def negotiate(self: Any, data: Any) -> None:
        self._alps_negotiated = True
        real(self, data)

    real = library.Context._client_handle_certificate_request
    patch.setattr(library.Context, "_client_handle_certificate_request", negotiate)


def _message(change: Callable[[bytes], bytes], push: str) -> Callable[[pytest.MonkeyPatch, Any], None]:
    def install(patch: pytest.MonkeyPatch, made: QuicConfiguration) -> None:
        real = getattr(library, push)

        def write(buffer: Any, message: Any) -> None:
            kept = Buffer(capacity=4096)
            real(kept, message)
            is_client = push != "push_certificate" or message.certificates[0][0] == _leaf(made)
            buffer.push_bytes(change(kept.data) if is_client else kept.data)

        patch.setattr(library, push, write)

    return install


def _leaf(made: QuicConfiguration) -> bytes:
    assert made.certificate is not None
    return made.certificate.public_bytes()


def _context(data: bytes) -> bytes:
    return data[:1] + (len(data) - 3).to_bytes(3, "big") + b"\x01x" + data[5:]


def _large(data: bytes) -> bytes:
    return data[:1] + b"\xff\xff\xff" + data[4:]


def _signed_as_server(patch: pytest.MonkeyPatch, made: QuicConfiguration) -> None:
    def finish(self: Any, received: Any, output: Any) -> None:
        schedule = self.key_schedule
        verify_data = schedule.certificate_verify_data

        def sign_as_server(text: bytes) -> Any:
            return verify_data(b"TLS 1.3, server CertificateVerify")

        schedule.certificate_verify_data = sign_as_server
        real(self, received, output)

    real = library.Context._client_handle_finished
    patch.setattr(library.Context, "_client_handle_finished", finish)


@pytest.mark.parametrize("auth", ["optional", "required"])
@pytest.mark.parametrize(
    ("forge", "code"),
    [
        pytest.param(_another_key, DECRYPT_ERROR, id="another key"),
        pytest.param(_no_signature, UNEXPECTED_MESSAGE, id="no CertificateVerify"),
        pytest.param(_no_messages, UNEXPECTED_MESSAGE, id="neither message"),
        pytest.param(_settings_first, UNEXPECTED_MESSAGE, id="EncryptedExtensions"),
        pytest.param(_signed_as_server, DECRYPT_ERROR, id="signed as a server"),
        pytest.param(_message(_context, "push_certificate"), ILLEGAL_PARAMETER, id="another context"),
        pytest.param(_message(_large, "push_certificate"), ILLEGAL_PARAMETER, id="too large"),
    ],
)
async def test_a_forged_handshake_is_refused(
    forge: Callable[[pytest.MonkeyPatch, QuicConfiguration], None],
    code: int,
    auth: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = settings(john())
    forge(monkeypatch, made)
    async with site(client_auth=auth) as (port, seen):
        assert await refused(port, made) == code
    assert not seen.sessions


async def test_no_session_is_resumed_where_a_certificate_is_requested() -> None:
    tickets: list[library.SessionTicket] = []
    closed = tls.Certificate(*pair_files("a.example"), client_ca=ca_file())
    seen = Seen()
    opened = tls.Certificate(*pair_files("localhost"))
    server = http.h3_server("127.0.0.1:0", seen, opened, None, closed, early_data=True)
    async with serve(server) as running:
        port = int(running.addresses[0].rpartition(":")[2])
        for name, pair in (("a.example", john()), ("localhost", None)):
            async with connect(
                "127.0.0.1",
                port,
                configuration=settings(pair, name),
                session_ticket_handler=tickets.append,
                create_protocol=Raw,
            ) as raw:
                assert isinstance(raw, Raw)
                await raw.ask(*GET).ends(raw)
        (ticket,) = tickets
        assert ticket.server_name == "localhost"
        assert len(seen.sessions) == 2
        ticket.server_name = "a.example"
        made = settings(None, "a.example")
        made.session_ticket = ticket
        assert await refused(port, made) == CERTIFICATE_REQUIRED
    assert len(seen.sessions) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"client_auth": "required"}, "client_auth='required' needs client_ca"),
        ({"client_ca": "none.pem"}, "none.pem"),
        ({"client_ca": ca_file(), "client_auth": "maybe"}, "client_auth='maybe'"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        http.h3_server(":0", hello, *pair_files("localhost"), **options)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("pair", "code"), [(john, None), (stranger, UNKNOWN_CA), (None, CERTIFICATE_REQUIRED)]
)
async def test_aioquic_authenticates(pair: Callable[[], Pair] | None, code: int | None) -> None:
    aioquic = pytest.importorskip("aioquic.asyncio")
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.h3.connection import H3Connection
    from aioquic.quic.configuration import QuicConfiguration
    from aioquic.quic.events import ConnectionTerminated, StreamDataReceived

    codes: asyncio.Queue[int | None] = asyncio.Queue()

    class Peer(QuicConnectionProtocol):
        def quic_event_received(self, event: object) -> None:
            if isinstance(event, ConnectionTerminated):
                codes.put_nowait(event.error_code)
            elif isinstance(event, StreamDataReceived) and event.stream_id == 0:
                codes.put_nowait(None)

    made = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost")
    made.load_verify_locations(ca_file())
    if pair is not None:
        made.load_cert_chain(*pair())
    async with (
        site() as (port, seen),
        asyncio.timeout(5),
        aioquic.connect("127.0.0.1", port, configuration=made, create_protocol=Peer) as peer,
    ):
        connection = H3Connection(peer._quic)
        connection.send_headers(0, list(GET), end_stream=True)
        peer.transmit()
        assert await codes.get() == code
    assert bool(seen.sessions) == (code is None)

"""Upstreams that cannot be trusted, behind each front door, reached at first or late: what the client gets."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from llama import ConnectionHandler, Stream, Target, TLSError, http, mitm, serve, stack, tls
from llama.http import Request
from llama.tls import CertificateAuthority
from llama.tls._nonblocking import open_session
from tests.mitm.doors import entered, through, way
from tests.mitm.worlds import HOST, To, World, page, self_signed
from tests.tls.forged import copied

DOORS = ("http", "connect", "socks5", "late socks5", "forward", "late forward")


class Bad(NamedTuple):
    """A site with a certificate that is not to be trusted."""

    cert: Path
    key: Path
    words: str
    """What the page says."""
    options: dict[str, object]


def expired(world: World) -> Bad:
    cert, key = world.files()
    now = datetime.now(UTC)
    dates = (now - timedelta(30), now - timedelta(1))
    old = copied(x509.load_pem_x509_certificate(cert.read_bytes()), world.site_ca, dates=dates)
    cert.write_bytes(old.public_bytes(Encoding.PEM))
    return Bad(cert, key, "certificate has expired", {})


def selfsigned(world: World) -> Bad:
    return Bad(*self_signed(world.folder / "self", HOST), "not trusted: self-signed certificate", {})


def misnamed(world: World) -> Bad:
    return Bad(*world.files("other.example"), f"certificate is not valid for '{HOST}'", {})


def revoked(world: World) -> Bad:
    cert, key = world.files()
    der = x509.load_pem_x509_certificate(cert.read_bytes()).public_bytes(Encoding.DER)
    return Bad(
        cert, key, "certificate is revoked by a rule", {"revoked_fingerprints": [sha256(der).hexdigest()]}
    )


def site(bad: Bad) -> ConnectionHandler:
    return stack(tls.server(bad.cert, bad.key), http.server(), page)


FAULTS = pytest.mark.parametrize("fault", [expired, selfsigned, misnamed, revoked])
EVERY = pytest.mark.parametrize("kind", DOORS)
Fault = Callable[[World], Bad]


@EVERY
@FAULTS
@pytest.mark.parametrize("first", [True, False], ids=["first", "late"])
@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
async def test_the_client_gets_an_error_page_with_the_reason(
    world: World, kind: str, fault: Fault, first: bool, alpn: str
) -> None:
    bad = fault(world)
    options: dict[str, object] = {**bad.options, "connect_upstream_first": first}
    async with through(kind, world, site(bad), alpn=(alpn,), **options) as client:
        for _ in range(2):
            response = await client(Request("GET", f"https://{HOST}/", {"Accept": "text/html"}))
            text = (await response.body.read()).decode().replace("&#x27;", "'")
            assert response.status == 502 and response.headers["content-type"].startswith("text/html")
            assert bad.words in text and HOST in text and "by the proxy" in text


@EVERY
@FAULTS
async def test_the_client_is_passed_through_with_bad_upstream_pass(
    world: World, kind: str, fault: Fault
) -> None:
    bad = fault(world)
    leaf = x509.load_pem_x509_certificate(bad.cert.read_bytes())
    async with (
        serve(site(bad), listen="127.0.0.1:0") as served,
        entered(kind, world, served.port, on_tls_error="passthrough", **bad.options) as port,
    ):
        stream = await tls.connect(way(kind, port), insecure=True)(Target(HOST, 443))
        assert stream.extensions[tls.TLSInfo].peer_certificate_der == leaf.public_bytes(Encoding.DER)
        await stream.write(b"GET /x HTTP/1.0\r\nHost: site.example\r\n\r\n")
        assert (await read_all(stream)).endswith(b"GET /x from the cloud")


async def read_all(stream: Stream) -> bytes:
    got = b""
    while data := await stream.read():
        got += data
    await stream.aclose()
    return got


@EVERY
async def test_a_client_passed_through_verifies_the_upstream_itself(world: World, kind: str) -> None:
    async with through(kind, world, site(selfsigned(world)), on_tls_error="passthrough") as client:
        with pytest.raises(TLSError, match="self-signed"):
            await client(Request("GET", f"https://{HOST}/"))


# upstreams that want a certificate of the client


def wanting(world: World, version: ssl.TLSVersion) -> tuple[ConnectionHandler, tuple[Path, Path]]:
    """Such a site, and a certificate that it takes."""
    authority = CertificateAuthority.create(name="clients")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*world.files())
    context.load_verify_locations(authority.write_pem(world.folder / "clients.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    inner = http.server()(page)

    async def handler(stream: Stream) -> None:
        session = open_session(stream, context, server_side=True)
        try:
            await session.handshake()
        except ssl.SSLError as error:
            await session.send_alert()
            raise TLSError(str(error)) from None
        await inner(session)

    return handler, authority.issue("john", client=True).write(world.folder / "john")


WANTED = {ssl.TLSVersion.TLSv1_2: "handshake_failure", ssl.TLSVersion.TLSv1_3: "certificate_required"}
VERSIONS = pytest.mark.parametrize("version", WANTED)


@EVERY
@VERSIONS
@pytest.mark.parametrize("first", [True, False], ids=["first", "late"])
async def test_an_upstream_that_requires_a_client_certificate_gets_an_error_page(
    world: World, kind: str, version: ssl.TLSVersion, first: bool
) -> None:
    handler, _ = wanting(world, version)
    async with through(kind, world, handler, connect_upstream_first=first) as client:
        for _ in range(2):
            response = await client(Request("GET", f"https://{HOST}/"))
            text = (await response.body.read()).decode()
            assert response.status == 502 and WANTED[version] in text, text


@VERSIONS
async def test_a_client_certificate_is_sent_to_upstreams(world: World, version: ssl.TLSVersion) -> None:
    handler, (cert, key) = wanting(world, version)
    maker = partial(tls.connect, ca=world.site_pem, cert=cert, key=key)
    async with (
        serve(handler, listen="127.0.0.1:0") as served,
        serve(
            stack(http.server(), mitm.proxy(world.ca, connect=To(served.port), tls=maker)),
            listen="127.0.0.1:0",
        ) as front,
    ):
        over = http.connect(front.address)
        async with http.client(over, tls=tls.connect(over, ca=world.pem)) as client:
            response = await client(Request("GET", f"https://{HOST}/a"))
            assert await response.body.read() == b"GET /a from the cloud"


@VERSIONS
async def test_a_client_passed_through_sends_its_own_certificate(
    world: World, version: ssl.TLSVersion
) -> None:
    handler, (cert, key) = wanting(world, version)
    trust: dict[str, object] = {"ca": world.site_pem, "cert": cert, "key": key}
    async with through("socks5", world, handler, trust=trust, rules=[mitm.passthrough(HOST)]) as client:
        response = await client(Request("GET", f"https://{HOST}/a"))
        assert await response.body.read() == b"GET /a from the cloud"

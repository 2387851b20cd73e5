"""What OpenSSL's client sees of the proxy: the certificate and the protocol are mirrored from the upstream."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from llama import Target, http, mitm, serve, stack, tcp, tls
from llama.http import Request
from tests.mitm.doors import through
from tests.mitm.worlds import HOST, To, World, page
from tests.tls.forged import copied
from tests.tls.programs import needs, output_of

pytestmark = [pytest.mark.peer, needs("openssl")]
LONG = ".".join(("a" * 50, "b" * 50, "c" * 50, "example"))
NO_NAME = ("-noservername",)


class Seen(NamedTuple):
    """What `openssl s_client` says of a session."""

    alpn: str | None
    version: str
    verified: str
    certificate: x509.Certificate

    @property
    def names(self) -> list[str]:
        found = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return [str(each.value) for each in found.value]

    @property
    def subject(self) -> str:
        return self.certificate.subject.rfc4514_string()


@asynccontextmanager
async def before(
    world: World,
    *names: str,
    target: str = f"{HOST}:443",
    alpn: Sequence[str] = ("h2", "http/1.1"),
    dates: tuple[datetime, datetime] | None = None,
    **options: object,
) -> AsyncGenerator[int]:
    """The port of the proxy before a site with a certificate for these names."""
    cert, key = world.files(*(names or (HOST,)))
    if dates is not None:
        leaf = copied(x509.load_pem_x509_certificate(cert.read_bytes()), world.site_ca, dates=dates)
        cert.write_bytes(leaf.public_bytes(Encoding.PEM))
    site = stack(tls.server(cert, key, alpn=alpn), http.server(), page)
    options.setdefault("verify", world.site_pem)
    async with serve(site, listen="127.0.0.1:0") as served:
        relay = mitm.relay(world.ca, **options)  # type: ignore[arg-type]
        door = tcp.forward(target, connect=To(served.port), relay=relay)
        async with serve(door, listen="127.0.0.1:0") as front:
            yield front.port


async def looked(world: World, port: int, *options: str) -> Seen:
    """What a client sees that verifies the certificate."""
    code, said = await output_of(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(world.pem)),
        *("-verify_return_error", "-showcerts", *options),
    )
    assert code == 0, said
    pem = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", said, re.DOTALL)
    verified, version = re.search(r"Verif\w+(?: return code)?: (.*)", said), re.search(r"New, (\S+),", said)
    alpn = re.search(r"ALPN protocol: (\S+)", said)
    assert pem is not None and verified is not None and version is not None, said
    certificate = x509.load_pem_x509_certificate(pem[0].encode())
    return Seen(alpn[1] if alpn else None, version[1], verified[1], certificate)


def named(name: str) -> tuple[str, ...]:
    return ("-servername", name, "-verify_hostname", name)


@pytest.mark.parametrize(
    ("site", "client", "chosen"),
    [
        (("h2", "http/1.1"), "h2,http/1.1", "h2"),
        (("h2", "http/1.1"), "http/1.1", "http/1.1"),
        (("http/1.1",), "h2,http/1.1", "http/1.1"),
        ((), "h2,http/1.1", None),
        (("http/1.1",), "h2", "h2"),  # translated
        ((), "h2", "h2"),
        (("h2",), "h2", "h2"),
        (("h2", "http/1.1"), "", None),
        (("imap",), "imap", "imap"),
        (("http/1.1",), "http/1.0,http/1.1", "http/1.1"),
    ],
)
async def test_the_client_gets_the_protocol_that_the_upstream_chose(
    world: World, site: tuple[str, ...], client: str, chosen: str | None
) -> None:
    async with before(world, alpn=site) as port:
        offered = ("-alpn", client) if client else ()
        assert (await looked(world, port, *named(HOST), *offered)).alpn == chosen


@pytest.mark.parametrize("alpn", [("http/1.1",), ("h2",), ()])
async def test_a_client_that_offers_only_http2_is_served_with_any_upstream(
    world: World, alpn: tuple[str, ...]
) -> None:
    site = stack(tls.server(*world.files(), alpn=alpn), http.server(), page)
    async with through("forward", world, site, alpn=("h2",)) as client:
        response = await client(Request("GET", f"https://{HOST}/a"))
        assert (await response.body.read(), response.version) == (b"GET /a from the cloud", "2")


async def test_names_and_dates_are_the_upstreams(world: World) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    dates = (now - timedelta(3), now + timedelta(17))
    async with before(world, HOST, "*.other.example", "192.0.2.7", dates=dates) as port:
        seen = await looked(world, port, *named(HOST))
        assert seen.names == [HOST, "*.other.example", "192.0.2.7"]
        assert (seen.certificate.not_valid_before_utc, seen.certificate.not_valid_after_utc) == dates
        assert seen.subject == f"CN={HOST}"


@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
async def test_each_version_of_tls(world: World, option: str) -> None:
    async with before(world) as port:
        seen = await looked(world, port, option, *named(HOST))
        assert seen.version == option.removeprefix("-").replace("tls1_", "TLSv1.")


@pytest.mark.parametrize("first", [True, False], ids=["first", "late"])
@pytest.mark.parametrize(
    ("site", "asked", "subject"),
    [
        ("*.wild.example", "a.wild.example", "CN=a.wild.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", "CN=xn--bcher-kva.example"),
        (LONG, LONG, ""),
        ("site_with.example", "site_with.example", "CN=site_with.example"),
        ("MIXED.example", "mixed.EXAMPLE", "CN=mixed.example"),
        ("localhost", "localhost", "CN=localhost"),
    ],
)
async def test_kinds_of_names(world: World, site: str, asked: str, subject: str, first: bool) -> None:
    async with before(world, site, connect_upstream_first=first) as port:
        seen = await looked(world, port, *named(asked))
        assert asked.lower() in [name.lower() for name in seen.names]
        assert (site.lower() in seen.names) == (first or site == asked or site.lower() == asked.lower())
        assert seen.subject.lower() == subject.lower()


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "late"])
async def test_without_sni_the_certificate_is_for_the_address(
    world: World, address: str, first: bool
) -> None:
    target = str(Target(address, 443))
    async with before(world, address, target=target, connect_upstream_first=first) as port:
        seen = await looked(world, port, *NO_NAME, "-verify_ip", address)
        assert (seen.names, seen.subject) == ([address], f"CN={address}")


async def test_without_sni_the_certificate_is_for_the_target_name(world: World) -> None:
    async with before(world) as port:
        assert (await looked(world, port, *NO_NAME, "-verify_hostname", HOST)).names == [HOST]


@pytest.mark.parametrize("name", ["a b", "-", "a..b", "\u00ff", "localhost:8443"])
async def test_with_an_invalid_server_name_the_certificate_is_for_the_target_name(
    world: World, name: str
) -> None:
    async with before(world) as port:
        assert (await looked(world, port, "-servername", name)).names == [HOST]


async def test_a_name_missing_from_the_upstream_certificate_gets_an_error_page(world: World) -> None:
    """The client is to read the page, so its own name is in the certificate."""
    async with before(world, "other.example") as port:
        seen = await looked(world, port, *named(HOST))
        assert HOST in seen.names


def test_the_names_of_the_test_certificates() -> None:
    assert 64 < len(LONG) < 254

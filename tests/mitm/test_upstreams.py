"""Upstreams that cannot be trusted or reached, each with what the client is told."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from llama import ConnectionHandler, Stream, Target, TLSError, UnreachableError, http, mitm, serve, stack, tls
from llama.http import Request
from tests.mitm.worlds import HOST, World, fronted, page, self_signed
from tests.tls.forged import copied


def https(cert: Path, key: Path) -> ConnectionHandler:
    return stack(tls.server(cert, key), http.server(), page)


def expired(world: World) -> tuple[Path, Path]:
    cert, key = world.files()
    now = datetime.now(UTC)
    old = copied(
        x509.load_pem_x509_certificate(cert.read_bytes()),
        world.site_ca,
        dates=(now - timedelta(30), now - timedelta(1)),
    )
    cert.write_bytes(old.public_bytes(Encoding.PEM))
    return cert, key


async def test_an_expired_certificate_gets_an_error_page(world: World) -> None:
    async with fronted(world, https(*expired(world))) as front:
        status, text = await front.get()
        assert status == 502 and "certificate has expired" in text and HOST in text


async def test_a_self_signed_certificate_gets_an_error_page(world: World, tmp_path: Path) -> None:
    async with fronted(world, https(*self_signed(tmp_path / "self", HOST))) as front:
        status, text = await front.get()
        assert status == 502 and "not trusted: self-signed certificate" in text


async def test_a_certificate_for_another_name_gets_an_error_page(world: World) -> None:
    async with fronted(world, world.https(page, "other.example")) as front:
        status, text = await front.get()
        assert status == 502 and f"certificate is not valid for '{HOST}'" in text


async def test_a_revoked_certificate_gets_an_error_page(world: World) -> None:
    cert, _ = world.files()
    der = x509.load_pem_x509_certificate(cert.read_bytes()).public_bytes(Encoding.DER)
    for first in (True, False):
        async with fronted(
            world,
            world_https(world),
            revoked_fingerprints=[sha256(der).hexdigest()],
            connect_upstream_first=first,
        ) as front:
            status, text = await front.get()
            assert status == 502 and "revoked by a rule" in text


def world_https(world: World) -> ConnectionHandler:
    """The same files again, not a new certificate."""
    folder = world.folder / "site"
    return https(folder / "cert.pem", folder / "key.pem")


async def test_browsers_get_the_page_as_html(world: World) -> None:
    async with fronted(world, world.https(page, "other.example")) as front:
        _, text = await front.get(accept="text/html")
        assert text.startswith("<!doctype html>") and "502 Bad Gateway" in text and "&#x27;" in text


async def test_each_request_gets_the_failure_and_connects_again(world: World) -> None:
    async with fronted(world, world.https(page, "other.example")) as front:
        assert [(await front.get())[0] for _ in range(3)] == [502, 502, 502]
        assert len(front.to.targets) == 3


async def test_an_unreachable_upstream_gets_an_error_page(world: World) -> None:
    async def nobody(target: Target) -> Stream:
        raise UnreachableError(f"cannot connect to {target}: nobody is there")

    proxy = mitm.proxy(world.ca, connect=nobody)
    async with serve(stack(http.server(), proxy), listen="127.0.0.1:0") as front:
        over = http.connect(front.address)
        async with http.client(over, tls=tls.connect(over, ca=world.pem)) as client:
            response = await client(Request("GET", f"https://{HOST}/"))
            assert response.status == 502
            assert b"nobody is there" in await response.body.read()


async def test_a_client_may_be_passed_through_to_an_untrusted_upstream(world: World, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path / "self", HOST)
    async with fronted(world, https(cert, key), on_tls_error="passthrough") as front:
        with pytest.raises(TLSError, match="self-signed"):
            await front.get()
        over = http.connect(f"127.0.0.1:{front.port}")
        async with http.client(over, tls=tls.connect(over, ca=cert)) as client:
            response = await client(Request("GET", f"https://{HOST}/x"))
            assert await response.body.read() == b"GET /x from the cloud"


async def test_verification_can_be_disabled(world: World) -> None:
    async with fronted(world, https(*expired(world)), verify=False) as front:
        assert await front.get() == (200, "GET /a from the cloud")

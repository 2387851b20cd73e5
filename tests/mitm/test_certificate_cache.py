"""Certificates that are minted: what they say, how long they are kept."""

import asyncio
import ssl
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from llama import ConfigError, TLSError
from llama.mitm._certificate_cache import CertificateCache
from llama.tls import CertificateAuthority
from tests.tls.forged import copied


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(each.value) for each in found]


def spanning(by: CertificateAuthority, start: timedelta, end: timedelta) -> x509.Certificate:
    now = datetime.now(UTC)
    leaf = x509.load_pem_x509_certificate(by.issue("a.example").cert_pem)
    return copied(leaf, by, dates=(now + start, now + end))


def mirrored(ca: CertificateAuthority, certificate: x509.Certificate, *wanted: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ca.mirror(certificate, *wanted).cert_pem)


def test_a_mirror_has_the_names_of_both() -> None:
    site, ca = CertificateAuthority.create(), CertificateAuthority.create()
    leaf = x509.load_pem_x509_certificate(site.issue("a.example", "*.b.example", "192.0.2.1").cert_pem)
    assert names(mirrored(ca, leaf, "b.example", "a.example")) == [
        "b.example",
        "a.example",
        "*.b.example",
        "192.0.2.1",
    ]


def test_a_mirror_has_the_same_validity_within_limits() -> None:
    ca = CertificateAuthority.create()
    day, now = timedelta(days=1), datetime.now(UTC)
    short = spanning(ca, -day, 2 * day)
    found = mirrored(ca, short, "a.example")
    assert (found.not_valid_before_utc, found.not_valid_after_utc) == (
        short.not_valid_before_utc,
        short.not_valid_after_utc,
    )
    long = mirrored(ca, spanning(ca, -900 * day, 900 * day), "a.example")
    assert long.not_valid_after_utc - long.not_valid_before_utc <= 397 * day
    assert long.not_valid_after_utc - now > 360 * day
    for over in (spanning(ca, -3 * day, -day), spanning(ca, day, 3 * day)):
        fresh = mirrored(ca, over, "a.example")
        assert fresh.not_valid_before_utc < now < fresh.not_valid_after_utc < now + 2 * day


def test_a_mirror_ends_with_its_authority() -> None:
    ca = CertificateAuthority.create(days=1)
    long = spanning(CertificateAuthority.create(), -timedelta(1), timedelta(90))
    assert mirrored(ca, long, "a.example").not_valid_after_utc == ca.certificate.not_valid_after_utc


async def test_contexts_are_cached_by_name_certificate_and_protocols() -> None:
    leaves = CertificateCache(CertificateAuthority.create(), 3)
    one = await leaves.context("a.example", None, ())
    assert await leaves.context("a.example", None, ()) is one
    other = der(CertificateAuthority.create().issue("a.example").cert_pem)
    assert (
        len(
            {
                one,
                await leaves.context("a.example", None, ("h2",)),
                await leaves.context("a.example", other, ()),
            }
        )
        == 3
    )
    await leaves.context("a.example", None, ())
    await leaves.context("b.example", None, ())
    assert len(leaves) == 3
    assert await leaves.context("a.example", None, ()) is one


async def test_an_invalid_name_raises_tls_error() -> None:
    leaves = CertificateCache(CertificateAuthority.create(), 3)
    for name in ("a b", "*.", "", "a" * 70 + ".example"):
        with pytest.raises(TLSError):
            await leaves.context(name, None, ())
    for name in ("192.0.2.1", "a_b.example"):
        await leaves.context(name, None, ())
    assert len(leaves) == 2


async def test_a_malformed_certificate_is_not_mirrored() -> None:
    assert isinstance(
        await CertificateCache(CertificateAuthority.create(), 3).context("a.example", b"\x30\x00", ()),
        ssl.SSLContext,
    )


async def test_concurrent_requests_for_a_context_make_it_once() -> None:
    leaves = CertificateCache(CertificateAuthority.create(), 3)
    all_want = (leaves.context("a.example", None, ()) for _ in range(20))
    assert len(set(await asyncio.gather(*all_want))) == 1
    assert len(leaves) == 1


async def test_a_cancelled_request_for_a_context_does_not_cancel_the_others() -> None:
    leaves = CertificateCache(CertificateAuthority.create(), 3)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(leaves.context("a.example", None, ()))
        second = group.create_task(leaves.context("a.example", None, ()))
        await asyncio.sleep(0)
        first.cancel()
    assert first.cancelled()
    assert await leaves.context("a.example", None, ()) is second.result()


def test_minting_is_quick() -> None:
    ca = CertificateAuthority.create()
    ca.issue("a.example", reuse_key=True)
    took: list[float] = []
    for number in range(50):
        begun = time.perf_counter()
        ca.issue(f"h{number}.example", reuse_key=True)
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.002, f"{min(took) * 1e3:.2f} ms"


def test_the_cache_holds_at_least_one() -> None:
    with pytest.raises(ConfigError):
        CertificateCache(CertificateAuthority.create(), 0)

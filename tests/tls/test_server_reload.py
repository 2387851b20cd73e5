"""Certificates that change while the server runs; nobody waits for a second here, a look is forced."""

import itertools
import logging
import os
import ssl
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography import x509

from llama import ConnectionHandler, tls
from llama.tls import Certificate, CertificateAuthority, KeyPair
from llama.tls._certificates.x509 import KeyKind
from llama.tls._server import TLSServer
from tests.tls.clients import V12, V13, alert_of, client_of, echo, tell, trusting
from tests.tls.sessions import authority, pair_files

_stamps = itertools.count(1_600_000_000, 10)


def put(place: Path, pair: KeyPair) -> tuple[Path, Path]:
    """Write a pair over the one there, with time stamps that differ however coarse the clock is."""
    files = pair.write(place)
    touch(files)
    return files


def touch(files: Iterable[Path]) -> None:
    for each in files:
        now = next(_stamps)
        os.utime(each, (now, now))


def look_again(handler: ConnectionHandler) -> None:
    """As if a second had passed since the last look at the files."""
    assert isinstance(handler, TLSServer)
    handler.certificates._checked_at = float("-inf")
    for site in handler.certificates._all:
        site._checked_at = float("-inf")


def serial_of(pair: KeyPair) -> int:
    return x509.load_pem_x509_certificate(pair.cert_pem).serial_number


async def serial_seen(
    handler: ConnectionHandler, name: str = "localhost", context: ssl.SSLContext | None = None
) -> int:
    async with client_of(handler, context, name) as client:
        return x509.load_der_x509_certificate(client.certificate).serial_number


async def test_open_connections_continue_and_new_ones_get_the_new_certificate(tmp_path: Path) -> None:
    old, new = authority().issue("localhost"), authority().issue("localhost")
    handler = tls.server(*put(tmp_path, old))(echo)
    async with client_of(handler) as client:
        assert await client.ask(b"before") == b"before"
        put(tmp_path, new)
        assert await serial_seen(handler) == serial_of(old)  # a look a second is enough
        look_again(handler)
        assert await serial_seen(handler) == serial_of(new)
        assert await client.ask(b"after") == b"after"


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_a_broken_file_keeps_the_old_one_and_is_logged_once(
    tmp_path: Path, broken: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = authority().issue("localhost"), authority().issue("localhost")
    cert, key = put(tmp_path, old)
    handler = tls.server(cert, key)(echo)
    cert.write_bytes(broken)
    for _ in range(3):
        look_again(handler)
        assert await serial_seen(handler) == serial_of(old)
    (told,) = [each.getMessage() for each in caplog.records if each.name == "llama.tls"]
    assert told.startswith("certificate reload failed, the current one stays in use: ")
    assert str(cert) in told
    put(tmp_path, new)
    look_again(handler)
    assert await serial_seen(handler) == serial_of(new)


async def test_a_missing_file_keeps_the_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = authority().issue("localhost")
    cert, key = put(tmp_path, old)
    handler = tls.server(cert, key)(echo)
    key.unlink()
    look_again(handler)
    assert await serial_seen(handler) == serial_of(old)
    assert "key.pem: no such file" in caplog.text


async def test_a_new_certificate_is_used_once_its_key_is_replaced(tmp_path: Path) -> None:
    old, new = authority().issue("localhost"), authority().issue("localhost")
    cert, key = put(tmp_path, old)
    handler = tls.server(cert, key)(echo)
    cert.write_bytes(new.cert_pem)
    touch([cert])
    look_again(handler)
    assert await serial_seen(handler) == serial_of(old)
    key.write_bytes(new.key_pem)
    touch([key])
    look_again(handler)
    assert await serial_seen(handler) == serial_of(new)


async def test_a_pair_that_changes_during_a_reload_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = authority().issue("localhost")
    handler = tls.server(*put(tmp_path, authority().issue("localhost")))(echo)
    assert isinstance(handler, TLSServer)
    (site,) = handler.certificates._all
    prove = site.load

    def proven_and_gone() -> object:
        fresh = prove()
        (tmp_path / "key.pem").write_bytes(authority().issue("localhost").key_pem)
        return fresh

    put(tmp_path, new)
    monkeypatch.setattr(site, "load", proven_and_gone)
    look_again(handler)
    assert await serial_seen(handler) == serial_of(new)


@pytest.mark.parametrize(("first", "then"), [("rsa", "ec"), ("ec", "rsa")])
async def test_the_key_type_may_change(tmp_path: Path, first: KeyKind, then: KeyKind) -> None:
    """The old one is gone then: a client that takes only its kind finds nothing."""
    handler = tls.server(*put(tmp_path, authority().issue("localhost", key=first)))(echo)
    only_old = trusting(version=V12)
    only_old.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256" if first == "rsa" else "ECDHE-ECDSA-AES128-GCM-SHA256")
    async with client_of(handler, only_old) as client:
        assert await client.ask(b"hi") == b"hi"
    new = authority().issue("localhost", key=then)
    put(tmp_path, new)
    look_again(handler)
    assert await serial_seen(handler) == serial_of(new)
    said, _ = await alert_of(handler, only_old)
    assert said == "SSLV3_ALERT_HANDSHAKE_FAILURE"


async def test_a_combined_file_may_change(tmp_path: Path) -> None:
    combined = tmp_path / "both.pem"
    old, new = authority().issue("localhost"), authority().issue("localhost")
    combined.write_bytes(old.cert_pem + old.key_pem)
    handler = tls.server(combined)(echo)
    combined.write_bytes(new.cert_pem + new.key_pem)
    touch([combined])
    look_again(handler)
    assert await serial_seen(handler) == serial_of(new)


async def test_a_new_timestamp_alone_changes_nothing(tmp_path: Path) -> None:
    old = authority().issue("localhost")
    files = put(tmp_path, old)
    handler, context = tls.server(*files)(tell), trusting()
    async with client_of(handler, context) as client:
        await client.ask(b"?")
        session = client.tls.session
    touch(files)
    look_again(handler)
    async with client_of(handler, context, session=session) as client:
        assert b" resumed " in await client.ask(b"?")
    assert await serial_seen(handler) == serial_of(old)


@pytest.mark.parametrize("version", [V12, V13])
async def test_tickets_stay_valid_after_a_reload(tmp_path: Path, version: ssl.TLSVersion) -> None:
    handler = tls.server(*put(tmp_path, authority().issue("localhost")))(tell)
    context = trusting(version=version)
    async with client_of(handler, context) as client:
        await client.ask(b"?")
        session = client.tls.session
    new = authority().issue("localhost")
    put(tmp_path, new)
    look_again(handler)
    async with client_of(handler, context, session=session) as client:
        assert b" resumed " in await client.ask(b"?")
    assert await serial_seen(handler) == serial_of(new)


async def test_a_new_client_ca_applies_at_once_also_to_resumed_sessions(tmp_path: Path) -> None:
    mine, yours = CertificateAuthority.create(name="mine"), CertificateAuthority.create(name="yours")
    john = pair_of(mine, tmp_path / "john")
    jane = pair_of(yours, tmp_path / "jane")
    clients = mine.write_pem(tmp_path / "clients.pem")
    handler = tls.server(*pair_files("localhost"), client_ca=clients)(tell)
    johns = trusting(pair=john)
    async with client_of(handler, johns) as client:
        assert b" client fresh " in await client.ask(b"?")
        session = client.tls.session
    await alert_of(handler, trusting(pair=jane))
    touch([yours.write_pem(clients)])
    look_again(handler)
    async with client_of(handler, trusting(pair=jane)) as client:
        assert b" client fresh " in await client.ask(b"?")
    said, _ = await alert_of(handler, johns, session=session)
    assert said == "TLSV1_ALERT_UNKNOWN_CA"


def pair_of(by: CertificateAuthority, place: Path) -> tuple[str, str]:
    cert, key = by.issue("client", client=True).write(place)
    return str(cert), str(key)


async def test_names_follow_the_files(tmp_path: Path) -> None:
    """A renewed certificate may be for more names than the one before, and for fewer."""
    handler = tls.server(
        Certificate(*pair_files("localhost")),
        None,
        Certificate(*put(tmp_path, authority().issue("a.example"))),
    )(echo)
    context = trusting()
    context.check_hostname = False
    for names in (["a.example", "new.example"], ["*.wild.example"], ["a.example"]):
        put(tmp_path, authority().issue(*names))
        look_again(handler)
        for asked in ("a.example", "new.example", "x.wild.example"):
            async with client_of(handler, context, asked) as client:
                has = asked in names or f"*.{asked.partition('.')[2]}" in names
                assert client.names == (set(names) if has else {"localhost"}), (names, asked)


async def test_a_reload_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llama.tls")
    cert, key = put(tmp_path, authority().issue("localhost"))
    handler = tls.server(cert, key)(echo)
    new = authority().issue("localhost")
    put(tmp_path, new)
    look_again(handler)
    await serial_seen(handler)
    assert f"{cert} reloaded: serial {serial_of(new):x}" in caplog.messages

"""Client certificates, and sessions that are resumed: what one site grants opens no other."""

import ssl
from pathlib import Path

import pytest

from llama import ConnectionHandler, Stream, tls
from llama.tls import Certificate, CertificateAuthority, TLSInfo
from llama.tls._certificates.files import ClientAuth
from tests.tls.clients import V12, V13, alert_of, client_of, tell, trusting
from tests.tls.sessions import ca_file, folder, pair_files

VERSIONS = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])


def john() -> tuple[str, str]:
    return pair_files("john", client=True)


def stranger() -> tuple[Path, Path]:
    return CertificateAuthority.create(name="another").issue("jane", client=True).write(folder() / "stranger")


def required_alert(version: ssl.TLSVersion) -> str:
    return "TLSV13_ALERT_CERTIFICATE_REQUIRED" if version == V13 else "SSLV3_ALERT_HANDSHAKE_FAILURE"


@VERSIONS
async def test_a_verified_client_is_in_the_extensions(version: ssl.TLSVersion) -> None:
    layer = tls.server(*pair_files("localhost"), client_ca=ca_file())
    async with client_of(layer(tell), trusting(version=version, pair=john())) as client:
        assert b" john fresh " in await client.ask(b"?")


async def test_the_peer_certificate_is_available_parsed_and_in_der() -> None:
    seen: list[TLSInfo] = []

    async def look(stream: Stream) -> None:
        seen.append(stream.extensions[TLSInfo])

    layer = tls.server(*pair_files("localhost"), client_ca=ca_file(), client_auth="optional")
    async with client_of(layer(look), trusting(version=V12, pair=john())):
        pass
    async with client_of(layer(look), trusting(version=V12)):
        pass
    known, unknown = seen
    assert known.peer_certificate is not None
    assert known.peer_certificate["subject"] == ((("commonName", "john"),),)
    assert known.peer_certificate_der == ssl.PEM_cert_to_DER_cert(Path(john()[0]).read_text())
    assert (unknown.peer_certificate, unknown.peer_certificate_der) == (None, None)


@VERSIONS
async def test_a_client_without_a_required_certificate_is_refused(version: ssl.TLSVersion) -> None:
    layer = tls.server(*pair_files("localhost"), client_ca=ca_file())
    said, raised = await alert_of(layer(tell), trusting(version=version))
    assert said == required_alert(version)
    assert raised == "TLS handshake failed: the client sent no certificate, and one is required"


@VERSIONS
@pytest.mark.parametrize("auth", ["optional", "required"])
async def test_a_certificate_of_another_authority_is_refused(
    version: ssl.TLSVersion, auth: ClientAuth
) -> None:
    layer = tls.server(*pair_files("localhost"), client_ca=ca_file(), client_auth=auth)
    cert, key = stranger()
    said, raised = await alert_of(layer(tell), trusting(version=version, pair=(str(cert), str(key))))
    assert said == "TLSV1_ALERT_UNKNOWN_CA"
    assert raised.startswith("TLS handshake failed: the peer's certificate is not trusted: ")


@VERSIONS
async def test_an_optional_certificate_may_be_missing(version: ssl.TLSVersion) -> None:
    layer = tls.server(*pair_files("localhost"), client_ca=ca_file(), client_auth="optional")
    async with client_of(layer(tell), trusting(version=version)) as client:
        assert b" nobody fresh " in await client.ask(b"?")


async def test_a_server_certificate_is_not_accepted_from_a_client() -> None:
    layer = tls.server(*pair_files("localhost"), client_ca=ca_file())
    said, raised = await alert_of(layer(tell), trusting(pair=pair_files("localhost")))
    assert said == "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"
    assert "purpose" in raised


# several sites


def other_ca() -> CertificateAuthority:
    return CertificateAuthority.create(name="other")


async def test_each_certificate_has_its_own_client_ca_and_client_auth(tmp_path: Path) -> None:
    other = other_ca()
    other_file = other.write_pem(tmp_path / "other.pem")
    jane_cert, jane_key = other.issue("jane", client=True).write(tmp_path)
    jane = (str(jane_cert), str(jane_key))
    layer = tls.server(
        Certificate(*pair_files("free.example"), client_auth="none"),
        None,
        Certificate(*pair_files("closed.example")),
        Certificate(*pair_files("maybe.example"), client_auth="optional"),
        Certificate(*pair_files("other.example"), client_ca=other_file),
        client_ca=ca_file(),
    )
    expected = {
        ("free.example", None): "nobody",
        ("free.example", john()): "nobody",
        ("closed.example", None): None,
        ("closed.example", john()): "john",
        ("closed.example", jane): None,
        ("maybe.example", None): "nobody",
        ("maybe.example", john()): "john",
        ("maybe.example", jane): None,
        ("other.example", None): None,
        ("other.example", john()): None,
        ("other.example", jane): "jane",
    }
    for (name, pair), seen in expected.items():
        if seen is None:
            await alert_of(layer(tell), trusting(pair=pair), name)
        else:
            async with client_of(layer(tell), trusting(pair=pair), name) as client:
                assert f" {seen} fresh " in (await client.ask(b"?")).decode(), name


# resumption


def free_and_closed() -> ConnectionHandler:
    free = Certificate(*pair_files("free.example"))
    also = Certificate(*pair_files("also.example"))
    closed = Certificate(*pair_files("closed.example"), client_ca=ca_file())
    strict = Certificate(*pair_files("optional.example"), client_ca=ca_file(), client_auth="optional")
    return tls.server(free, None, also, closed, strict)(tell)


async def session_from(
    handler: ConnectionHandler, context: ssl.SSLContext, name: str
) -> tuple[ssl.SSLSession, bytes]:
    """A session that can be resumed, once its tickets have come; and what the server told."""
    async with client_of(handler, context, name) as client:
        told = await client.ask(b"?")
        session = client.tls.session
        assert session is not None
        return session, told


@VERSIONS
async def test_a_session_is_resumed_at_its_own_site(version: ssl.TLSVersion) -> None:
    handler, context = free_and_closed(), trusting(version=version)
    session, _ = await session_from(handler, context, "free.example")
    async with client_of(handler, context, "free.example", session) as client:
        assert b" nobody resumed " in await client.ask(b"?")


@VERSIONS
async def test_a_resumed_session_keeps_the_client_certificate(version: ssl.TLSVersion) -> None:
    handler, context = free_and_closed(), trusting(version=version, pair=john())
    session, told = await session_from(handler, context, "closed.example")
    assert b" john fresh " in told
    async with client_of(handler, context, "closed.example", session) as client:
        assert b" john resumed " in await client.ask(b"?")


@VERSIONS
@pytest.mark.parametrize("elsewhere", ["also.example", "optional.example"])
async def test_a_session_of_one_site_is_not_resumed_at_another(
    version: ssl.TLSVersion, elsewhere: str
) -> None:
    handler, context = free_and_closed(), trusting(version=version)
    session, _ = await session_from(handler, context, "free.example")
    async with client_of(handler, context, elsewhere, session) as client:
        assert b" nobody fresh " in await client.ask(b"?")
        assert elsewhere in client.names


@VERSIONS
@pytest.mark.parametrize("source", ["free.example", "optional.example"])
async def test_a_session_without_a_client_certificate_is_refused_by_a_site_that_requires_one(
    version: ssl.TLSVersion, source: str
) -> None:
    handler, context = free_and_closed(), trusting(version=version)
    session, _ = await session_from(handler, context, source)
    said, raised = await alert_of(handler, context, "closed.example", session)
    assert said == required_alert(version)
    assert raised == "TLS handshake failed: the client sent no certificate, and one is required"


@VERSIONS
async def test_with_a_client_certificate_that_session_becomes_a_full_handshake(
    version: ssl.TLSVersion,
) -> None:
    handler, context = free_and_closed(), trusting(version=version)
    session, _ = await session_from(handler, context, "free.example")
    context.load_cert_chain(*john())
    async with client_of(handler, context, "closed.example", session) as client:
        assert b" john fresh " in await client.ask(b"?")


async def test_a_session_cached_by_the_server_is_resumed_only_at_its_own_site() -> None:
    """Without tickets a session of TLS 1.2 is found by its id."""
    handler, context = free_and_closed(), trusting(version=V12)
    context.options |= ssl.OP_NO_TICKET
    session, _ = await session_from(handler, context, "free.example")
    assert not session.has_ticket
    async with client_of(handler, context, "free.example", session) as client:
        assert b" nobody resumed " in await client.ask(b"?")
    async with client_of(handler, context, "also.example", session) as client:
        assert b" nobody fresh " in await client.ask(b"?")
    said, _ = await alert_of(handler, context, "closed.example", session)
    assert said == required_alert(V12)

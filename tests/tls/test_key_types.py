"""Certificates with different types of keys for one name: each client gets one that it can verify."""

import ssl
from pathlib import Path

import pytest

from llama import ConnectionHandler, serve, tls
from llama.tls import Certificate, KeyPair
from llama.tls._certificates.x509 import KeyKind
from tests.tls.clients import V12, V13, alert_of, client_of, echo, tell, trusting
from tests.tls.programs import needs, output_of
from tests.tls.sessions import authority, ca_file
from tests.tls.test_server_reload import look_again, put, serial_of, serial_seen

EC, RSA = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"
CLIENTS = {
    "EC, 1.2": ["-tls1_2", "-cipher", EC],
    "RSA, 1.2": ["-tls1_2", "-cipher", RSA],
    "both, 1.2": ["-tls1_2"],
    "EC, 1.3": ["-tls1_3", "-sigalgs", "ECDSA+SHA256:RSA+SHA256"],
    "RSA, 1.3": ["-tls1_3", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"],
    "both, 1.3": ["-tls1_3"],
}


def both(place: Path, *names: str, order: tuple[KeyKind, ...] = ("rsa", "ec")) -> list[Certificate]:
    pairs = [put(place / kind, authority().issue(*names or ("localhost",), key=kind)) for kind in order]
    return [Certificate(*pair) for pair in pairs]


def server_of(certificates: list[Certificate], **options: object) -> ConnectionHandler:
    first, *others = certificates
    return tls.server(first, None, *others, **options)(echo)  # type: ignore[arg-type]


def only(kind: str) -> ssl.SSLContext:
    context = trusting(version=V12)
    context.set_ciphers(EC if kind == "ec" else RSA)
    return context


@pytest.mark.peer
@needs("openssl")
@pytest.mark.parametrize("order", [("rsa", "ec"), ("ec", "rsa")], ids=" before ".join)
@pytest.mark.parametrize("name", ["localhost", "other.example", None])
@pytest.mark.parametrize("client", CLIENTS)
async def test_s_client_gets_a_key_type_that_it_supports(
    tmp_path: Path, client: str, name: str | None, order: tuple[KeyKind, ...]
) -> None:
    options = ["-noservername"] if name is None else ["-servername", name]
    async with serve(server_of(both(tmp_path, order=order)), listen="127.0.0.1:0", grace=5) as server:
        code, said = await output_of(
            *("openssl", "s_client", "-connect", server.address, "-CAfile", ca_file()),
            *("-verify_return_error", *options, *CLIENTS[client]),
        )
    assert code == 0, said
    kind = client.partition(",")[0]
    assert kind == "both" or f"Peer signature type: {'ECDSA' if kind == 'EC' else 'RSA-PSS'}" in said


async def test_only_certificates_for_the_same_name_are_used_together(tmp_path: Path) -> None:
    rsa, _ = both(tmp_path / "one", "a.example", "b.example")
    _, ec = both(tmp_path / "two", "a.example")
    handler = server_of([rsa, ec])
    for kind, names in (("rsa", {"a.example", "b.example"}), ("ec", {"a.example"})):
        async with client_of(handler, only(kind), "a.example") as client:
            assert client.names == names
    async with client_of(handler, only("rsa"), "b.example") as client:
        assert client.names == {"a.example", "b.example"}
    context = only("ec")
    context.check_hostname = False
    for name in ("b.example", "other.example", None):
        assert (await alert_of(handler, context, name))[0] == "SSLV3_ALERT_HANDSHAKE_FAILURE"


async def test_a_given_name_may_have_a_certificate_of_each_key_type(tmp_path: Path) -> None:
    pairs = [put(tmp_path / kind, authority().issue("x.example", key=kind)) for kind in ("rsa", "ec")]
    handler = server_of([Certificate(*pair, names=["localhost"]) for pair in pairs])
    for kind in ("rsa", "ec"):
        context = only(kind)
        context.check_hostname = False
        async with client_of(handler, context) as client:
            assert client.names == {"x.example"}


@pytest.mark.parametrize("kind", ["rsa", "ec"])
async def test_tickets_stay_valid_when_one_certificate_is_renewed(tmp_path: Path, kind: KeyKind) -> None:
    first, *others = both(tmp_path)
    handler = tls.server(first, None, *others)(tell)
    sessions: dict[str, tuple[ssl.SSLContext, ssl.SSLSession | None]] = {}
    for each in ("rsa", "ec"):
        async with client_of(handler, context := only(each)) as client:
            await client.ask(b"?")
            sessions[each] = (context, client.tls.session)
    new = authority().issue("localhost", key=kind)
    put(tmp_path / kind, new)
    look_again(handler)
    for each, (context, session) in sessions.items():
        async with client_of(handler, context, session=session) as client:
            assert b" resumed " in await client.ask(b"?"), each
        assert (await serial_with(handler, each) == serial_of(new)) == (each == kind)


async def serial_with(handler: ConnectionHandler, kind: str) -> int:
    return await serial_seen(handler, context=only(kind))


async def test_a_broken_file_does_not_block_the_reload_of_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = server_of(both(tmp_path))
    old = await serial_with(handler, "ec")
    new = authority().issue("localhost", key="rsa")
    put(tmp_path / "rsa", new)
    put(tmp_path / "ec", KeyPair(b"broken", b"broken"))
    look_again(handler)
    assert await serial_with(handler, "rsa") == serial_of(new)
    assert await serial_with(handler, "ec") == old
    assert [each for each in caplog.messages if "certificate reload failed" in each]


async def test_a_changed_key_type_moves_a_certificate_out_of_its_group_and_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = server_of(both(tmp_path))
    put(tmp_path / "ec", authority().issue("localhost", key="rsa"))
    look_again(handler)
    assert (await alert_of(handler, only("ec")))[0] == "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert any("is not used for localhost" in each for each in caplog.messages)
    put(tmp_path / "ec", authority().issue("localhost", key="ec"))
    look_again(handler)
    for kind in ("rsa", "ec"):
        async with client_of(handler, only(kind)) as client:
            assert await client.ask(b"hi") == b"hi"


@pytest.mark.parametrize(("own_floor", "reason"), [(None, "the same key type"), (V13, "other settings")])
async def test_a_certificate_that_cannot_join_is_reported_and_the_first_is_used(
    tmp_path: Path, own_floor: ssl.TLSVersion | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, ec = both(tmp_path / "one")
    second, _ = both(tmp_path / "two", "localhost", "more.example")
    if own_floor is not None:
        second = Certificate(ec.cert, ec.key, minimum_version="TLSv1.3")
    handler = server_of([first, second])
    (line,) = [each for each in caplog.messages if "is not used for" in each]
    assert f"{second!r} is not used for localhost: {first!r}" in line
    assert reason in line
    async with client_of(handler, only("rsa")) as client:
        assert await client.ask(b"hi") == b"hi"
    if own_floor is None:
        async with client_of(handler, only("rsa"), "more.example") as client:
            assert client.names == {"localhost", "more.example"}

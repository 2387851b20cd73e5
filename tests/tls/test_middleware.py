"""Who may come in, by what the ClientHello says."""

from collections.abc import Callable

import pytest

from llama import ConfigError, ConnectionHandler, Middleware, RefusedError, Stream, stack, tls
from llama.tls import ClientHello
from tests.tls.client_hello import hellos
from tests.tls.clients import Client, alert_of, client_of, dialled, echo, raw_answer, trusting
from tests.tls.sessions import in_memory, pair_files

Place = Callable[[Middleware[Stream, None]], ConnectionHandler]


async def fingerprints() -> tuple[str, str]:
    """JA3 and JA4 of the standard library's client."""
    seen: list[ClientHello] = []

    async def look(stream: Stream) -> None:
        seen.append(stream.extensions[ClientHello])

    async with client_of(tls.server(*pair_files("localhost"))(look)):
        pass
    return seen[0].ja3, seen[0].ja4


def before(rule: Middleware[Stream, None]) -> ConnectionHandler:
    return stack(rule, tls.server(*pair_files("localhost")), echo)


def after(rule: Middleware[Stream, None]) -> ConnectionHandler:
    return stack(tls.server(*pair_files("localhost")), rule, echo)


@pytest.mark.parametrize("place", [before, after])
@pytest.mark.parametrize("kind", [0, 1], ids=["JA3", "JA4"])
async def test_a_known_fingerprint_is_accepted(place: Place, kind: int) -> None:
    own = (await fingerprints())[kind]
    for rule in (tls.allow("0" * 32, own), tls.allow(own.upper()), tls.deny("0" * 32)):
        async with client_of(place(rule)) as client:
            assert await client.ask(b"hi") == b"hi"


@pytest.mark.parametrize("kind", [0, 1], ids=["JA3", "JA4"])
async def test_before_tls_others_get_access_denied(kind: int) -> None:
    known = await fingerprints()
    for rule, reason in (
        (tls.allow("0" * 32), "is not allowed"),
        (tls.deny("t13d1516h2_8daaf6152771_e5627efa2ab1", known[kind]), "is denied"),
    ):
        said, raised = await alert_of(before(rule))
        assert said == "TLSV1_ALERT_ACCESS_DENIED"
        assert raised == f"the client's fingerprint {known[1]} {reason}"


@pytest.mark.parametrize("kind", [0, 1], ids=["JA3", "JA4"])
async def test_after_tls_others_find_the_session_closed(kind: int) -> None:
    known = await fingerprints()
    for rule in (tls.allow("0" * 32), tls.deny(known[kind])):
        async with dialled(after(rule)) as (stream, outcome):
            client = await Client(stream, trusting()).shake()
            assert await client.read() == b""
            await client.bye()
            assert known[1] in await outcome.failure()
            assert isinstance(outcome.error, RefusedError)


async def test_a_client_without_sni_is_refused() -> None:
    said, raised = await alert_of(before(tls.require_sni()), name=None)
    assert (said, raised) == ("TLSV1_UNRECOGNIZED_NAME", "the client sent no server name")
    context = trusting()
    context.check_hostname = False
    async with dialled(after(tls.require_sni())) as (stream, outcome):
        client = await Client(stream, context, None).shake()
        assert await client.read() == b""
        await client.bye()
        assert await outcome.failure() == "the client sent no server name"


@pytest.mark.parametrize("place", [before, after])
async def test_a_client_with_sni_is_accepted(place: Place) -> None:
    async with client_of(place(tls.require_sni())) as client:
        assert await client.ask(b"hi") == b"hi"


async def test_rules_can_be_combined() -> None:
    ja3, ja4 = await fingerprints()
    chain = stack(
        tls.require_sni(), tls.allow(ja4), tls.server(*pair_files("localhost")), tls.deny("0" * 32), echo
    )
    async with client_of(chain) as client:
        assert await client.ask(b"hi") == b"hi"
    said, _ = await alert_of(stack(tls.require_sni(), tls.allow(ja4), tls.deny(ja3), chain))
    assert said == "TLSV1_ALERT_ACCESS_DENIED"


async def test_a_malformed_hello_gets_decode_error() -> None:
    sent = hellos.record(hellos.client_hello(hellos.groups(29), hellos.groups(29)))
    answer, raised = await raw_answer(before(tls.require_sni()), sent, in_memory)
    assert answer == hellos.record(b"\x02\x32", 21)
    assert raised == "ClientHello has an extension twice"


def test_an_invalid_fingerprint_is_rejected_at_once() -> None:
    for rule in (tls.allow, tls.deny):
        for wrong in (
            "",
            "abc",
            "0" * 31,
            "g" * 32,
            "a_b",
            "t13d1516h2_8daaf6152771_e5627efa2ab1_x",
            "a_b_c",
        ):
            with pytest.raises(ConfigError, match="neither a JA3 hash"):
                rule(wrong)
    with pytest.raises(ConfigError, match=r"tls\.allow\(\): expected at least one"):
        tls.allow()

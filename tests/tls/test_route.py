"""Routing by the ClientHello: who gets which connection, and every byte of it."""

import asyncio
import hashlib
import ssl

import pytest

from llama import ConfigError, ConnectionHandler, Stream, describe, serve, stack, tcp, tls
from llama.tls import ClientHello
from tests.tls.client_hello import hellos
from tests.tls.clients import Client, alert_of, client_of, dialled, echo, raw_answer, trusting
from tests.tls.sessions import in_memory, pair_files


class Noting:
    """A handler that notes the hello and all the bytes that it gets."""

    def __init__(self) -> None:
        self.hellos: list[ClientHello] = []
        self.data = b""

    async def __call__(self, stream: Stream) -> None:
        self.hellos.append(stream.extensions[ClientHello])
        while data := await stream.read():
            self.data += data


def hello(*extensions: tuple[int, bytes]) -> bytes:
    return hellos.client_hello(*extensions, hellos.groups(29), hellos.versions(0x0304), hellos.key_share(29))


async def send(handler: ConnectionHandler, data: bytes) -> None:
    async with dialled(handler, in_memory) as (stream, outcome):
        await stream.write(data)
        await stream.write_eof()
        await asyncio.wait_for(outcome.ended.wait(), 10)
        assert outcome.error is None


# which one


@pytest.mark.parametrize(
    ("name", "protocols", "taken"),
    [
        (b"a.example", [], "a"),
        (b"A.EXAMPLE", [], "a"),
        (b"x.b.example", [], "wild"),
        (b"exact.b.example", [], "exact"),
        (b"b.example", [], "default"),
        (b"x.y.b.example", [], "default"),
        (b"c.example", [], "default"),
        (None, [], "default"),
        (b"a.example", [b"h2", b"http/1.1"], "a"),
        (b"a.example", [b"acme-tls/1"], "acme"),
        (None, [b"h2", b"acme-tls/1"], "acme"),
        (b"a.example", [b"smtp", b"acme-tls/1"], "smtp"),
        (b"a.example", [b"acme-tls/1", b"smtp"], "acme"),
    ],
)
async def test_protocols_go_before_names_and_names_before_wildcards(
    name: bytes | None, protocols: list[bytes], taken: str
) -> None:
    handlers = {key: Noting() for key in ("a", "wild", "exact", "acme", "smtp", "default")}
    route = tls.route(
        {"a.example": handlers["a"], "*.b.example": handlers["wild"], "exact.b.example": handlers["exact"]},
        alpn={"acme-tls/1": handlers["acme"], "smtp": handlers["smtp"]},
        default=handlers["default"],
    )
    extensions = [hellos.sni(name)] if name else []
    sent = hellos.record(hello(*extensions, *([hellos.alpn(*protocols)] if protocols else [])))
    await send(route, sent)
    assert {key for key, handler in handlers.items() if handler.data} == {taken}
    assert handlers[taken].data == sent


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["other.example", None])
async def test_a_name_without_a_route_gets_unrecognized_name(
    version: ssl.TLSVersion, name: str | None
) -> None:
    said, raised = await alert_of(tls.route({"a.example": echo}), trusting(version=version), name)
    assert said == "TLSV1_UNRECOGNIZED_NAME"
    assert raised == f"no route for the server name {name!r}"


async def test_a_protocol_without_a_route_gets_no_application_protocol() -> None:
    handler = tls.route(alpn={"h2": echo})
    said, raised = await alert_of(handler, trusting(alpn=("http/1.1",)))
    assert "alert no application protocol" in said
    assert raised == "no route for the protocols http/1.1"
    _, raised = await alert_of(handler, trusting())
    assert raised == "no route for the protocols (none)"


# the hello as it comes


@pytest.mark.parametrize("size", [1, 2, 37, 200])
@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_a_hello_in_many_records_and_segments(size: int, step: int) -> None:
    note = Noting()
    sent = hellos.records(hello(hellos.sni(b"a.example")), size) + b"and what follows"
    async with dialled(tls.route({"a.example": note}), in_memory) as (stream, outcome):
        for start in range(0, len(sent), step):
            await stream.write(sent[start : start + step])
            await asyncio.sleep(0)
        await stream.write_eof()
        await outcome.ended.wait()
        assert outcome.error is None
    assert note.data == sent
    assert note.hellos[0].server_name == "a.example"


async def test_a_large_hello_is_routed_and_a_larger_one_is_not() -> None:
    note = Noting()
    large = hellos.records(hellos.largest_hello(hellos.sni(b"a.example")), 16_384)
    await send(tls.route({"a.example": note}), large)
    assert note.data == large
    larger = hellos.message(1, bytes(131_397))
    answer, raised = await raw_answer(
        tls.route({"a.example": note}), hellos.records(larger, 16_384), in_memory
    )
    assert answer == hellos.record(b"\x02\x32", 21)
    assert "the limit is 131400" in raised


async def test_grease_and_an_encrypted_hello_are_routed_by_the_outer_name() -> None:
    note = Noting()
    sent = hellos.client_hello(
        (0x2A2A, b""),
        hellos.sni(b"outer.example"),
        hellos.groups(0x3A3A, 29),
        hellos.versions(0x4A4A, 0x0304),
        hellos.alpn(b"\x5a\x5a", b"h2"),
        (0xFE0D, b"\0\0\1\0\1\7" + hellos.vector(2, bytes(32)) + hellos.vector(2, bytes(144))),
        (0x6A6A, b"\0"),
        ciphers=(0x1A1A, 0x1301),
    )
    await send(tls.route({"outer.example": note}), hellos.record(sent))
    (seen,) = note.hellos
    assert (seen.server_name, seen.ech, seen.grease) == ("outer.example", True, True)


@pytest.mark.parametrize(
    ("data", "answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", b"", "an SSH client on a TLS port"),
        (bytes(64), b"", "not TLS: first bytes 0x0000000000"),
        (b"", b"", "the peer sent nothing"),
        (b"\x16\x03\x01\x02\x00\x01", b"", "the peer closed the connection before its ClientHello"),
        (hellos.record(hellos.message(1, bytes(3))), hellos.record(b"\x02\x32", 21), "ends inside a field"),
    ],
)
async def test_bytes_that_are_not_a_hello_raise_a_clear_error(
    data: bytes, answer: bytes, reason: str
) -> None:
    handler = tls.route({"a.example": echo}, default=echo)
    heard, raised = await raw_answer(handler, data, in_memory)
    assert heard == answer
    assert reason in raised


# where it goes


async def test_a_connection_that_passes_through_keeps_every_byte() -> None:
    """The client shakes hands with the server behind, whose certificate it sees."""
    behind = tls.server(*pair_files("*.b.example"))(echo)
    async with serve(behind, listen="127.0.0.1:0", grace=5) as server:
        route = tls.route({"*.b.example": tcp.forward(server.address)})
        async with client_of(route, name="x.b.example") as client:
            assert client.names == {"*.b.example"}
            data = bytes(range(256)) * 1024
            async with asyncio.TaskGroup() as group:
                digest = group.create_task(digest_of(client, len(data)))
                await client.write(data)
            assert digest.result() == hashlib.sha256(data).hexdigest()


async def digest_of(client: Client, count: int) -> str:
    seen = hashlib.sha256()
    while count > 0:
        data = await client.read()
        assert data, "the end came early"
        seen.update(data)
        count -= len(data)
    return seen.hexdigest()


async def test_a_route_may_end_in_a_stack_that_terminates() -> None:
    own = stack(tls.server(*pair_files("a.example"), alpn=["own"]), echo)
    nested = tls.route({"in.b.example": stack(tls.server(*pair_files("in.b.example")), echo)})
    route = tls.route({"a.example": own, "*.b.example": nested})
    async with client_of(route, trusting(alpn=("own",)), "a.example") as client:
        assert client.tls.selected_alpn_protocol() == "own"
        assert await client.ask(b"hi") == b"hi"
    async with client_of(route, name="in.b.example") as client:
        assert await client.ask(b"hi") == b"hi"


async def test_a_hello_may_be_peeked_before_it_is_routed() -> None:
    names: list[str | None] = []
    inner = stack(tls.server(*pair_files("a.example")), echo)

    async def look(stream: Stream) -> None:
        names.append((await tls.peek_hello(stream)).server_name)
        names.append((await tls.peek_hello(stream)).server_name)
        await inner(stream)

    async with client_of(look, name="a.example") as client:
        assert await client.ask(b"hi") == b"hi"
    assert names == ["a.example", "a.example"]


# settings


def test_invalid_routes_are_rejected_at_once() -> None:
    with pytest.raises(ConfigError, match=r"tls\.route\(\) has no routes"):
        tls.route()
    with pytest.raises(ConfigError, match="'a:443' is not a name pattern"):
        tls.route({"a:443": echo})
    with pytest.raises(ConfigError, match="given twice"):
        tls.route({"a.example": echo, "A.example": echo})
    with pytest.raises(TypeError, match=r"tls\.require_sni\(\) is a layer"):
        tls.route({"a.example": tls.require_sni()})  # type: ignore[dict-item]


def test_the_routes_are_described() -> None:
    route = tls.route({"a.example": tcp.forward("127.0.0.1:1")}, alpn={"h2": echo}, default=echo)
    assert describe(route) == ("tls.route(a.example: tcp.forward(127.0.0.1:1), alpn h2: echo, default: echo)")

"""The relay behind each front door, for what is HTTP and what is not."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from llama import (
    ConnectionHandler,
    Connector,
    Relay,
    Stream,
    StreamClosedError,
    Target,
    UnreachableError,
    http,
    layer,
    mitm,
    serve,
    socks5,
    stack,
    tcp,
    testing,
    tls,
)
from llama.http import Request, RequestHandler, Response
from llama.mitm import Chunk
from tests.mitm.worlds import HOST, To, World, page
from tests.tls.client_hello.hellos import client_hello, record, sni


@layer
async def intercept(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def banner(stream: Stream) -> None:
    """The server speaks first, as for SSH."""
    await stream.write(b"SSH-2.0-test\r\n")
    await echo(stream)


def relay(world: World, *layers: object, **options: object) -> Relay:
    return mitm.relay(world.ca, *layers, verify=world.site_pem, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def forwarded(
    world: World, upstream: ConnectionHandler, *layers: object, **options: object
) -> AsyncGenerator[Target, None]:
    """A port that is forwarded to an upstream through the relay, as HOST for who goes there."""
    async with serve(upstream, listen="127.0.0.1:0") as served:
        door = tcp.forward(f"{HOST}:443", connect=To(served.port), relay=relay(world, *layers, **options))
        async with serve(door, listen="127.0.0.1:0") as front:
            yield Target("127.0.0.1", front.port)


async def asked(exchange: RequestHandler, url: str = f"https://{HOST}/a") -> bytes:
    response = await exchange(Request("GET", url))
    assert response.status == 200
    return await response.body.read()


# front doors


async def test_behind_socks5(world: World) -> None:
    async with serve(world.https(), listen="127.0.0.1:0") as served:
        door = socks5.server(connect=To(served.port), relay=relay(world, intercept))
        async with serve(door, listen="127.0.0.1:0") as front:
            over = socks5.connect(front.address)
            async with http.client(over, tls=tls.connect(over, ca=world.pem)) as client:
                assert await asked(client) == b"GET /a from the llama"


async def test_behind_a_connect_proxy(world: World) -> None:
    async with serve(world.https(), listen="127.0.0.1:0") as served:
        door = http.proxy(connect=To(served.port), relay=relay(world, intercept))
        async with serve(stack(http.server(), door), listen="127.0.0.1:0") as front:
            over = http.connect(front.address)
            async with http.client(over, tls=tls.connect(over, ca=world.pem)) as client:
                assert await asked(client) == b"GET /a from the llama"


async def test_behind_a_forwarded_port(world: World) -> None:
    async with forwarded(world, world.https(), intercept) as front:
        to = To(front.port)
        async with http.client(to, tls=tls.connect(to, ca=world.pem)) as client:
            assert await asked(client) == b"GET /a from the llama"


async def test_behind_a_route_by_server_name(world: World) -> None:
    async with serve(world.https(), listen="127.0.0.1:0") as served:
        looked_into = tcp.forward(f"{HOST}:443", connect=To(served.port), relay=relay(world, intercept))
        async with serve(tls.route({HOST: looked_into}), listen="127.0.0.1:0") as front:
            to = To(front.port)
            async with http.client(to, tls=tls.connect(to, ca=world.pem)) as client:
                assert await asked(client) == b"GET /a from the llama"


async def test_plain_http_goes_through_the_layers(world: World) -> None:
    plain = stack(http.server(), page)
    async with forwarded(world, plain, intercept) as front, http.client(To(front.port)) as client:
        assert await asked(client, f"http://{HOST}/b") == b"GET /b from the llama"


# what is offered


async def test_the_client_is_offered_the_protocol_that_the_upstream_chose(world: World) -> None:
    site = stack(tls.server(*world.files(), alpn=["http/1.1"]), http.server(), page)
    for first in (True, False):
        async with forwarded(world, site, connect_upstream_first=first) as front:
            stream = await tls.connect(To(front.port), ca=world.pem, alpn=["x", "http/1.1"])(
                Target(HOST, 443)
            )
            assert stream.extensions[tls.TLSInfo].alpn == "http/1.1"
            await stream.aclose()


async def test_no_protocol_is_selected_if_the_upstream_selects_none(world: World) -> None:
    site = stack(tls.server(*world.files(), alpn=[]), http.server(), page)
    async with forwarded(world, site) as front:
        stream = await tls.connect(To(front.port), ca=world.pem, alpn=["http/1.1"])(Target(HOST, 443))
        assert stream.extensions[tls.TLSInfo].alpn is None
        await stream.aclose()


async def test_the_certificate_has_the_upstreams_names(world: World) -> None:
    site = stack(tls.server(*world.files(HOST, "*.other.example")), http.server(), page)
    async with forwarded(world, site) as front:
        stream = await tls.connect(To(front.port), ca=world.pem)(Target(HOST, 443))
        certificate = stream.extensions[tls.TLSInfo].peer_certificate
        assert certificate is not None
        assert certificate["subjectAltName"] == (("DNS", HOST), ("DNS", "*.other.example"))
        await stream.aclose()


# bytes


async def test_bytes_inside_tls_are_relayed(world: World) -> None:
    async with forwarded(world, stack(tls.server(*world.files()), echo)) as front:
        stream = await tls.connect(To(front.port), ca=world.pem)(Target(HOST, 443))
        await stream.write(b"\x00hello")
        assert await stream.read() == b"\x00hello"
        await stream.write_eof()
        assert await stream.read() == b""
        await stream.aclose()


async def test_an_unknown_alpn_protocol_is_relayed_as_bytes(world: World) -> None:
    async with forwarded(world, stack(tls.server(*world.files(), alpn=["imap"]), banner)) as front:
        stream = await tls.connect(To(front.port), ca=world.pem, alpn=["imap"])(Target(HOST, 443))
        assert await stream.read() == b"SSH-2.0-test\r\n"
        await stream.aclose()


async def test_a_server_that_speaks_first_is_relayed_with_server_first(world: World) -> None:
    async with forwarded(world, banner, server_first_timeout=0.01) as front:
        stream = await tcp.connect()(front)
        assert await stream.read() == b"SSH-2.0-test\r\n"
        await stream.write(b"GET / HTTP/1.1\r\n")
        assert await stream.read() == b"GET / HTTP/1.1\r\n"
        await stream.aclose()


async def test_a_server_that_speaks_first_inside_tls_is_relayed(world: World) -> None:
    async with forwarded(
        world, stack(tls.server(*world.files()), banner), server_first_timeout=0.05
    ) as front:
        stream = await tls.connect(To(front.port), ca=world.pem)(Target(HOST, 443))
        assert await stream.read() == b"SSH-2.0-test\r\n"
        await stream.aclose()


async def test_a_rule_lets_a_server_speak_first_at_once(world: World) -> None:
    async with forwarded(world, banner, rules=[mitm.passthrough(f"{HOST}:443")]) as front:
        stream = await tcp.connect()(front)
        assert await stream.read() == b"SSH-2.0-test\r\n"
        await stream.aclose()


async def test_a_hook_sees_and_changes_chunks(world: World) -> None:
    seen: list[tuple[bool, bytes]] = []

    async def hook(chunk: Chunk) -> bytes:
        seen.append((chunk.from_client, chunk.data))
        return chunk.data.upper() if chunk.from_client else chunk.data[::-1]

    for upstream, over in ((echo, False), (stack(tls.server(*world.files()), echo), True)):
        seen.clear()
        async with forwarded(world, upstream, on_chunk=hook) as front:
            to = To(front.port)
            connect = tls.connect(to, ca=world.pem) if over else to
            stream = await connect(Target(HOST, 443))
            await stream.write(b"!abc")
            assert await stream.read() == b"CBA!"
            await stream.write_eof()
            assert await stream.read() == b""
            await stream.aclose()
        assert seen == [(True, b"!abc"), (False, b"!ABC")]


async def test_a_chunk_hook_that_raises_ends_only_its_own_connection(world: World) -> None:
    def hook(chunk: Chunk) -> bytes:
        if b"bad" in chunk.data:
            raise ZeroDivisionError
        return chunk.data

    async with forwarded(world, echo, on_chunk=hook) as front:
        good, bad = await tcp.connect()(front), await tcp.connect()(front)
        await bad.write(b"!bad")
        try:
            assert await bad.read() == b""
        except ConnectionResetError:
            pass
        await good.write(b"!good")
        assert await good.read() == b"!good"
        bad.abort()
        await good.aclose()


async def test_behind_a_transparent_listener(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(sock: object) -> tuple[str, int]:
        return "192.0.2.1", 443

    monkeypatch.setattr("llama.tcp._transparent._query_original_dst", ask)
    async with serve(world.https(), listen="127.0.0.1:0") as served:
        to = To(served.port)
        door = tcp.transparent(connect=to, relay=relay(world, intercept))
        async with serve(door, listen="127.0.0.1:0") as front:
            there = To(front.port)
            async with http.client(there, tls=tls.connect(there, ca=world.pem)) as client:
                assert await asked(client) == b"GET /a from the llama"
        assert [str(each) for each in to.targets] == ["192.0.2.1:443"]


# front doors that reach their target first


@asynccontextmanager
async def late_socks(
    world: World, connect: Connector, *layers: object, **options: object
) -> AsyncGenerator[RequestHandler]:
    """A SOCKS5 server whose targets are reached late, and a client behind it."""
    door = socks5.server(connect=mitm.lazy_connect(connect), relay=relay(world, *layers, **options))
    async with serve(door, listen="127.0.0.1:0") as front:
        over = socks5.connect(front.address)
        async with http.client(over, tls=tls.connect(over, ca=world.pem)) as client:
            yield client


async def nobody(target: Target) -> Stream:
    raise UnreachableError(f"cannot connect to {target}: nobody is there")


async def test_behind_socks5_an_unreachable_target_gets_an_error_page(world: World) -> None:
    async with late_socks(world, nobody) as client:
        response = await client(Request("GET", f"https://{HOST}/"))
        assert response.status == 502 and b"nobody is there" in await response.body.read()


async def test_behind_socks5_the_magic_host_answers(world: World) -> None:
    async with late_socks(world, nobody) as client:
        for scheme in ("http", "https"):
            assert await asked(client, f"{scheme}://llama.internal/ca.pem") == world.ca.pem


async def test_late_targets_are_connected_with_and_without_interception(world: World) -> None:
    async with (
        serve(world.https(), listen="127.0.0.1:0") as served,
        serve(banner, listen="127.0.0.1:0") as other,
    ):
        async with late_socks(world, To(served.port), intercept) as client:
            assert await asked(client) == b"GET /a from the llama"
        for options in ({"default": "passthrough"}, {"server_first_timeout": 0.01}):
            door = socks5.server(connect=mitm.lazy_connect(To(other.port)), relay=relay(world, **options))
            async with serve(door, listen="127.0.0.1:0") as front:
                stream = await socks5.connect(front.address)(Target(HOST, 22))
                assert await stream.read() == b"SSH-2.0-test\r\n"
                await stream.write(b"hi")
                assert await stream.read() == b"hi"
                await stream.aclose()


async def test_a_late_stream_opens_on_first_use() -> None:
    opened: list[Stream] = []

    async def connect(target: Target) -> Stream:
        ours, theirs = testing.memory_pair()
        opened.append(theirs)
        return ours

    late = mitm.lazy_connect(connect)
    unused = await late(Target("a", 1))
    await unused.aclose()
    assert not opened
    stream = await late(Target("a", 1))
    stream.unread(b"before ")
    assert await stream.read() == b"before "
    await stream.write(b"hello")
    assert await opened[0].read() == b"hello"
    stream.unread(b"again")
    assert await stream.read() == b"again"
    await stream.write_eof()
    assert await opened[0].read() == b""
    stream.abort()
    opened[0].abort()
    for each in (unused, stream):
        with pytest.raises(StreamClosedError):
            await each.read()


async def test_a_client_disconnect_cancels_the_connection_attempt(world: World) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def slow(target: Target) -> Stream:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    door = tcp.forward(f"{HOST}:443", connect=slow, relay=relay(world))
    async with serve(door, listen="127.0.0.1:0") as front:
        stream = await tcp.connect()(Target("127.0.0.1", front.port))
        await stream.write(record(client_hello(sni(HOST.encode()))))
        await started.wait()
        stream.abort()
        await ended.wait()

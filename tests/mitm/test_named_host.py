"""Rules where only an address was asked for: the Host of plain HTTP is looked at, and each request's."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from llama import Connector, Stream, Target, http, layer, mitm, serve, socks5, stack, tcp, testing, tls
from llama.http import Origin, Request, RequestHandler, Response
from llama.mitm import Action, ConnectionInfo, Rule
from llama.mitm._named_host import host_of, named_in, read_name
from tests.mitm.worlds import HOST, To, World

ADDRESS = Target("192.0.2.1", 80)
OTHER = "other.example"


@layer
async def mark(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    response.headers["X-Seen"] = "yes"
    return response


async def site(request: Request) -> Response:
    return Response(200, {"Content-Type": "text/plain"}, request.authority)


@asynccontextmanager
async def by_address(world: World, kind: str, *rules: Rule) -> AsyncGenerator[RequestHandler]:
    """A client of a site in the clear, behind a front door that is told its address alone."""
    async with serve(stack(http.server(), site), listen="127.0.0.1:0") as served:
        relay = mitm.relay(world.ca, mark, rules=rules)
        to = To(served.port)
        door = {
            "socks5": socks5.server(connect=to, relay=relay),
            "late socks5": socks5.server(connect=mitm.lazy_connect(to), relay=relay),
            "forward": tcp.forward(str(ADDRESS), connect=to, relay=relay),
        }[kind]
        async with serve(door, listen="127.0.0.1:0") as front:
            over: Connector = To(front.port) if kind == "forward" else socks5.connect(front.address)

            async def reach(target: Target) -> Stream:
                return await over(ADDRESS)

            async with http.client(reach) as client:
                yield client


async def get(client: RequestHandler, host: str) -> tuple[int, bool]:
    """The status of an answer, and whether it went through the layers."""
    request = Request("GET", f"http://{host}/")
    request.extensions.set(Origin("http", ADDRESS))  # over one connection, as long as it lasts
    response = await client(request)
    try:
        await response.body.read()
        return response.status, "x-seen" in response.headers
    finally:
        await response.aclose()


@pytest.mark.parametrize("kind", ["socks5", "late socks5", "forward"])
async def test_rules_see_the_host_of_plain_http(world: World, kind: str) -> None:
    for rule, answer in (
        (mitm.block(HOST), (403, False)),
        (mitm.passthrough(f"*.{HOST.partition('.')[2]}:80"), (200, False)),
        (mitm.block(f"{HOST}:443"), (200, True)),
        (mitm.block(OTHER), (200, True)),
        (mitm.block(sni=[HOST]), (200, True)),
        (mitm.block("192.0.2.0/24"), (403, False)),
    ):
        async with by_address(world, kind, rule) as client:
            assert await get(client, HOST) == answer, rule


async def test_a_rule_function_gets_the_host(world: World) -> None:
    seen: list[tuple[str | None, str]] = []

    def rule(asked: ConnectionInfo) -> Action | None:
        seen.append((asked.named, asked.host))
        return None

    async with by_address(world, "socks5", rule) as client:
        assert await get(client, f"{HOST.upper()}:80") == (200, True)
    assert seen == [(HOST, HOST)]


async def test_rules_apply_to_other_hosts_on_the_same_connection(world: World) -> None:
    rules = (mitm.block("bad.example"), mitm.passthrough("bare.example"))
    async with by_address(world, "socks5", *rules) as client:
        assert await get(client, HOST) == (200, True)
        assert await get(client, "bare.example") == (200, False)
        assert await get(client, "bad.example") == (403, False)
        assert await get(client, HOST) == (200, True)


async def test_a_blocked_host_is_refused_on_an_open_tls_connection(world: World) -> None:
    """As browsers ask for all hosts that a certificate has, over HTTP/2."""
    async with serve(world.https(site, HOST, OTHER), listen="127.0.0.1:0") as served:
        relay = mitm.relay(world.ca, mark, rules=[mitm.block(OTHER)], verify=world.site_pem)
        door = tcp.forward("192.0.2.1:443", connect=To(served.port), relay=relay)
        async with serve(door, listen="127.0.0.1:0") as front:
            to = To(front.port)
            async with http.client(to, tls=tls.connect(to, ca=world.pem)) as client:
                for host, status in ((HOST, 200), (OTHER, 403), (HOST, 200)):
                    request = Request("GET", f"https://{host}/")
                    request.extensions.set(Origin("https", Target(HOST, 443)))
                    response = await client(request)
                    assert response.status == status
                    await response.aclose()
            assert len(to.targets) == 1


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"GET / HTTP/1.1\r\nHost: A.example\r\nX: y", "a.example"),
        (b"GET / HTTP/1.1\r\nX: y\r\nhOST:a.example:8080", "a.example"),
        (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80", "2001:db8::1"),
        (b"GET http://b.example:81/x?y HTTP/1.1\r\nHost: a.example", "b.example"),
        (b"GET HTTP://b.example?y HTTP/1.1\r\nHost: a.example", "b.example"),
        (b"GET /http://b.example HTTP/1.1\r\nHost: a.example", "a.example"),
        (b"GET / HTTP/1.0\r\nX-Host: a.example", None),
        (b"GET / HTTP/1.1\r\nHost: ", None),
        (b"GET / HTTP/1.1", None),
    ],
)
def test_the_host_in_a_head(head: bytes, name: str | None) -> None:
    assert named_in(head) == name


def test_the_host_of_an_authority() -> None:
    assert [host_of(each) for each in ("a:1", "a", "[::1]:1", "[::1]", "")] == ["a", "a", "::1", "::1", ""]


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"", b"x" * 70_000])
async def test_a_head_is_read_to_its_end_or_the_limit(end: bytes) -> None:
    client, server = testing.memory_pair()
    whole = b"GET / HTTP/1.1\r\nHost: a.example" + end
    server.unread(whole)
    await client.write_eof()
    name, data = await read_name(server, b"")
    assert name == ("a.example" if end == b"\r\n\r\n" else None)
    assert whole.startswith(data) and len(data) >= min(len(whole), 65536)
    client.abort()
    server.abort()

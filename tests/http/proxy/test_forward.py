"""The forward proxy: CONNECT, absolute URLs and access rules."""

import base64
from contextlib import AbstractAsyncContextManager

import pytest

from llama import LocalAddress, Stream, Target, serve, stack, tcp, testing
from llama._core.errors import ConfigError, UnreachableError
from llama.http import Request, Response, client, connect, proxy, proxy_auth, server
from llama.http._messages.message import RequestHandler
from llama.http._proxy.forward import MAX_LOOPS
from tests.http.upstreams import OK, Upstream, answering, head_of

LOOPBACK = LocalAddress("127.0.0.1", 8080)
PUBLIC = LocalAddress("198.51.100.1", 8080)


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


def talking(
    exchange: RequestHandler, local: LocalAddress | None = LOOPBACK
) -> AbstractAsyncContextManager[Stream]:
    def pair() -> tuple[Stream, Stream]:
        ours, theirs = testing.memory_pair()
        if local is not None:
            theirs.extensions.set(local)
        return ours, theirs

    return testing.connect(server()(exchange), pair=pair)


async def answer(exchange: RequestHandler, *lines: str, local: LocalAddress | None = LOOPBACK) -> bytes:
    async with talking(exchange, local) as stream:
        await stream.write("\r\n".join([*lines, "", ""]).encode())
        return await stream.read()


async def status(exchange: RequestHandler, *lines: str, local: LocalAddress | None = LOOPBACK) -> int:
    return int((await answer(exchange, *lines, local=local)).split()[1])


# CONNECT


async def test_connect_opens_a_tunnel() -> None:
    upstream = Upstream(echo)
    async with talking(proxy(connect=upstream)) as stream:
        await stream.write(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nearly")
        got = b""
        while not got.endswith(b"early"):
            got += await stream.read()
        assert got == b"HTTP/1.1 200 OK\r\n\r\nearly"
        await stream.write(b"hi")
        assert await stream.read() == b"hi"
        await stream.write_eof()
        assert await stream.read() == b""
    assert [str(each) for each in upstream.targets] == ["a.example:443"]


async def test_a_custom_relay_receives_the_bridge() -> None:
    seen: list[str] = []

    async def relay(bridge: object) -> None:
        seen.append(str(getattr(bridge, "target", None)))

    async with talking(proxy(connect=Upstream(echo), relay=relay)) as stream:
        await stream.write(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
        assert await stream.read() == b"HTTP/1.1 200 OK\r\n\r\n"
        assert await stream.read() == b""
    assert seen == ["a.example:443"]


async def test_an_unreachable_target_is_502_with_the_reason() -> None:
    async def nobody(target: Target) -> Stream:
        raise UnreachableError(f"cannot connect to {target}")

    heard = await answer(proxy(connect=nobody), "CONNECT a.example:443 HTTP/1.1", "Host: a.example:443")
    assert heard.startswith(b"HTTP/1.1 502 ")
    assert b"\r\nProxy-Status: llama; error=destination_unavailable\r\n" in heard


async def test_a_tunnel_is_closed_when_its_client_disconnects() -> None:
    upstream = Upstream(echo)
    response = await proxy(connect=upstream, private=True)(Request("CONNECT", "a.example:443"))
    await response.aclose()
    with pytest.raises(OSError):
        await upstream.streams[0].write(b"x")
        while await upstream.streams[0].read():
            pass


# whole URLs


async def test_a_request_with_an_absolute_url_is_forwarded() -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        await stream.write(OK)

    upstream = Upstream(origin)
    got = await answer(
        proxy(connect=upstream),
        "GET http://a.example:81/x?y HTTP/1.1",
        "Host: other.example",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic x",
        "Connection: X-B",
        "X-A: 1",
        "X-B: 1",
        "X-Forwarded-For: 203.0.113.9",
    )
    assert heard == [
        b"GET /x?y HTTP/1.1\r\nHost: a.example:81\r\nX-A: 1\r\nX-Forwarded-For: 203.0.113.9\r\nVia: 1.1 llama\r\n\r\n"
    ]
    assert got.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 llama\r\n") and got.endswith(
        b"ok"
    )
    assert [str(each) for each in upstream.targets] == ["a.example:81"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("GET / HTTP/1.1", 400),
        ("GET ftp://a.example/ HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
    ],
)
async def test_a_request_without_a_target_is_rejected(line: str, code: int) -> None:
    assert await status(proxy(connect=Upstream(answering(OK))), line, "Host: a.example") == code


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
async def test_max_forwards_counts_down_and_ends_here(method: str) -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        await stream.write(OK)

    exchange = proxy(connect=Upstream(origin))
    lines = (f"{method} http://a.example/ HTTP/1.1", "Host: a.example", "Cookie: secret", "X-A: 1")
    await answer(exchange, *lines, "Max-Forwards: 2")
    assert b"\r\nMax-Forwards: 1\r\n" in heard[0]
    got = await answer(exchange, *lines, "Max-Forwards: 0")
    assert got.startswith(b"HTTP/1.1 200 OK\r\n") and b"secret" not in got
    assert (b"X-A: 1\r\n" in got) is (method == "TRACE")
    assert len(heard) == 1
    assert await status(exchange, *lines, "Max-Forwards: x") == 400


async def test_a_request_loop_is_detected() -> None:
    exchange = proxy(connect=Upstream(answering(OK)))
    line = ("GET http://a.example/ HTTP/1.1", "Host: a.example")
    laps = ", ".join(["1.1 llama"] * (MAX_LOOPS - 1))
    assert await status(exchange, *line, f"Via: {laps}, 1.1 other") == 200
    assert await status(exchange, *line, f"Via: {laps}", "Via: 1.1 llama") == 508


# who may reach what

TARGETS = ["127.0.0.1", "10.0.0.1", "[::1]", "169.254.169.254", "localhost", "[::ffff:127.0.0.1]"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("form", ["CONNECT {}:80 HTTP/1.1", "GET http://{}:80/ HTTP/1.1"])
async def test_only_clients_on_loopback_may_reach_private_targets(form: str, target: str) -> None:
    exchange = proxy(connect=Upstream(answering(OK)))
    lines = (form.format(target), f"Host: {target}:80")
    assert await status(exchange, *lines, local=PUBLIC) == 403
    assert await status(exchange, *lines, local=None) == 403
    assert await status(exchange, *lines, local=LOOPBACK) == 200
    assert await status(proxy(connect=Upstream(answering(OK)), private=True), *lines, local=PUBLIC) == 200
    assert await status(proxy(connect=Upstream(answering(OK)), private=False), *lines, local=LOOPBACK) == 403


async def test_a_name_that_resolves_to_a_private_address_is_rejected() -> None:
    async def app(request: Request) -> Response:
        return Response(body=b"inner")

    async with serve(stack(server(), app), listen="127.0.0.1:0") as inner:

        async def resolve(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        exchange = proxy(connect=tcp.connect(resolver=resolve))
        for lines in (
            (f"CONNECT evil.example:{inner.port} HTTP/1.1", "Host: evil.example"),
            (f"GET http://evil.example:{inner.port}/ HTTP/1.1", "Host: evil.example"),
        ):
            assert await status(exchange, *lines, local=LOOPBACK) == 200
            assert await status(exchange, *lines, local=PUBLIC) == 403  # not by a pooled connection either
            assert await status(exchange, *lines, local=LOOPBACK) == 200


@pytest.mark.parametrize(
    ("settings", "target", "code"),
    [
        ({"allow": ["*.example:443"]}, "a.example:443", 200),
        ({"allow": ["*.example:443"]}, "a.example:80", 403),
        ({"allow": ["*.example:443"]}, "b.test:443", 403),
        ({"allow": []}, "a.example:443", 403),
        ({"deny": ["*:25"]}, "a.example:25", 403),
        ({"deny": ["*:25"]}, "a.example:443", 200),
        ({"deny": ["203.0.113.0/24"]}, "203.0.113.9:443", 403),
        ({"deny": ["203.0.113.0/24"]}, "8.8.8.8:443", 200),
        ({"allow": ["*.example"], "deny": ["b.example"]}, "b.example:443", 403),
    ],
)
async def test_targets_are_allowed_and_denied(settings: dict[str, list[str]], target: str, code: int) -> None:
    exchange = proxy(
        connect=Upstream(answering(OK)), allow=settings.get("allow"), deny=settings.get("deny", ())
    )
    assert await status(exchange, f"CONNECT {target} HTTP/1.1", f"Host: {target}") == code
    assert await status(exchange, f"GET http://{target}/ HTTP/1.1", f"Host: {target}") == code


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_custom_rule_decides(is_async: bool) -> None:
    def rule(request: Request, target: Target) -> bool:
        return target.host == "a.example" and request.headers.get("x-a") == "1"

    async def later(request: Request, target: Target) -> bool:
        return rule(request, target)

    exchange = proxy(connect=Upstream(answering(OK)), rule=later if is_async else rule)
    line = ("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443")
    assert await status(exchange, *line, "X-A: 1") == 200
    assert await status(exchange, *line) == 403


async def test_proxy_auth_requires_credentials() -> None:
    exchange = stack(proxy_auth({"john": "secret"}), proxy(connect=Upstream(answering(OK))))
    line = ("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443")
    assert b"\r\nProxy-Authenticate: Basic " in await answer(exchange, *line)
    right = base64.b64encode(b"john:secret").decode()
    assert await status(exchange, *line, f"Proxy-Authorization: Basic {right}") == 200
    wrong = base64.b64encode(b"john:guess").decode()
    assert await status(exchange, *line, f"Proxy-Authorization: Basic {wrong}") == 407


# with real servers


async def test_http_connect_works_through_http_proxy() -> None:
    async def app(request: Request) -> Response:
        return Response(body=f"via {request.headers.get('via')}".encode())

    guarded = stack(server(), proxy_auth({"john": "secret"}), proxy())
    async with (
        serve(stack(server(), app), listen="127.0.0.1:0") as origin,
        serve(guarded, listen="127.0.0.1:0") as gate,
        client(connect(gate.address, user="john", password="secret")) as fetcher,
    ):
        for _ in range(2):
            response = await fetcher(Request("GET", f"http://{origin.address}/"))
            assert await response.body.read() == b"via None"


WRONG: list[dict[str, object]] = [
    {"allow": "a.example"},
    {"deny": "a.example"},
    {"via": "a b"},
    {"deny": ["[::1"]},
]


@pytest.mark.parametrize("settings", WRONG)
def test_invalid_settings_are_rejected(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        proxy(**settings)  # type: ignore[arg-type]

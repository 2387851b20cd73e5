"""The reverse proxy: forwarded requests and responses, errors, and disconnects on either side."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from llama import ConnectionHandler, PeerAddress, Stream, serve, stack, testing
from llama._core.errors import ConfigError
from llama.http import Request, Response, client, forwarded, reverse_proxy, server
from llama.http._messages.message import RequestHandler
from tests.http.serving import client_of, get
from tests.http.upstreams import OK, Upstream, answering, head_of, tcp_pair

A = "http://a.example"


async def heard_by_upstream(
    *lines: str, line: str = "GET / HTTP/1.1", proxy: RequestHandler | None = None, peer: str = "192.0.2.1"
) -> list[str]:
    """Return the request that the upstream receives for this one."""
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        await stream.write(OK)

    upstream = Upstream(origin)
    fetcher = client(upstream)
    exchange = proxy or reverse_proxy(A, client=fetcher)
    if proxy is not None:
        object.__setattr__(innermost(proxy), "client", fetcher)
    async with fetcher, testing.connect(server()(exchange), peer=PeerAddress(peer, 4000)) as stream:
        await stream.write("\r\n".join([line, "Host: shop.example", *lines, "", ""]).encode())
        await stream.read()
    return heard[0].decode().split("\r\n")[:-2]


def innermost(exchange: object) -> object:
    while (inner := getattr(exchange, "inner", None)) is not None:
        exchange = inner
    return exchange


FORWARDED = [
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Host: shop.example",
    "Forwarded: for=192.0.2.1;host=shop.example;proto=http",
    "Via: 1.1 llama",
]


# what goes up


async def test_a_request_is_forwarded_with_its_host_and_client() -> None:
    assert await heard_by_upstream("X-A: 1", "x-a: 2", line="GET /a/%2F?b HTTP/1.1") == [
        "GET /a/%2F?b HTTP/1.1",
        "Host: shop.example",
        "X-A: 1",
        "x-a: 2",
        *FORWARDED,
    ]


async def test_hop_by_hop_fields_of_a_request_are_removed() -> None:
    heard = await heard_by_upstream(
        "Connection: X-Private, close, keep-alive",
        "Keep-Alive: 5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "TE: gzip",
        "Upgrade: websocket",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "X-Private: 1",
        "X-Public: 1",
    )
    assert heard == ["GET / HTTP/1.1", "Host: shop.example", "X-Public: 1", *FORWARDED]


async def test_connection_cannot_remove_host_or_content_length() -> None:
    heard = await heard_by_upstream("Connection: host, content-length", "Content-Length: 0")
    assert heard[:3] == ["GET / HTTP/1.1", "Host: shop.example", "Content-Length: 0"]


async def test_te_trailers_is_forwarded() -> None:
    heard = await heard_by_upstream("TE: trailers, deflate", "Connection: TE")
    assert "TE: trailers" in heard and "Connection: TE" in heard


SPOOFED = (
    "X-Forwarded-For: 203.0.113.9",
    "Forwarded: for=203.0.113.9",
    "X-Forwarded-Host: bank.example",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Prefix: /x",
    "X-Real-IP: 203.0.113.9",
)


async def test_forwarding_fields_of_a_client_are_removed() -> None:
    assert await heard_by_upstream(*SPOOFED) == ["GET / HTTP/1.1", "Host: shop.example", *FORWARDED]


async def test_forwarding_fields_of_an_untrusted_client_are_ignored() -> None:
    proxy = stack(forwarded(["10.0.0.0/8"]), reverse_proxy(A))
    assert await heard_by_upstream(*SPOOFED, proxy=proxy) == [
        "GET / HTTP/1.1",
        "Host: shop.example",
        *FORWARDED,
    ]


async def test_the_chain_of_a_trusted_proxy_is_forwarded() -> None:
    proxy = stack(forwarded(["10.0.0.0/8"]), reverse_proxy(A))
    heard = await heard_by_upstream(
        "X-Forwarded-For: 1.1.1.1, 203.0.113.9, 10.0.0.2",
        "X-Forwarded-Proto: https",
        proxy=proxy,
        peer="10.0.0.5",
    )
    assert heard[2:5] == [
        "X-Forwarded-For: 203.0.113.9, 10.0.0.2, 10.0.0.5",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
    ]
    assert heard[5] == "Forwarded: for=203.0.113.9;host=shop.example;proto=https, for=10.0.0.2, for=10.0.0.5"


async def test_an_ipv6_client_is_quoted_in_forwarded() -> None:
    heard = await heard_by_upstream(peer="2001:db8::1")
    assert 'Forwarded: for="[2001:db8::1]";host=shop.example;proto=http' in heard
    assert "X-Forwarded-For: 2001:db8::1" in heard


@pytest.mark.parametrize(
    ("proxy", "path", "expected"),
    [
        (reverse_proxy(f"{A}/base"), "/x?y", "/base/x?y"),
        (reverse_proxy(A, add_prefix="/base/"), "/", "/base/"),
        (reverse_proxy(A, strip_prefix="/api"), "/api/x", "/x"),
        (reverse_proxy(A, strip_prefix="/api"), "/api", "/"),
        (reverse_proxy(A, strip_prefix="/api"), "/api?x", "/?x"),
        (reverse_proxy(A, strip_prefix="/api", add_prefix="/v1"), "/api/x", "/v1/x"),
        (reverse_proxy(f"{A}/base", strip_prefix="/api", add_prefix="/v1"), "/api/x", "/base/v1/x"),
        (reverse_proxy(A), "/a/../b", "/a/../b"),
    ],
)
async def test_path_prefixes(proxy: RequestHandler, path: str, expected: str) -> None:
    heard = await heard_by_upstream(proxy=proxy, line=f"GET {path} HTTP/1.1")
    assert heard[0] == f"GET {expected} HTTP/1.1"
    assert ("X-Forwarded-Prefix: /api" in heard) is path.startswith("/api")


@pytest.mark.parametrize(
    ("proxy", "path", "status"),
    [
        (reverse_proxy(A, strip_prefix="/api"), "/apix", b"404"),
        (reverse_proxy(A, strip_prefix="/api"), "/", b"404"),
        (reverse_proxy(A, add_prefix="/base"), "/../x", b"400"),
        (reverse_proxy(f"{A}/base"), "/a/%2e%2E/x", b"400"),
        (reverse_proxy(f"{A}/base"), "/a/..", b"400"),
        (reverse_proxy(f"{A}/base"), "/a/..%2fx", b"400"),
    ],
)
async def test_paths_that_are_not_below_a_prefix(proxy: RequestHandler, path: str, status: bytes) -> None:
    async with testing.connect(server()(proxy)) as stream:
        await stream.write(get(path))
        assert (await stream.read()).split()[1] == status


@pytest.mark.parametrize(
    ("host", "told"),
    [(None, "shop.example"), ("upstream", "a.example"), ("other.example:81", "other.example:81")],
)
async def test_the_host_is_kept_or_set(host: str | None, told: str) -> None:
    heard = await heard_by_upstream(proxy=reverse_proxy(A, host=host))
    assert heard[1] == f"Host: {told}"
    assert "X-Forwarded-Host: shop.example" in heard


async def test_the_request_goes_to_the_configured_upstream() -> None:
    upstream = Upstream(answering(OK))
    async with client(upstream) as fetcher:
        for url in ("http://10.0.0.1:8000", "http+unix:/run/a.sock", "unix:/run/b.sock"):
            await reverse_proxy(url, client=fetcher)(Request("GET", "/", {"Host": "shop.example"}))
    assert [str(each) for each in upstream.targets] == [
        "10.0.0.1:8000",
        "unix:/run/a.sock",
        "unix:/run/b.sock",
    ]


# what comes down


def proxied(origin: ConnectionHandler) -> RequestHandler:
    return reverse_proxy(A, client=client(Upstream(origin, tcp_pair)))


async def answer_of(answer: bytes, *said: bytes) -> bytes:
    async with client_of(server()(proxied(answering(answer)))) as browser:
        for each in said or (get("/", "Connection: close"),):
            await browser.say(each)
        return await browser.hear_end()


async def test_hop_by_hop_fields_of_a_response_are_removed() -> None:
    heard = await answer_of(
        b"HTTP/1.1 200 Fine\r\nConnection: keep-alive, X-Private\r\nKeep-Alive: timeout=5\r\nX-Private: 1\r\n"
        b"Proxy-Authenticate: Basic\r\nX-Public: 1\r\nX-Public: 2\r\nContent-Length: 2\r\n\r\nok"
    )
    assert heard == (
        b"HTTP/1.1 200 Fine\r\nX-Public: 1\r\nX-Public: 2\r\nContent-Length: 2\r\nVia: 1.1 llama\r\n"
        b"Connection: close\r\n\r\nok"
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: 1\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A : 1\r\n\r\n",
    ],
)
async def test_a_malformed_response_is_502(answer: bytes) -> None:
    heard = await answer_of(answer)
    assert heard.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"\r\nProxy-Status: llama; error=http_protocol_error\r\n" in heard


async def test_bytes_after_a_response_are_discarded() -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"
    heard = await answer_of(OK + smuggled, get("/1"), get("/2", "Connection: close"))
    assert heard.count(b"HTTP/1.1 200 OK") == 2 and b"smuggled" not in heard


async def test_an_unreachable_upstream_is_502() -> None:
    async def nobody(target: object) -> Stream:
        raise ConnectionRefusedError(111, "Connection refused")

    async with client_of(server()(reverse_proxy(A, connect=nobody))) as browser:
        await browser.say(get("/", "Connection: close"))
        heard = await browser.hear_end()
    assert heard.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert b"\r\nProxy-Status: llama; error=destination_unavailable\r\n" in heard


async def test_a_slow_upstream_is_504_and_a_full_pool_is_503() -> None:
    async def silent(stream: Stream) -> None:
        await head_of(stream)
        await stream.read()

    fetcher = client(Upstream(silent), response_header_timeout=5, max_per_host=1, max_waiting=0)
    async with testing.clock(autojump=True), fetcher:
        proxy = server()(reverse_proxy(A, client=fetcher))
        async with testing.connect(proxy) as one, testing.connect(proxy) as two:
            await one.write(get())
            await asyncio.sleep(1)
            await two.write(get())
            refused, late = await two.read(), await one.read()
    assert refused.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: 1\r\n" in refused
    assert late.startswith(b"HTTP/1.1 504 ") and b"error=http_response_timeout" in late


async def test_an_upstream_that_closes_before_its_response_is_502() -> None:
    async def dying(stream: Stream) -> None:
        await head_of(stream)
        stream.abort()

    async with client_of(server()(proxied(dying))) as browser:
        await browser.say(get("/", "Connection: close"))
        assert (await browser.hear_end()).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_an_upstream_that_closes_during_its_response_truncates_it_visibly(framing: bytes) -> None:
    async def dying(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        await stream.write(b"5\r\nhello\r\n" if b"chunked" in framing else b"hello")
        await heard_some.wait()
        stream.abort()

    heard_some = asyncio.Event()
    async with client_of(server()(proxied(dying))) as browser:
        await browser.say(get())
        got = b""
        while b"hello" not in got:
            got += await browser.stream.read()
        heard_some.set()
        with pytest.raises(ConnectionResetError):
            while data := await browser.stream.read():
                got += data
    assert not got.endswith(b"0\r\n\r\n")


async def test_events_are_forwarded_as_they_arrive() -> None:
    turns: asyncio.Queue[bytes] = asyncio.Queue()

    async def app(request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            while event := await turns.get():
                yield event

        return Response(200, {"Content-Type": "text/event-stream"}, events())

    async with client_of(server()(proxied(server()(app)))) as browser:
        await browser.say(get("/", "Connection: close"))
        for event in (b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"):
            turns.put_nowait(event)
            got = b""
            while event not in got:
                got += await browser.stream.read()
        turns.put_nowait(b"")
        assert (await browser.hear_end()).endswith(b"0\r\n\r\n")


# either side leaves


async def test_a_client_that_disconnects_ends_the_exchange_at_once() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        asked.set()
        try:
            await stream.read()
        finally:
            gone.set()

    async with client_of(server()(proxied(origin))) as browser:
        await browser.say(get())
        await asked.wait()
        browser.stream.abort()
        async with asyncio.timeout(1):
            await gone.wait()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"])
async def test_a_client_that_disconnects_during_its_body_ends_the_exchange_at_once(head: bytes) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(head)
        asked.set()
        try:
            while await stream.read():
                pass
        finally:
            gone.set()

    async with client_of(server()(proxied(origin))) as browser:
        await browser.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        await asked.wait()
        await asyncio.sleep(0.01)
        browser.stream.abort()
        async with asyncio.timeout(1):
            await gone.wait()


async def test_an_upstream_that_closes_ends_an_unfinished_request_body() -> None:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.read(1)
        stream.abort()

    async with client_of(server()(proxied(origin))) as browser:
        await browser.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        async with asyncio.timeout(2):
            assert (await browser.hear_end()).startswith(b"HTTP/1.1 502 ")


async def test_an_early_error_response_reaches_a_client_that_is_still_sending() -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(refusal)

    async with client_of(server()(proxied(origin))) as browser:
        await browser.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
        assert (await browser.hear_end()).startswith(b"HTTP/1.1 413 ")


# upgrades


async def test_an_upgrade_is_forwarded_in_both_directions() -> None:
    heard: list[bytes] = []

    async def origin(stream: Stream) -> None:
        heard.append(await head_of(stream))
        await stream.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\nhi"
        )
        while data := await stream.read():
            await stream.write(data.upper())

    async with client_of(server()(proxied(origin))) as browser:
        await browser.say(get("/", "Connection: Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: x"))
        await browser.hear(
            b"HTTP/1.1 101 Switching Protocols\r\nX-A: 1\r\nUpgrade: WebSocket\r\nVia: 1.1 llama\r\n"
            b"Connection: Upgrade\r\n\r\nhi"
        )
        await browser.say(b"ping")
        await browser.hear(b"PING")
        await browser.stream.write_eof()
        assert await browser.hear_end() == b""
    assert b"\r\nSec-WebSocket-Key: x\r\n" in heard[0] and b"\r\nUpgrade: WebSocket\r\n" in heard[0]
    assert b"\r\nConnection: Upgrade\r\n" in heard[0]


async def test_an_upgrade_to_h2c_is_not_forwarded() -> None:
    heard = await heard_by_upstream(
        "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"
    )
    assert heard == ["GET / HTTP/1.1", "Host: shop.example", *FORWARDED]


async def test_a_reverse_proxy_rejects_connect() -> None:
    async with testing.connect(server()(reverse_proxy(A))) as stream:
        await stream.write(b"CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n")
        assert (await stream.read()).startswith(b"HTTP/1.1 405 ")


# the whole way


async def test_through_real_servers_and_sockets() -> None:
    async def app(request: Request) -> Response:
        return Response(body=request.body, headers={"X-From": request.headers["x-forwarded-for"]})

    async with serve(stack(server(), app), listen="127.0.0.1:0") as origin:
        handler = stack(server(), reverse_proxy(f"http://{origin.address}"))
        async with serve(handler, listen="127.0.0.1:0") as proxy, client() as fetcher:
            for body in (b"", b"x", bytes(3_000_000)):
                response = await fetcher(Request("POST", f"http://{proxy.address}/", body=body))
                assert response.headers["x-from"] == "127.0.0.1"
                assert await response.body.read(4_000_000) == body


# what cannot be


WRONG: list[dict[str, object]] = [
    {"upstreams": []},
    {"upstreams": "a.example:80"},
    {"upstreams": {A: 0}},
    {"upstreams": A, "balance": "sticky"},
    {"upstreams": A, "strip_prefix": "api"},
    {"upstreams": A, "add_prefix": "/a/../b"},
    {"upstreams": A, "host": "a b"},
    {"upstreams": A, "via": "a b"},
    {"upstreams": A, "retries": -1},
    {"upstreams": A, "connect": Upstream, "client": reverse_proxy(A)},
]


@pytest.mark.parametrize("settings", WRONG)
def test_invalid_settings_are_rejected(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        reverse_proxy(**settings)  # type: ignore[arg-type]

"""curl through the forward proxy, in every mode, with the features of HTTP."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import Target, http, serve, socks5, stack, tls
from llama.http import Headers, Request, Response
from tests.http.peers import DATA, PACKED, SITE, Done, Gate, curl, digested, gate, program, site, sites
from tests.http.serving import echo
from tests.tls.sessions import ca_file, pair_files

pytestmark = pytest.mark.peer
TLS = "TLS to the proxy"
WAYS = {
    "url": ("http", "plain"),
    "url, TLS to the proxy": ("http", TLS),
    "tunnel": ("http", "plain", "--proxytunnel"),
    "tunnel, TLS to the proxy": ("http", TLS, "--proxytunnel"),
    "tunnel by HTTP/1.0": ("http", "plain", "--proxytunnel", "--proxy1.0"),
    "https": ("https", "plain"),
    "https, TLS to the proxy": ("https", TLS),
}


class Through:
    """curl with the options for one mode of the proxy."""

    def __init__(self, scheme: str, gate: Gate, *options: str) -> None:
        self.gate = gate
        self.site = f"{scheme}://{SITE}"
        self.options = ("--http1.1", "--cacert", ca_file(), "--proxy-cacert", ca_file(), *options)

    async def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> Done:
        """Run curl; an argument that begins with a slash is a path of the site."""
        filled = [
            f"{self.site}{each}" if isinstance(each, str) and each.startswith("/") else each
            for each in arguments
        ]
        return await curl(*self.options, *filled, stdin=stdin)


@asynccontextmanager
async def through(way: str, files: Path | None = None) -> AsyncGenerator[Through]:
    scheme, outside, *options = WAYS[way]
    secure = outside == TLS
    async with sites(files=files) as roads, gate(roads, user=("john", "secret"), secure=secure) as proxy:
        if "--proxy1.0" in options:
            options.append(proxy.address)
        else:
            options += ["-x", f"https://localhost:{proxy.port}" if secure else proxy.url]
        yield Through(scheme, proxy, "--proxy-user", "john:secret", *options)


each_way = pytest.mark.parametrize("way", WAYS)


@each_way
async def test_pages_of_every_framing(way: str) -> None:
    async with through(way) as curl:
        assert (await curl("/hello")).out == b"hello"
        assert (await curl("/chunks")).out == b"one two three"
        assert (await curl("--http1.0", "/chunks")).out == b"one two three"
        assert (await curl("/nothing", "-w", "%{http_code}")).out == b"204"
        assert (await curl("--raw", "/packed")).out == PACKED
        assert (await curl("--compressed", "/packed")).out == DATA
        assert (await curl("-L", "/moved", "-w", " %{num_redirects}")).out == b"hello 1"
        head = (await curl("-I", "/hello")).out
        assert b" 200 OK\r\n" in head and b"Content-Length: 5\r\n" in head
        is_tunnel = curl.gate.seen[0].startswith("CONNECT ")
        assert is_tunnel == (not way.startswith("url"))


@each_way
async def test_uploads_of_every_framing(way: str, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(DATA)
    async with through(way) as curl:
        assert (await curl("-T", upload, "/x")).out == digested("PUT", len(DATA), DATA)
        assert (await curl("--data-binary", "small", "/x")).out == digested("POST", 5, b"small")
        assert (await curl("-X", "DELETE", "/x")).out == digested("DELETE", None, b"")
        chunked = ("-H", "Transfer-Encoding: chunked", "-T", "-", "/x")
        assert (await curl(*chunked, stdin=DATA)).out == digested("PUT", "chunked", DATA)
        expecting = ("-v", "-H", "Expect: 100-continue", "--expect100-timeout", "15", "-T", upload, "/x")
        done = await curl(*expecting)
        assert done.out == digested("PUT", len(DATA), DATA)
        assert done.err.count(b"< HTTP/1.1 100 Continue") == 1


@each_way
async def test_range_requests(way: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    begun = tmp_path / "begun"
    begun.write_bytes(DATA[:1000])
    async with through(way, tmp_path) as curl:
        assert (await curl("-r", "100-199", "/files/file")).out == DATA[100:200]
        assert (await curl("-r", "-7", "/files/file", "-w", "%{http_code}")).out == DATA[-7:] + b"206"
        assert (await curl("-C", "-", "-o", begun, "/files/file")).code == 0
        assert begun.read_bytes() == DATA
        etag = tmp_path / "etag"
        assert (await curl("--etag-save", etag, "/files/file")).out == DATA
        again = await curl("--etag-compare", etag, "/files/file", "-w", "%{http_code}")
        assert again.out == b"304"


@each_way
async def test_early_hints_are_forwarded(way: str) -> None:
    async with through(way) as curl:
        done = await curl("-i", "--suppress-connect-headers", "/hints")
        assert done.out.startswith(
            b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"
        )
        assert (await curl("--http1.0", "/hints")).out == b"hinted"


@each_way
async def test_connections_are_reused(way: str) -> None:
    async with through(way) as curl:
        done = await curl("-v", *["/hello", "/chunks", "/nothing", "/x"] * 3)
        assert done.err.count(b"Re-using existing") + done.err.count(b"Reusing existing") == 11
        expected = {"url": 12, "url, TLS to the proxy": 12}
        assert len(curl.gate.seen) == expected.get(way, 1)


@each_way
async def test_many_concurrent_requests(way: str) -> None:
    async with through(way) as curl:
        done = await curl("-Z", "--parallel-immediate", "--parallel-max", "10", *["/hello"] * 40)
        assert done.out == b"hello" * 40, done.err


@each_way
async def test_a_client_without_credentials_gets_a_challenge(way: str) -> None:
    async with through(way) as curl:
        for wrong in ("john:", "john:wrong", "jane:secret"):
            done = await curl("--proxy-user", wrong, "-w", "\n%{http_code} %{http_connect}", "/hello")
            assert b"407" in done.out.splitlines()[-1]
        assert (await curl("--proxy-anyauth", "/hello")).out == b"hello"


async def test_fields_for_the_proxy_are_not_forwarded() -> None:
    heads: list[Headers] = []

    async def page(request: Request) -> Response:
        heads.append(request.headers)
        return Response()

    async with sites(page) as roads, gate(roads) as proxy:
        fields = ("--proxy-header", "X-Proxy: 1", "-H", "X-Site: 1", "--proxy-user", "john:secret")
        await curl("-x", proxy.url, "--proxytunnel", *fields, f"http://{SITE}/")
        await curl("-x", proxy.url, *fields, f"http://{SITE}/")
    tunnel, url = proxy.heads
    assert (tunnel["x-proxy"], tunnel.get("x-site")) == ("1", None)
    assert "proxy-authorization" in tunnel.names and "proxy-authorization" in url.names
    for head in heads:
        assert head["x-site"] == "1"
        assert not {"proxy-authorization", "proxy-connection", "connection"} & set(head.names)
    assert ["via" in head.names for head in heads] == [False, True]


async def test_a_proxy_is_named_by_the_environment_and_by_noproxy() -> None:
    async with (
        sites() as roads,
        gate(roads) as proxy,
        serve(stack(http.server(), site), listen="127.0.0.1:0") as near,
    ):
        variables = {"http_proxy": proxy.url, "HTTPS_PROXY": proxy.url, "NO_PROXY": "127.0.0.1"}
        pages = (f"http://{SITE}/hello", f"https://{SITE}/hello", f"http://{near.address}/hello")
        done = await program("curl", "-qsS", "--cacert", ca_file(), *pages, variables=variables)
        assert done.out == b"hello" * 3, done.err
        assert proxy.seen == [f"GET http://{SITE}/hello", f"CONNECT {SITE}:443"]
        done = await curl("-x", proxy.url, "--noproxy", "127.0.0.1", pages[2])
        assert done.out == b"hello" and len(proxy.seen) == 2


@pytest.mark.parametrize("secure", [False, True])
async def test_a_chain_of_a_socks_proxy_and_the_proxy(secure: bool) -> None:
    asked: list[str] = []

    async def rule(_: object, target: Target) -> bool:
        asked.append(str(target))
        return True

    async with (
        sites() as roads,
        gate(roads, secure=secure) as proxy,
        serve(socks5.server(rules=rule), listen="127.0.0.1:0") as first,
    ):
        there = f"{'https' if secure else 'http'}://localhost:{proxy.port}"
        chain = ("--preproxy", f"socks5h://{first.address}", "-x", there, "--proxy-cacert", ca_file())
        pages = (f"http://{SITE}/hello", f"https://{SITE}/hello")
        assert (await curl(*chain, "--cacert", ca_file(), *pages)).out == b"hello" * 2
        assert proxy.seen == [f"GET http://{SITE}/hello", f"CONNECT {SITE}:443"]
        assert set(asked) == {f"localhost:{proxy.port}"}


async def test_megabytes_pass_in_both_directions(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 4
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(data)
    async with sites(echo) as roads, gate(roads) as proxy:
        for way in (
            (f"http://{SITE}/",),
            ("-p", f"http://{SITE}/"),
            ("--cacert", ca_file(), f"https://{SITE}/"),
        ):
            done = await curl("-x", proxy.url, "-H", "Expect:", "-T", sent, "-o", received, *way)
            assert done.code == 0, done.err
            assert received.read_bytes() == data


async def test_curl_shows_the_status_of_a_failed_request() -> None:
    async with sites() as roads, gate(roads) as proxy:
        status = ("-x", proxy.url, "-w", "%{http_code} %{http_connect}", "-o", os.devnull)
        assert (await curl(*status, "http://nowhere.example/")).out == b"502 000"
        assert (await curl(*status, "https://nowhere.example/")).out == b"000 502"
        assert (await curl(*status, f"http://{proxy.address}/")).out == b"502 000"
        assert (await curl("-w", "%{http_code}", "-o", os.devnull, f"{proxy.url}/")).out == b"400"


async def test_a_proxy_that_requires_a_client_certificate() -> None:
    cert, key = pair_files("john", client=True)
    handler = stack(tls.server(*pair_files("localhost"), client_ca=ca_file()), http.server(), http.proxy())
    async with (
        serve(stack(http.server(), site), listen="127.0.0.1:0") as there,
        serve(handler, listen="127.0.0.1:0") as proxy,
    ):
        way = ("-x", f"https://localhost:{proxy.port}", "--proxy-cacert", ca_file())
        page = f"http://{there.address}/hello"
        assert (await curl(*way, "--proxy-cert", cert, "--proxy-key", key, page)).out == b"hello"
        assert (await curl(*way, "-p", "--proxy-cert", cert, "--proxy-key", key, page)).out == b"hello"
        assert (await curl(*way, page)).code in (35, 52, 55, 56)

"""pango in front of targets that it speaks HTTP to."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

import pango
from llama import Target, http, tls
from llama.http import Request
from llama.http._server import HttpServer
from llama.tcp._listener import TcpServer
from pango._build import servers
from pango._settings import Settings
from tests.pango.conftest import Start


class _Tells(BaseHTTPRequestHandler):
    """Answers with what it was asked, as JSON."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        fields = {name.lower(): value for name, value in self.headers.items()}
        said = {"path": self.path, "fields": fields, "body": body.decode(), "port": self.server.server_port}  # type: ignore[attr-defined]
        text = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")  # its thread would wait for the next request otherwise
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what clients get."""


class _Web(ThreadingHTTPServer):
    daemon_threads = False


@contextmanager
def telling(context: ssl.SSLContext | None = None) -> Generator[str]:
    """A server that tells; its address."""
    with _Web(("127.0.0.1", 0), _Tells) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def web() -> Iterator[str]:
    with telling() as address:
        yield address


def nobody() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


async def fetch(port: int, ca: Path, request: Request) -> tuple[int, Any]:
    connector = tls.connect(ca=ca)
    request.headers["Connection"] = "close"
    async with http.client(tls=connector) as client:
        request.scheme = "https"
        request.authority = f"localhost:{port}"
        response = await client(request)
        body = await response.body.read()
        return response.status, json.loads(body) if response.status == 200 else body.decode()


def ask(port: int, files: Path, *requests: Request) -> list[tuple[int, Any]]:
    async def main() -> list[tuple[int, Any]]:
        return [await fetch(port, files / "ca.pem", request) for request in requests]

    return asyncio.run(main())


def test_a_request_is_passed_on_with_whom_it_is_from(proxy: Start, web: str, files: Path) -> None:
    server = proxy("--to", f"http://{web}/app", "--access-log", "common")
    spoofed = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    ((status, told), (_, posted)) = ask(
        server.port,
        files,
        Request("GET", "/a?b=c", spoofed),
        Request("POST", "/p", body=b"hello"),
    )
    assert (status, told["path"]) == (200, "/app/a?b=c")
    fields = told["fields"]
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-forwarded-proto"] == "https"
    assert fields["host"] == f"localhost:{server.port}"
    assert fields["via"] == "2 pango"
    assert fields["forwarded"].startswith("for=127.0.0.1;")
    assert posted["body"] == "hello"
    server.expect(r'^127\.0\.0\.1 - - \[.*\] "GET /a\?b=c HTTP/2" 200 \d+$')
    server.expect(r'^127\.0\.0\.1 - - \[.*\] "POST /p HTTP/2" 200 \d+$')
    server.stop()
    assert server.complaints() == []


SHOP = "shop.example"
CUSTOM = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "X-Forwarded-Host": SHOP}
RFC = {"Forwarded": f"for=203.0.113.9;proto=http;host={SHOP}"}


@pytest.mark.parametrize(
    ("header", "fields", "client", "host"),
    [
        ("x-forwarded-for", CUSTOM, "203.0.113.9", SHOP),
        ("x-forwarded-for", {**CUSTOM, "X-Forwarded-Host": f"a.example, {SHOP}"}, "203.0.113.9", SHOP),
        ("x-forwarded-for", {**CUSTOM, "X-Forwarded-Host": "us er@shop.example"}, "203.0.113.9", None),
        ("x-forwarded-for", RFC, "127.0.0.1", None),
        ("forwarded", RFC, "203.0.113.9", SHOP),
        ("forwarded", CUSTOM, "127.0.0.1", None),
    ],
)
def test_trusted_proxies_tell_the_client_scheme_and_host(
    proxy: Start, web: str, files: Path, header: str, fields: dict[str, str], client: str, host: str | None
) -> None:
    trust = ("--forwarded-from", "127.0.0.0/8,::1", "--forwarded-header", header)
    server = proxy("--to", f"http://{web}", *trust, "--access-log", "json")
    ((_, told),) = ask(server.port, files, Request("GET", "/", fields))
    sent, host = told["fields"], host or f"localhost:{server.port}"
    assert (sent["host"], sent["x-forwarded-host"]) == (host, host)
    assert sent["x-forwarded-for"] == ("127.0.0.1" if client == "127.0.0.1" else f"{client}, 127.0.0.1")
    assert sent["x-forwarded-proto"] == ("https" if client == "127.0.0.1" else "http")
    line = json.loads(server.expect(r"^\{.*\}$")[0])
    assert (line["client.address"], line["server.address"]) == (client, host)


@pytest.mark.parametrize("trust", [(), ("--forwarded-from", "192.0.2.0/24")])
def test_other_peers_cannot_tell_the_client_scheme_or_host(
    proxy: Start, web: str, files: Path, trust: tuple[str, ...]
) -> None:
    server = proxy("--to", f"http://{web}", *trust, "--access-log", "json")
    ((_, told),) = ask(server.port, files, Request("GET", "/", {**CUSTOM, **RFC, "X_Forwarded_Host": SHOP}))
    sent = told["fields"]
    own = f"localhost:{server.port}"
    assert (sent["host"], sent["x-forwarded-host"], sent["x-forwarded-for"]) == (own, own, "127.0.0.1")
    assert SHOP not in json.dumps(told)
    line = json.loads(server.expect(r"^\{.*\}$")[0])
    assert (line["server.address"], line["client.address"]) == (own, "127.0.0.1")


def test_targets_take_turns_and_one_that_is_gone_is_passed_over(proxy: Start, web: str, files: Path) -> None:
    with telling() as second:
        server = proxy("--to", f"http://{web}", "--to", f"http://{second}", "--to", f"http://{nobody()}")
        answers = ask(server.port, files, *[Request("GET", "/") for _ in range(6)])
    assert {status for status, _ in answers} == {200}
    assert {told["port"] for _, told in answers} == {int(each.rpartition(":")[2]) for each in (web, second)}


def test_when_no_target_answers_it_is_502(proxy: Start, files: Path) -> None:
    server = proxy("--to", f"http://{nobody()}", "--retries", "0")
    assert ask(server.port, files, Request("GET", "/")) == [(502, "502 Bad Gateway\n")]
    server.stop()
    assert len(server.complaints()) >= 1


def test_a_target_that_is_slow_is_504(proxy: Start, files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = proxy("--to", to, "--response-header-timeout", "200ms")
        assert ask(server.port, files, Request("GET", "/"))[0][0] == 504


def test_a_client_has_the_handshake_timeout_for_a_head(proxy: Start) -> None:
    server = proxy("--plain", "--to", "http://127.0.0.1:1", "--handshake-timeout", "200ms")
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("idle", "expected"), [(None, 60.0), (600.0, 60.0), (30.0, 30.0)])
def test_the_first_byte_is_waited_for_a_minute_at_most(idle: float | None, expected: float) -> None:
    settings = Settings(plain=True, to=("http://127.0.0.1:1",), idle_timeout=idle)
    (server,) = servers(settings)
    assert isinstance(server, TcpServer) and isinstance(server.handler, HttpServer)
    assert server.handler.settings.first_byte_timeout == expected


@pytest.mark.parametrize("verified", [True, False])
def test_https_to_the_target(proxy: Start, files: Path, verified: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("c.pem", "k.pem")
    with telling(context) as address:
        more = ("--to-ca", "ca.pem") if verified else ()
        server = proxy("--to", f"https://{address}", *more)
        ((status, _),) = ask(server.port, files, Request("GET", "/"))
    assert status == (200 if verified else 502)


# as a library


@asynccontextmanager
async def served(files: Path, **options: Any) -> AsyncGenerator[int]:
    async with pango.serve(listen="127.0.0.1:0", cert="c.pem", key="k.pem", **options) as server:
        yield server.port


async def test_the_library_does_the_same(files: Path, web: str) -> None:
    async with served(files, to=f"http://{web}", access_log="json", retries=0) as port:
        status, told = await fetch(port, files / "ca.pem", Request("GET", "/a"))
        assert (status, told["path"], told["fields"]["via"]) == (200, "/a", "2 pango")


async def chat(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    text = (await receive())["text"]
    await send({"type": "websocket.send", "text": text.upper()})
    await send({"type": "websocket.close", "code": 1000})


async def test_websockets_pass(files: Path) -> None:
    context = ssl.create_default_context(cafile="ca.pem")
    async with (
        pango.serve(chat, listen="127.0.0.1:0", plain=True) as behind,
        served(files, to=f"http://127.0.0.1:{behind.port}") as port,
        connect(f"wss://localhost:{port}/", ssl=context) as client,
    ):
        await client.send("hello")
        assert await client.recv() == "HELLO"


async def test_an_application_has_an_access_log_too(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def hello(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 201, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

    with caplog.at_level("INFO", "llama.access"):
        async with pango.serve(
            hello, listen="127.0.0.1:0", cert="c.pem", key="k.pem", access_log="common"
        ) as server:
            port = server.port
            stream = await tls.connect(ca=files / "ca.pem")(Target("localhost", port))
            await stream.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            while await stream.read():
                pass
            await stream.aclose()
    assert '"GET / HTTP/1.1" 201 2' in caplog.text

"""WebSockets over HTTP/2 (RFC 8441): `ws.connect`, `http.client` and the reverse proxy where a server takes them."""

import asyncio
import getpass
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama import Connector, RefusedError, Stream, Target, http, serve, stack, tls, ws
from llama.http import Request, Response
from llama.tls import TLSInfo
from tests.http.browser import FETCHES, chromium, fingerprint
from tests.http.h2.test_caddy import nghttpx
from tests.http.h2.test_upstreams import accepts, free_port, running
from tests.socks5.programs import installed
from tests.tls.sessions import ca_file, pair_files
from tests.ws.talking import echo, serving

SETTINGS = b"\0\0\0\x04\0\0\0\0\0"  # without ENABLE_CONNECT_PROTOCOL


async def hello(request: Request) -> Response:
    return Response(body=b"hello")


@dataclass
class Site:
    """A server over TLS that notes its connections and requests."""

    extended: bool = True
    url: str = ""
    alpn: list[str] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    page: http.RequestHandler = hello

    async def answer(self, request: Request) -> Response:
        self.requests.append((request.version, request.method, request.upgrade_protocol))
        if request.path == "/refuse":
            return Response(403)
        if request.upgrade_protocol:
            return await stack(ws.server(subprotocols=["chat"]), echo)(request)
        return await self.page(request)

    async def accept(self, stream: Stream) -> None:
        alpn = stream.extensions[TLSInfo].alpn or ""
        self.alpn.append(alpn)
        if alpn == "h2" and not self.extended:
            await self.refuse(stream)
        else:
            await http.server()(self.answer)(stream)

    async def refuse(self, stream: Stream) -> None:
        """HTTP/2 that answers no requests, as none has to come."""
        await stream.write(SETTINGS)
        while await stream.read():
            pass


@asynccontextmanager
async def site(*, extended: bool = True, alpn: list[str] | None = None) -> AsyncGenerator[Site]:
    found = Site(extended)
    handler = stack(tls.server(*pair_files("localhost"), alpn=alpn or ["h2", "http/1.1"]), found.accept)
    async with serve(handler, listen="127.0.0.1:0") as server:
        found.url = f"//localhost:{server.port}"
        yield found


def trusting() -> Connector:
    return tls.connect(ca=ca_file())


async def converse(socket: ws.WebSocket) -> None:
    for message in ("hello", b"bytes", "ä" * 100_000):
        await socket.send(message)
        assert await socket.receive() == message


@pytest.mark.parametrize(
    ("extended", "alpn", "version", "method", "connections"),
    [
        (True, None, "2", "CONNECT", ["h2"]),
        (False, None, "1.1", "GET", ["h2", "http/1.1"]),
        (True, ["http/1.1"], "1.1", "GET", ["http/1.1"]),
        (True, ["h2"], "2", "CONNECT", ["h2"]),
    ],
)
async def test_a_websocket_uses_http_2_where_the_server_takes_it(
    extended: bool, alpn: list[str] | None, version: str, method: str, connections: list[str]
) -> None:
    async with (
        site(extended=extended, alpn=alpn) as there,
        ws.connect(f"wss:{there.url}/", tls=trusting(), subprotocols=["chat"]) as socket,
    ):
        await converse(socket)
        assert (socket.response.version, socket.subprotocol) == (version, "chat")
        assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
        await socket.close()
    assert there.requests == [(version, method, "websocket")]
    assert there.alpn == connections
    assert socket.close_code == 1000


async def test_it_shares_the_connection_of_other_requests() -> None:
    async with site() as there, http.client(tls=trusting()) as client, AsyncExitStack() as exits:
        response = await client(Request("GET", f"https:{there.url}/"))
        assert await response.body.read() == b"hello"
        sockets = [
            await exits.enter_async_context(ws.connect(f"wss:{there.url}/", client=client)) for _ in range(3)
        ]
        for socket in sockets:
            await converse(socket)
        response = await client(Request("GET", f"https:{there.url}/"))
        assert await response.body.read() == b"hello"
        assert there.alpn == ["h2"]


async def test_a_server_without_it_is_asked_once() -> None:
    async with site(extended=False) as there, http.client(tls=trusting()) as client:
        for _ in range(3):
            async with ws.connect(f"wss:{there.url}/", client=client) as socket:
                await converse(socket)
        assert there.alpn == ["h2", *["http/1.1"] * 3]
        assert [
            each.is_idle for place in client.state.open().origin_pools for each in place.h2_connections
        ] == [True]
        assert len(client.state.open().idle) == 1, (
            "the connection of HTTP/2 is kept, and closed when it is idle"
        )


async def test_many_at_once_find_out_together() -> None:
    async with site(extended=False) as there, http.client(tls=trusting()) as client:

        async def talk() -> None:
            async with ws.connect(f"wss:{there.url}/", client=client) as socket:
                await converse(socket)

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(talk())
        assert there.alpn.count("http/1.1") == 5


async def test_a_refusal_is_not_retried() -> None:
    async with site() as there:
        with pytest.raises(RefusedError, match="answered 403"):
            async with ws.connect(f"wss:{there.url}/refuse", tls=trusting()):
                pass
    assert there.requests == [("2", "CONNECT", "websocket")]


async def test_other_upgrades_use_http_1_1() -> None:
    async with site() as there, http.client(tls=trusting()) as client:
        request = Request("GET", f"https:{there.url}/", {"Upgrade": "chat"})
        request.upgrade_protocol = "chat"
        response = await client(request)
        await response.aclose()
    assert there.alpn == ["http/1.1"]


async def test_no_settings_in_time_is_an_error_and_keeps_the_connection_in_the_pool() -> None:
    async def silent(stream: Stream) -> None:
        while await stream.read():
            pass

    handler = stack(tls.server(*pair_files("localhost"), alpn=["h2"]), silent)
    async with (
        serve(handler, listen="127.0.0.1:0") as server,
        http.client(tls=trusting(), response_header_timeout=0.1) as client,
    ):
        with pytest.raises(TimeoutError, match="no SETTINGS"):
            async with ws.connect(f"wss://localhost:{server.port}/", client=client):
                pass
        assert len(client.state.open().idle) == 1


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("front", ["http", "https"])
async def test_a_reverse_proxy_passes_it_on(front: str, extended: bool) -> None:
    async with site(extended=extended) as there, http.client(tls=trusting()) as client:
        proxy = http.reverse_proxy(f"https:{there.url}", client=client)
        outer = [tls.server(*pair_files("localhost"))] if front == "https" else []
        async with serving(proxy, *outer) as address:
            url = f"{'wss' if front == 'https' else 'ws'}://localhost:{address.rpartition(':')[2]}/"
            for _ in range(2):
                async with ws.connect(url, tls=trusting() if front == "https" else None) as socket:
                    await converse(socket)
    version, method = ("2", "CONNECT") if extended else ("1.1", "GET")
    assert there.requests == [(version, method, "websocket")] * 2
    assert there.alpn == (["h2"] if extended else ["h2", "http/1.1", "http/1.1"])


NGINX = """
user {user}; daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{
      proxy_pass http://{back}; proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    }}
  }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path, back: str) -> AsyncGenerator[str]:
    port = free_port()
    cert, key = pair_files("localhost")
    config = folder / "nginx.conf"
    fields = {
        "user": getpass.getuser(),
        "folder": folder,
        "port": port,
        "cert": cert,
        "key": key,
        "back": back,
    }
    config.write_text(NGINX.format(**fields))
    async with running(installed("nginx"), "-c", config):
        await accepts(port)
        yield f"localhost:{port}"


@asynccontextmanager
async def front_of(peer: str, folder: Path, back: str) -> AsyncGenerator[str]:
    if peer == "nginx":
        async with nginx(folder, back) as address:
            yield address
    else:
        options = f"--backend={back.replace(':', ',')};;proto=http/1.1"
        async with nghttpx(folder, options) as address:
            yield address


@pytest.mark.peer
@pytest.mark.parametrize(("peer", "kept"), [("nghttpx", True), ("nginx", False)])
@pytest.mark.parametrize("reverse", [False, True])
async def test_with_other_servers(peer: str, kept: bool, reverse: bool, tmp_path: Path) -> None:
    """nghttpx takes WebSockets over HTTP/2, nginx over HTTP/1.1 alone."""
    carriers: list[str | None] = []

    async def counted(target: Target) -> Stream:
        stream = await trusting()(target)
        carriers.append(stream.extensions[TLSInfo].alpn)
        return stream

    async with (
        serving(stack(ws.server(), echo)) as back,
        front_of(peer, tmp_path, back) as front,
        http.client(tls=counted) as client,
        serving(http.reverse_proxy(f"https://{front}", client=client)) as proxy,
    ):
        for _ in range(2):
            url = f"ws://{proxy}/" if reverse else f"wss://{front}/"
            async with ws.connect(url, client=None if reverse else client) as socket:
                await converse(socket)
    assert carriers == (["h2"] if kept else ["h2", "http/1.1", "http/1.1"])


PAGE = f"""<!doctype html><script>{FETCHES}
echo().then(heard => text("/result?" + heard), () => text("/result?failed"))
</script>"""


@pytest.mark.peer
async def test_chromium_through_a_reverse_proxy(tmp_path: Path) -> None:
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def page(request: Request) -> Response:
        if request.path.startswith("/result?"):
            result.set_result(request.path[8:])
        return Response(headers={"Content-Type": "text/html"}, body=PAGE if request.path == "/" else b"")

    async with site() as there, http.client(tls=trusting()) as client:
        there.page = page
        cert, key = pair_files("localhost")
        proxy = http.reverse_proxy(f"https:{there.url}", client=client)
        async with serving(proxy, tls.server(cert, key)) as address:
            url = f"https://localhost:{address.rpartition(':')[2]}/"
            trust = f"--ignore-certificate-errors-spki-list={fingerprint(cert)}"
            async with chromium(url, tmp_path, trust, "--no-proxy-server"), asyncio.timeout(30):
                assert await result == "hi"
    assert ("2", "CONNECT", "websocket") in there.requests
    assert set(there.alpn) == {"h2"}

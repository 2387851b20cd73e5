"""WebSockets through the proxies that pass them on untouched, with clients and servers that are not ours."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as peer_connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as peer_serve

from llama import http, mitm, stack, tls, ws
from llama.ws import Message
from tests.ws.talking import echo, raw, serving


async def say_back(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def backend(**options: Any) -> AsyncGenerator[str]:
    """A server of the `websockets` library."""
    async with peer_serve(say_back, "127.0.0.1", 0, **options) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, tuple[Path, Path]]:
    """The authority's file, and a certificate for localhost with its key."""
    authority = tls.CertificateAuthority.create()
    authority.write_pem(tmp_path / "ca.pem")
    return tmp_path / "ca.pem", authority.issue("localhost").write(tmp_path)


MESSAGES: list[str | bytes] = ["hello", b"bytes", "", "ä" * 100_000, bytes(range(256)) * 3000]


async def converse(connection: Any) -> None:
    for message in MESSAGES:
        await connection.send(message)
        assert await connection.recv() == message
    await connection.send(["in ", "frag", "ments"])
    assert await connection.recv() == "in fragments"
    await (await connection.ping())
    await connection.close(4001, "bye")
    assert connection.close_code == 4001


async def test_a_reverse_proxy_passes_it_on() -> None:
    async with (
        backend() as address,
        serving(http.reverse_proxy(f"http://{address}")) as front,
        peer_connect(f"ws://{front}/") as connection,
    ):
        await converse(connection)


async def test_a_reverse_proxy_passes_it_on_from_tls_to_tls(pair: tuple[Path, tuple[Path, Path]]) -> None:
    ca, files = pair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    async with backend(ssl=context) as address:
        client = http.client(tls=tls.connect(ca=ca))
        port = address.rpartition(":")[2]
        proxy = http.reverse_proxy(f"https://localhost:{port}", client=client)
        async with serving(proxy, tls.server(*files)) as front:
            trust = ssl.create_default_context(cafile=str(ca))
            url = f"wss://localhost:{front.rpartition(':')[2]}/"
            async with peer_connect(url, ssl=trust) as connection:
                await converse(connection)


async def test_a_forward_proxy_passes_it_on_by_connect() -> None:
    async with (
        backend() as address,
        serving(http.proxy()) as front,
        peer_connect(f"ws://{address}/", proxy=f"http://{front}") as connection,
    ):
        await converse(connection)


async def test_a_forward_proxy_passes_tls_on_by_connect(pair: tuple[Path, tuple[Path, Path]]) -> None:
    ca, files = pair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    trust = ssl.create_default_context(cafile=str(ca))
    async with (
        backend(ssl=context) as address,
        serving(http.proxy(), tls.server(*files)) as front,
        peer_connect(
            f"wss://localhost:{address.rpartition(':')[2]}/",
            proxy=f"https://localhost:{front.rpartition(':')[2]}",
            ssl=trust,
            proxy_ssl=trust,
        ) as connection,
    ):
        await converse(connection)


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("inspected", [False, True])
async def test_a_forward_proxy_passes_it_on_by_a_whole_url(scheme: str, inspected: bool) -> None:
    seen: list[object] = []

    def note(message: Message) -> Message:
        seen.append(message.data)
        return message

    proxy = stack(ws.inspect(note), http.proxy()) if inspected else http.proxy()
    async with backend() as address, serving(proxy) as front, raw(front) as client:
        head = await client.open(path=f"{scheme}://{address}/", host=address)
        assert head.startswith(b"HTTP/1.1 101 ")
        await client.say(client.frames.message("hello"))
        assert await client.hear() == "hello"
    assert seen == (["hello", "hello"] if inspected else [])


async def test_bytes_pass_untouched() -> None:
    """Even what is no WebSocket once the upstream has agreed to one."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def upstream(request: http.Request) -> http.Response:
        async def speak(stream: Any) -> None:
            heard.put_nowait(await stream.read())
            await stream.write(b"\xff\xff\xff")

        assert request.headers["sec-websocket-extensions"] == "x-what; a=b"
        return http.Response(
            101, {"Sec-WebSocket-Accept": "x", "Sec-WebSocket-Extensions": "x-what"}, upgrade=speak
        )

    async with (
        serving(upstream) as address,
        serving(http.reverse_proxy(f"http://{address}")) as front,
        raw(front) as client,
    ):
        head = await client.open("Sec-WebSocket-Extensions: x-what; a=b")
        assert b"Sec-WebSocket-Accept: x\r\n" in head and b"Extensions: x-what\r\n" in head
        await client.say(b"\0no frame at all")
        assert await heard.get() == b"\0no frame at all"
        assert await client.stream.read() == b"\xff\xff\xff"
        assert await client.stream.read() == b""


@pytest.mark.parametrize("inspected", [False, True])
async def test_aiohttp_is_served(inspected: bool) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    layer = ws.inspect(lambda message: message)
    upstream = stack(ws.server(subprotocols=["chat"]), echo)
    async with serving(upstream) as address:
        proxy = http.reverse_proxy(f"http://{address}")
        async with serving(layer(proxy) if inspected else proxy) as front, aiohttp.ClientSession() as session:
            options = {"protocols": ["chat"], "compress": 15, "autoping": True}
            async with session.ws_connect(f"http://{front}/", **options) as connection:
                assert connection.protocol == "chat" and connection.compress
                await connection.send_str("hello")
                assert await connection.receive_str() == "hello"
                await connection.send_bytes(b"x" * 100_000)
                assert await connection.receive_bytes() == b"x" * 100_000
                await connection.close(code=4002, message=b"bye")
                assert connection.close_code == 4002


async def test_an_intercepting_proxy_shows_messages_to_a_hook(tmp_path: Path) -> None:
    seen: list[tuple[object, bool]] = []

    def hook(message: Message) -> Message:
        seen.append((message.data, message.from_client))
        if isinstance(message.data, str):
            message.data = message.data.replace("cloud", "llama")
        return message

    authority = tls.CertificateAuthority.create()
    authority.write_pem(tmp_path / "ca.pem")
    files = authority.issue("localhost").write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    async with backend(ssl=context) as address:
        proxy = mitm.proxy(authority, ws.inspect(hook), verify=tmp_path / "ca.pem")
        async with (
            serving(proxy) as front,
            peer_connect(
                f"wss://localhost:{address.rpartition(':')[2]}/", proxy=f"http://{front}", ssl=trust
            ) as connection,
        ):
            await connection.send("a cloud")
            assert await connection.recv() == "a llama"
    assert seen == [("a cloud", True), ("a llama", False)]

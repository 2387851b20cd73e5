"""`ws.connect`: through connectors and proxies, and with servers that do not keep to the handshake."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llama import (
    ConfigError,
    ProtocolError,
    RefusedError,
    Stream,
    StreamClosedError,
    TruncatedError,
    UnreachableError,
    http,
    serve,
    socks5,
    stack,
    tcp,
    tls,
    via,
    ws,
)
from llama.http import Request, Response
from llama.ws import WebSocket
from llama.ws._handshake import accept_key
from tests.ws.talking import echo, echoing, serving


async def test_a_conversation() -> None:
    async with echoing(subprotocols=["chat"]) as address:
        async with ws.connect(f"ws://{address}/", subprotocols=["other", "chat"]) as socket:
            assert socket.subprotocol == "chat" and socket.response.status == 101
            assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
            for message in ("hello", b"bytes", "", b"", "a" * 1_000_000, bytes(range(256)) * 1000):
                await socket.send(message)
                assert await socket.receive() == message
            await socket.send(memoryview(b"view"))
            assert await socket.receive() == b"view"
            assert await socket.ping() > 0
            assert socket.close_code is None
        assert socket.close_code == 1000


@pytest.mark.parametrize("compression", [True, False])
async def test_it_goes_through_a_chain_of_proxies(compression: bool) -> None:
    proxy = stack(http.server(), http.proxy())
    async with (
        echoing() as address,
        serve(tcp.server("127.0.0.1:0", socks5.server())) as first,
        serve(tcp.server("127.0.0.1:0", proxy)) as second,
    ):
        chain = via(f"socks5h://{first.addresses[0]}", f"http://{second.addresses[0]}")
        async with ws.connect(f"ws://{address}/", connect=chain, compression=compression) as socket:
            await socket.send("hello")
            assert await socket.receive() == "hello"


async def test_wss_is_over_tls(tmp_path: Path) -> None:
    authority = tls.CertificateAuthority.create()
    authority.write_pem(tmp_path / "ca.pem")
    pair = authority.issue("localhost").write(tmp_path)
    handler = stack(tls.server(*pair), http.server(), ws.server(), echo)
    async with serve(tcp.server("127.0.0.1:0", handler)) as server:
        port = str(server.addresses[0]).rpartition(":")[2]
        secure = tls.connect(ca=tmp_path / "ca.pem")
        async with ws.connect(f"wss://localhost:{port}/", tls=secure) as socket:
            await socket.send("hello")
            assert await socket.receive() == "hello"


async def test_an_exchange_in_this_process_is_spoken_to() -> None:
    async with ws.connect("ws://a/b", client=stack(ws.server(), echo), headers={"X-A": "b"}) as socket:
        await socket.send("hello")
        assert await socket.receive() == "hello"
        assert socket.request.headers["x-a"] == "b"


async def test_a_server_that_closes_ends_the_loop() -> None:
    async def two(socket: WebSocket) -> None:
        await socket.send("one")
        await socket.send("two")

    async with ws.connect("ws://a/", client=stack(ws.server(), two)) as socket:
        assert [message async for message in socket] == ["one", "two"]
        with pytest.raises(StreamClosedError, match="1000"):
            await socket.receive()
        with pytest.raises(StreamClosedError):
            await socket.send("late")
    assert socket.close_code == 1000


async def test_a_server_that_closes_for_another_reason_raises() -> None:
    async def away(socket: WebSocket) -> None:
        await socket.close(4000, "no")

    async with ws.connect("ws://a/", client=stack(ws.server(), away)) as socket:
        with pytest.raises(StreamClosedError, match="4000 no"):
            async for _ in socket:
                pass
    assert (socket.close_code, socket.close_reason) == (4000, "no")


async def test_a_block_that_raises_closes_with_1011() -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def note(socket: WebSocket) -> None:
        with pytest.raises(StreamClosedError):
            await socket.receive()
        codes.put_nowait(socket.close_code)

    with pytest.raises(RuntimeError, match="mine"):
        async with ws.connect("ws://a/", client=stack(ws.server(), note)):
            raise RuntimeError("mine")
    assert await codes.get() == 1011


async def test_a_block_that_is_cancelled_breaks_off() -> None:
    seen: asyncio.Queue[int | None] = asyncio.Queue()

    async def note(socket: WebSocket) -> None:
        with pytest.raises((OSError, TruncatedError)):
            await socket.receive()
        seen.put_nowait(socket.close_code)

    async with serving(stack(ws.server(), note)) as address:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), ws.connect(f"ws://{address}/") as socket:
                await socket.receive()
        assert await seen.get() == 1006


async def test_an_unanswered_close_takes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama.ws._websocket.CLOSE_TIMEOUT", 0.02)
    async with (
        answering("Sec-WebSocket-Accept: {accept}") as address,
        ws.connect(f"ws://{address}/") as socket,
    ):
        await socket.close(1000, "bye")
        with pytest.raises(StreamClosedError):
            await socket.receive()


@asynccontextmanager
async def answering(
    *lines: str, status: str = "101 Switching Protocols", data: bytes = b""
) -> AsyncGenerator[str]:
    """A server that answers the same to any handshake, and then reads what comes."""

    async def handler(stream: Stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.read()
        key = next(
            line[19:] for line in head.decode().split("\r\n") if line.startswith("Sec-WebSocket-Key: ")
        )
        fields = [each.replace("{accept}", accept_key(key)) for each in lines]
        if status.startswith("101"):
            fields += ["Connection: Upgrade", "Upgrade: websocket"]
        answer = "".join(f"{line}\r\n" for line in [f"HTTP/1.1 {status}", *fields, ""])
        await stream.write(answer.encode() + data)
        while await stream.read():
            pass

    async with serve(tcp.server("127.0.0.1:0", handler)) as server:
        yield str(server.addresses[0])


GOOD = "Sec-WebSocket-Accept: {accept}"


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([], "does not match the key"),
        (["Sec-WebSocket-Accept: AAAA"], "does not match the key"),
        ([GOOD, GOOD], "does not match the key"),
        ([GOOD, "Sec-WebSocket-Protocol: what"], "was not offered"),
        ([GOOD, "Sec-WebSocket-Protocol: chat, chat"], "was not offered"),
        ([GOOD, "Sec-WebSocket-Extensions: x-what"], "was not offered"),
        ([GOOD, "Sec-WebSocket-Extensions: permessage-deflate, permessage-deflate"], "was not offered"),
        ([GOOD, "Sec-WebSocket-Extensions: permessage-deflate; a=b"], "permessage-deflate"),
        ([GOOD, "Sec-WebSocket-Extensions: ;"], "malformed"),
    ],
)
async def test_a_server_that_breaks_the_handshake_is_refused(lines: list[str], what: str) -> None:
    async with answering(*lines) as address:
        with pytest.raises(ProtocolError, match=what) as caught:
            async with ws.connect(f"ws://{address}/", subprotocols=["chat"]):
                pass
        assert caught.value.status == 502


@pytest.mark.parametrize(
    ("status", "error"),
    [("403 Forbidden", RefusedError), ("200 OK", UnreachableError), ("500 No", UnreachableError)],
)
async def test_a_response_without_an_upgrade_is_an_error(status: str, error: type[Exception]) -> None:
    async with answering("Content-Length: 0", status=status) as address:
        with pytest.raises(error, match=f"answered {status[:3]}"):
            async with ws.connect(f"ws://{address}/"):
                pass


@pytest.mark.parametrize(
    ("data", "error", "code"),
    [
        (b"\x81\x81\0\0\0\0a", ProtocolError, 1002),
        (b"\x81\x01\xff", ProtocolError, 1007),
        (b"\x82\x7f\0\0\0\0\0\x10\0\1", Exception, 1009),
        (b"\x88\x02\x0f\xa0", StreamClosedError, 4000),
    ],
)
async def test_a_server_that_breaks_the_protocol(
    data: bytes, error: type[Exception], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama.ws._websocket.CLOSE_TIMEOUT", 0.02)
    async with answering(GOOD, data=data) as address, ws.connect(f"ws://{address}/") as socket:
        with pytest.raises(error):
            await socket.receive()
        assert socket.close_code == code


@pytest.mark.parametrize(
    "url", ["a", "ftp://a/", "ws://", "ws://user@a/", "ws:///x", "ws://a/#b", "ws://a b/"]
)
async def test_an_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(ConfigError, match="is no WebSocket"):
        async with ws.connect(url):
            pass


async def test_an_unreachable_server() -> None:
    with pytest.raises(UnreachableError):
        async with ws.connect("ws://127.0.0.1:1/"):
            pass


async def test_invalid_settings_are_rejected() -> None:
    async def nobody(request: Request) -> Response:
        return Response()

    wrong: list[dict[str, Any]] = [
        {"client": nobody, "connect": tcp.connect()},
        {"subprotocols": ["a b"]},
        {"max_size": 0},
    ]
    for options in wrong:
        with pytest.raises(ConfigError, match=r"ws\.connect"):
            async with ws.connect("ws://a/", **options):
                pass


async def test_the_first_request_to_an_upstream_of_http_2_may_be_a_websocket() -> None:
    async with (
        echoing() as upstream,
        serving(http.reverse_proxy(f"h2c://{upstream}")) as proxy,
        ws.connect(f"ws://{proxy}/") as first,
        ws.connect(f"ws://{proxy}/") as second,
    ):
        for socket in (first, second):
            await socket.send("hello")
            assert await socket.receive() == "hello"

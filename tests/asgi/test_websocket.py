"""ASGI applications over WebSocket, with the client of another protocol engine's other side."""

import asyncio
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from llama import asgi, stack
from llama.http import server
from tests.http.serving import Client, client_of

App = Any


class Socket:
    """A WebSocket client without input or output, over a connection."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.client = client
        self.protocol = ClientProtocol(parse_uri("ws://a/b?c"), **options)
        self.events: list[Any] = []

    async def flush(self) -> None:
        if data := b"".join(self.protocol.data_to_send()):
            await self.client.say(data)

    async def event(self) -> Any:
        while not self.events:
            data = await self.client.stream.read()
            if data:
                self.protocol.receive_data(data)
            else:
                self.protocol.receive_eof()
                return None
            self.events += self.protocol.events_received()
            await self.flush()
        return self.events.pop(0)

    async def ended(self) -> None:
        """Read until the server has closed."""
        while await self.event() is not None:
            pass

    async def open(self) -> Any:
        """Shake hands; the response."""
        self.protocol.send_request(self.protocol.connect())
        await self.flush()
        return await self.event()

    async def send(self, text: str) -> None:
        self.protocol.send_text(text.encode())
        await self.flush()

    async def receive(self) -> Any:
        frame = await self.event()
        assert isinstance(frame, Frame)
        data = bytes(frame.data)
        return data.decode() if frame.opcode is Opcode.TEXT else data


def run(app: App, conversation: Any, **options: Any) -> None:
    async def main() -> None:
        async with client_of(stack(server(), asgi(app, max_message=1000))) as client:
            await conversation(Socket(client, **options))

    asyncio.run(main())


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if "text" in message:
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
    assert message["type"] == "websocket.disconnect"


def test_messages_go_both_ways() -> None:
    async def conversation(socket: Socket) -> None:
        assert (await socket.open()).status_code == 101
        assert socket.protocol.state is State.OPEN
        await socket.send("hell\xf6")
        assert await socket.receive() == "hell\xf6"
        socket.protocol.send_binary(b"\x00\xff")
        await socket.flush()
        assert await socket.receive() == b"\x00\xff"
        socket.protocol.send_close(1000, "done")
        await socket.flush()
        assert await socket.event() is not None
        assert await socket.event() is None
        assert socket.protocol.close_code == 1000

    run(echo, conversation)


def test_fragments_are_one_message_and_pings_are_answered_between_them() -> None:
    async def conversation(socket: Socket) -> None:
        await socket.open()
        socket.protocol.send_text(b"he", fin=False)
        socket.protocol.send_ping(b"you?")
        socket.protocol.send_continuation("ll\xf6".encode()[:3], fin=False)
        socket.protocol.send_continuation("ll\xf6".encode()[3:], fin=True)
        await socket.flush()
        pong = await socket.event()
        assert (pong.opcode, pong.data) == (Opcode.PONG, b"you?")
        assert await socket.receive() == "hell\xf6"

    run(echo, conversation)


def test_messages_are_compressed_when_the_client_offers_it() -> None:
    async def conversation(socket: Socket) -> None:
        response = await socket.open()
        assert "permessage-deflate" in response.headers["Sec-WebSocket-Extensions"]
        await socket.send("a" * 900)
        assert await socket.receive() == "a" * 900

    run(echo, conversation, extensions=[ClientPerMessageDeflateFactory()])


def test_the_application_gets_the_scope_and_selects_the_subprotocol() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": [(b"x-a", b"b")]})
        await send({"type": "websocket.close", "code": 4000, "reason": "over"})

    async def conversation(socket: Socket) -> None:
        response = await socket.open()
        assert response.headers["x-a"] == "b"
        assert socket.protocol.subprotocol == "two"
        await socket.event()
        assert await socket.event() is None
        assert (socket.protocol.close_code, socket.protocol.close_reason) == (4000, "over")

    run(app, conversation, subprotocols=["one", "two"])
    (scope,) = scopes
    assert (scope["type"], scope["scheme"]) == ("websocket", "ws")
    assert (scope["path"], scope["query_string"]) == ("/b", b"c")
    assert scope["subprotocols"] == ["one", "two"]
    assert "websocket.http.response" in scope["extensions"]


def test_an_application_can_refuse() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    async def conversation(socket: Socket) -> None:
        assert (await socket.open()).status_code == 403

    run(app, conversation)


def test_an_application_can_refuse_with_a_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-a", b"b")]}
        await send(start)
        await send({"type": "websocket.http.response.body", "body": b"who are ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"you?"})

    async def conversation(socket: Socket) -> None:
        socket.protocol.send_request(socket.protocol.connect())
        await socket.flush()
        await socket.client.hear(
            b"HTTP/1.1 401 Unauthorized\r\nx-a: b\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"8\r\nwho are \r\n4\r\nyou?\r\n0\r\n\r\n"
        )

    run(app, conversation)


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("x"), 500), (None, 500)])
def test_an_application_that_answers_nothing_is_an_internal_error(error: Any, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if error is not None:
            raise error

    async def conversation(socket: Socket) -> None:
        assert (await socket.open()).status_code == status

    run(app, conversation)


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("x"), 1011), (None, 1000)])
def test_an_application_that_ends_closes(error: Any, code: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        if error is not None:
            raise error

    async def conversation(socket: Socket) -> None:
        await socket.open()
        await socket.ended()
        assert socket.protocol.close_code == code

    run(app, conversation)


@pytest.mark.parametrize("leave", ["abort", "close"])
def test_an_application_receives_the_disconnect_of_the_client(leave: str) -> None:
    seen: list[Any] = []
    over = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        seen.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "anybody?"})
        except OSError:
            seen.append("error")
        over.set()

    async def conversation(socket: Socket) -> None:
        await socket.open()
        if leave == "abort":
            socket.client.stream.abort()
        else:
            socket.protocol.send_close(4001, "bye")
            await socket.flush()
        await over.wait()

    run(app, conversation)
    left = {"code": 1006, "reason": ""} if leave == "abort" else {"code": 4001, "reason": "bye"}
    assert seen == [{"type": "websocket.disconnect", **left}] * 2 + ["error"]


def test_protocol_errors_close_the_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama.ws._websocket.CLOSE_TIMEOUT", 0.05)

    async def long(socket: Socket) -> None:
        await socket.open()
        await socket.send("a" * 1001)
        await socket.ended()
        assert socket.protocol.close_code == 1009

    async def no_text(socket: Socket) -> None:
        await socket.open()
        socket.protocol.send_text(b"\xff")
        await socket.flush()
        await socket.ended()
        assert socket.protocol.close_code == 1007

    async def unmasked(socket: Socket) -> None:
        await socket.open()
        await socket.client.say(b"\x81\x01a")
        await socket.ended()
        assert socket.protocol.close_code == 1002

    for conversation in (long, no_text, unmasked):
        run(echo, conversation)


def test_a_client_that_sends_faster_than_the_application_reads_has_to_wait() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go.wait()
        count = 0
        while count < 100:
            message = await receive()
            assert message["text"] == str(count)
            count += 1
        await send({"type": "websocket.send", "text": "all"})

    async def conversation(socket: Socket) -> None:
        await socket.open()
        for number in range(100):
            await socket.send(str(number))
        go.set()
        assert await socket.receive() == "all"

    run(app, conversation)


BAD = [
    ("GET", ["Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="], 426),
    ("GET", ["Sec-WebSocket-Version: 13"], 400),
    ("GET", ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA"], 400),
    ("GET", ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: \xe4"], 400),
    ("POST", ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="], 405),
]


@pytest.mark.parametrize(("method", "lines", "status"), BAD)
def test_a_bad_handshake_is_refused(method: str, lines: list[str], status: int) -> None:
    head = [f"{method} / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: websocket", *lines, "", ""]

    async def conversation(socket: Socket) -> None:
        await socket.client.say("\r\n".join(head).encode("latin-1"))
        data = await socket.client.stream.read()
        assert data.startswith(b"HTTP/1.1 %d " % status)

    run(echo, conversation)

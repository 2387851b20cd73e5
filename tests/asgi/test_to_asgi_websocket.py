"""WebSockets that an ASGI server hands to an exchange: messages on one side, frames on the other."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from llama import RefusedError, Stream, asgi, testing, to_asgi
from llama.http import Request, RequestHandler, Response
from tests.asgi.asgi_server import Call, called, websocket


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers each message by itself, until it is told to stop."""
    assert (await receive())["type"] == "websocket.connect"
    await send(
        {
            "type": "websocket.accept",
            "subprotocol": next(iter(scope["subprotocols"]), None),
            "headers": [(b"x-path", scope["raw_path"])],
        }
    )
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "stop":
            await send({"type": "websocket.close", "code": 4000, "reason": "as you said"})
            return
        text, data = message.get("text"), message.get("bytes")
        await send({"type": "websocket.send", **({"text": text} if text is not None else {"bytes": data})})
    closed.append((message["code"], message.get("reason")))


closed: list[tuple[int, str | None]] = []


@pytest.fixture(autouse=True)
def none_closed() -> None:
    closed.clear()


Talk = Callable[["Peer", Request], Awaitable[None]]


class Peer:
    """The server's end of a WebSocket, frame by frame."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.protocol = ServerProtocol(state=State.OPEN)
        self.frames: list[Frame] = []

    async def flush(self) -> None:
        if data := b"".join(self.protocol.data_to_send()):
            await self.stream.write(data)

    async def frame(self) -> Frame | None:
        while not self.frames:
            if not (data := await self.stream.read()):
                return None
            self.protocol.receive_data(data)
            self.frames += [each for each in self.protocol.events_received() if isinstance(each, Frame)]
        return self.frames.pop(0)


def accepting(talk: Talk, **fields: str) -> RequestHandler:
    """An exchange that accepts every WebSocket, and then talks."""

    async def accept(request: Request) -> Response:
        key = request.headers["sec-websocket-key"]
        answer = {"Upgrade": "websocket", "Sec-WebSocket-Accept": accept_key(key), **fields}

        async def run(stream: Stream) -> None:
            await talk(Peer(stream), request)

        return Response(101, answer, upgrade=run)

    return accept


async def connected(call: Call) -> dict[str, Any]:
    call.say("websocket.connect")
    return await call.hear()


async def test_messages_go_both_ways_and_the_close_has_its_code() -> None:
    scope = websocket(
        "/a%20b", (b"sec-websocket-protocol", b"one, two"), path="/a b", subprotocols=["one", "two"]
    )
    async with called(to_asgi(asgi(echo)), scope) as call:
        accepted = await connected(call)
        assert accepted == {
            "type": "websocket.accept",
            "subprotocol": "one",
            "headers": [(b"x-path", b"/a%20b")],
        }
        call.say("websocket.receive", text="h\xe4llo")
        assert await call.hear() == {"type": "websocket.send", "text": "h\xe4llo"}
        call.say("websocket.receive", bytes=bytes(100_000), text=None)
        assert await call.hear() == {"type": "websocket.send", "bytes": bytes(100_000)}
        call.say("websocket.receive", text="stop")
        assert await call.hear() == {"type": "websocket.close", "code": 4000, "reason": "as you said"}


@pytest.mark.parametrize(("code", "heard"), [(4001, 4001), (1005, 1005), (1006, 1001)])
async def test_a_client_that_closes_is_heard_behind(code: int, heard: int) -> None:
    async with called(to_asgi(asgi(echo)), websocket()) as call:
        await connected(call)
        call.leave("websocket.disconnect", code=code, reason="bye" if code == 4001 else None)
    assert closed == [(heard, "bye" if code == 4001 else "")]


async def test_the_handshake_has_its_own_key() -> None:
    requests: list[Request] = []

    async def talk(peer: Peer, request: Request) -> None:
        requests.append(request)

    fields = [
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"cookie", b"a=b"),
    ]
    async with called(to_asgi(accepting(talk)), websocket("/", *fields, scheme="wss")) as call:
        assert (await connected(call))["headers"] == []
        assert await call.hear() == {"type": "websocket.close", "code": 1011, "reason": ""}
    (request,) = requests
    assert (request.method, request.upgrade_protocol, request.scheme) == ("GET", "websocket", "https")
    names = [name.lower() for name, _ in request.headers]
    assert names == ["host", "cookie", "sec-websocket-version", "sec-websocket-key"]
    assert request.headers["sec-websocket-key"] != "dGhlIHNhbXBsZSBub25jZQ=="


async def test_fragments_are_one_message_and_pings_are_answered_here() -> None:
    async def talk(peer: Peer, request: Request) -> None:
        peer.protocol.send_text(b"one ", fin=False)
        peer.protocol.send_ping(b"?")
        peer.protocol.send_continuation(b"two", fin=True)
        await peer.flush()
        pong = await peer.frame()
        assert pong is not None
        assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"?")
        peer.protocol.send_close(1000)
        await peer.flush()
        answer = await peer.frame()
        assert answer is not None
        assert answer.opcode is Opcode.CLOSE
        assert await peer.frame() is None

    async with called(to_asgi(accepting(talk)), websocket()) as call:
        await connected(call)
        assert await call.hear() == {"type": "websocket.send", "text": "one two"}
        assert await call.hear() == {"type": "websocket.close", "code": 1000, "reason": ""}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x7f" + (2000).to_bytes(8, "big"), 1009),
        (b"\x81\x02\xff\xff", 1011),
        (b"\xf1\x00", 1002),
    ],
)
async def test_protocol_errors_end_both_sides(frame: bytes, code: int) -> None:
    heard: list[Any] = []

    async def talk(peer: Peer, request: Request) -> None:
        await peer.stream.write(frame)
        heard.append(await peer.frame())
        heard.append(await peer.frame())

    async with called(to_asgi(accepting(talk), max_message=1000), websocket()) as call:
        await connected(call)
        assert (await call.hear())["code"] == code
    assert heard[0].opcode is Opcode.CLOSE
    assert heard[1] is None


async def test_a_reset_of_the_upstream_closes_with_1011() -> None:
    async def talk(peer: Peer, request: Request) -> None:
        raise ConnectionResetError("gone")

    async with called(to_asgi(accepting(talk)), websocket()) as call:
        await connected(call)
        assert await call.hear() == {"type": "websocket.close", "code": 1011, "reason": ""}


async def test_an_upstream_that_does_not_close_times_out() -> None:
    heard: list[Any] = []

    async def talk(peer: Peer, request: Request) -> None:
        heard.append(await peer.frame())
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            heard.append("cancelled")

    async with testing.clock() as clock, called(to_asgi(accepting(talk)), websocket()) as call:
        await connected(call)
        call.leave("websocket.disconnect", code=1000)
        await clock.advance(0.9)
        assert len(heard) == 1
        await clock.advance(0.2)
        await call.over()
    assert (heard[0].opcode, heard[1]) == (Opcode.CLOSE, "cancelled")


# answers that are no upgrade


@pytest.mark.parametrize("may_deny", [True, False])
async def test_a_denial(may_deny: bool) -> None:
    async def refuse(request: Request) -> Response:
        raise RefusedError("not you")

    extensions: Any = {"websocket.http.response": {}} if may_deny else {}
    async with called(to_asgi(refuse), websocket(extensions=extensions)) as call:
        first = await connected(call)
        if may_deny:
            assert (first["type"], first["status"]) == ("websocket.http.response.start", 403)
            assert (await call.hear())["body"] == b"403 Forbidden: not you\n"
            assert (await call.hear())["more_body"] is False
        else:
            assert first["type"] == "websocket.close"


async def test_a_wrong_accept_is_502() -> None:
    async def talk(peer: Peer, request: Request) -> None:
        raise AssertionError

    for fields in ({"Sec-WebSocket-Accept": "other"}, {"Sec-WebSocket-Extensions": "permessage-deflate"}):
        app = to_asgi(accepting(talk, **fields))
        async with called(app, websocket(extensions={"websocket.http.response": {}})) as call:
            assert (await connected(call))["status"] == 502


async def test_a_client_that_leaves_before_the_answer_cancels_the_exchange() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        return Response()

    async with called(to_asgi(slow), websocket()) as call:
        call.say("websocket.connect")
        await begun.wait()
        call.leave("websocket.disconnect", code=1006)
        await call.over()
        assert cancelled.is_set()
        assert call.sent.empty()


async def test_a_bug_is_raised() -> None:
    async def talk(peer: Peer, request: Request) -> None:
        raise LookupError("a bug")

    with pytest.RaisesGroup(LookupError):
        async with called(to_asgi(accepting(talk)), websocket()) as call:
            await connected(call)
            assert (await call.hear())["code"] == 1011
            await call.over()

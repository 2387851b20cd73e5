"""`ws.inspect`: what hooks see, change, drop and say, and what both sides get to hear."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect as peer_connect

from llama import StreamClosedError, Target, describe, http, serve, stack, tcp, ws
from llama.http import Request, RequestHandler, Response
from llama.ws import Hook, Message, RelayedWebSocket, WebSocket
from llama.ws._wire import Close, Ping, Pong
from tests.ws.talking import ACCEPT, Raw, echo, handshake, raw, serving
from tests.ws.test_wire import fragments


def same(message: Message) -> Message:
    return message


@asynccontextmanager
async def inspecting(hook: Hook, upstream: RequestHandler, **options: object) -> AsyncGenerator[str]:
    """A reverse proxy with a hook, in front of an upstream; gives the proxy's address."""
    async with serving(upstream) as address:
        proxy = stack(ws.inspect(hook, **options), http.reverse_proxy(f"http://{address}"))  # type: ignore[arg-type]
        async with serving(proxy) as front:
            yield front


class Backend:
    """An upstream whose raw end the test holds."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[WebSocket] = asyncio.Queue()
        self.done = asyncio.Event()

    async def __call__(self, socket: WebSocket) -> None:
        self.opened.put_nowait(socket)
        await self.done.wait()


async def test_messages_are_seen_changed_and_dropped_both_ways() -> None:
    seen: list[tuple[str | bytes, bool]] = []

    def hook(message: Message) -> Message | None:
        seen.append((message.data, message.from_client))
        if message.data == "drop":
            return None
        if isinstance(message.data, str):
            message.data += "!"
        return message

    async with inspecting(hook, stack(ws.server(), echo)) as front, ws.connect(f"ws://{front}/") as socket:
        for each in ("drop", "hello", b"bytes"):
            await socket.send(each)
        assert [await socket.receive(), await socket.receive()] == ["hello!!", b"bytes"]
    assert [each for each in seen if each[1]] == [("drop", True), ("hello", True), (b"bytes", True)]
    assert [each for each in seen if not each[1]] == [("hello!", False), (b"bytes", False)]


async def test_an_async_hook_keeps_the_order() -> None:
    async def slow(message: Message) -> Message:
        for _ in range(3):
            await asyncio.sleep(0)
        return message

    async with inspecting(slow, stack(ws.server(), echo)) as front, ws.connect(f"ws://{front}/") as socket:
        for number in range(50):
            await socket.send(str(number))
        assert [await socket.receive() for _ in range(50)] == [str(number) for number in range(50)]


async def test_a_hook_sends_messages() -> None:
    async def greet(conversation: RelayedWebSocket) -> None:
        await conversation.send_to_client("welcome")
        await conversation.send_to_server("a client has come")

    async def answer(message: Message) -> Message | None:
        if message.data == "who?":
            await message.websocket.send_to_client(f"this is {message.websocket.request.path}")
            return None
        return message

    async with (
        inspecting(answer, stack(ws.server(), echo), on_open=greet) as front,
        ws.connect(f"ws://{front}/proxy") as socket,
    ):
        assert {await socket.receive(), await socket.receive()} == {"welcome", "a client has come"}
        await socket.send("who?")
        assert await socket.receive() == "this is /proxy"


async def test_messages_of_a_hook_keep_their_order() -> None:
    async def twice(message: Message) -> Message:
        if message.from_client:
            await message.websocket.send_to_server(f"before {message.data!s}")
        return message

    async with inspecting(twice, stack(ws.server(), echo)) as front, raw(front) as client:
        await client.open("Sec-WebSocket-Extensions: x-none")
        await client.say(client.frames.message("a") + client.frames.message("b"))
        assert [await client.hear() for _ in range(4)] == ["before a", "a", "before b", "b"]


async def test_a_hook_closes() -> None:
    closed: list[tuple[int | None, str]] = []

    def end(message: Message) -> Message:
        message.websocket.close(4003, "enough")
        return message

    def note(conversation: RelayedWebSocket) -> None:
        closed.append((conversation.close_code, conversation.close_reason))

    backend = Backend()
    async with inspecting(end, stack(ws.server(), backend), on_close=note) as front, raw(front) as client:
        await client.open()
        await client.say(client.frames.message("a"))
        server = await backend.opened.get()
        with pytest.raises(StreamClosedError, match="4003 enough"):
            while True:
                await server.receive()
        while (event := await client.hear()) != Close(4003, "enough"):
            assert event == "a"
        await client.say(client.frames.close(4003))
        assert await client.hear() is None
        backend.done.set()
    assert closed == [(4003, "enough")]


@pytest.mark.parametrize("upstream_compresses", [True, False])
@pytest.mark.parametrize("offer", ["", "permessage-deflate; client_max_window_bits, x-what; a=b", "x-what"])
async def test_negotiation_of_extensions(offer: str, upstream_compresses: bool) -> None:
    asked: list[str | None] = []

    async def upstream(request: Request) -> Response:
        asked.append(request.headers.get("sec-websocket-extensions"))
        return await inner(request)

    inner = stack(ws.server(compression=upstream_compresses), echo)
    lines = [f"Sec-WebSocket-Extensions: {offer}"] if offer else []
    async with inspecting(same, upstream) as front, raw(front) as client:
        head = (await client.open(*lines)).decode()
        await client.say(client.frames.message("plain is always allowed"))
    deflate = "permessage-deflate" in offer
    assert asked == ["permessage-deflate; client_max_window_bits" if deflate else None]
    assert ("permessage-deflate" in head) is (deflate and upstream_compresses)
    assert "x-what" not in head


async def test_an_upgrade_to_another_protocol_is_not_forwarded() -> None:
    asked: list[str] = []

    async def upstream(request: Request) -> Response:
        asked.append(request.upgrade_protocol + "/" + request.headers["upgrade"])
        return Response(404)

    head = handshake().replace(b"Upgrade: websocket", b"Upgrade: x-what, websocket")
    async with inspecting(same, upstream) as front, raw(front) as client:
        await client.say(head)
        assert (await client.stream.read()).startswith(b"HTTP/1.1 404 ")
    assert asked == ["websocket/websocket"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Version: 13", b"Version: 14"), 426),
        ((b"Key: ", b"Key: AAAA"), 400),
        ((b"GET ", b"PUT "), 405),
        ((b"Host: a", b"Host: a\r\nSec-WebSocket-Extensions: ;;"), 400),
    ],
)
async def test_a_bad_handshake_goes_no_further(change: tuple[bytes, bytes], status: int) -> None:
    async def upstream(request: Request) -> Response:
        raise AssertionError

    async with inspecting(same, upstream) as front, raw(front) as client:
        await client.say(handshake().replace(*change))
        assert (await client.stream.read()).startswith(b"HTTP/1.1 %d " % status)


async def test_other_requests_and_refusals_pass() -> None:
    async def upstream(request: Request) -> Response:
        return Response(403 if request.upgrade_protocol else 200, body=b"page")

    async with inspecting(same, upstream) as front:
        async with raw(front) as client:
            await client.say(handshake())
            assert (await client.stream.read()).startswith(b"HTTP/1.1 403 ")
        async with raw(front) as client:
            await client.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.stream.read()).endswith(b"\r\n\r\npage")


@pytest.mark.parametrize(
    "field",
    [
        {},
        {"Sec-WebSocket-Accept": "AAAA"},
        {"Sec-WebSocket-Accept": ACCEPT, "Sec-WebSocket-Extensions": "x-what"},
    ],
)
async def test_an_upstream_that_breaks_the_handshake_is_a_bad_gateway(field: dict[str, str]) -> None:
    async def upstream(request: Request) -> Response:
        async def never(stream: object) -> None:
            pass

        return Response(101, field, upgrade=never)

    async with inspecting(same, upstream) as front, raw(front) as client:
        await client.say(handshake())
        assert (await client.stream.read()).startswith(b"HTTP/1.1 502 ")


async def test_pings_pongs_and_closes_pass_on() -> None:
    backend = Backend()
    closed: list[tuple[int | None, str]] = []

    def note(conversation: RelayedWebSocket) -> None:
        closed.append((conversation.close_code, conversation.close_reason))

    async with inspecting(same, stack(ws.server(), backend), on_close=note) as front, raw(front) as client:
        await client.open()
        server = await backend.opened.get()
        await client.say(client.frames.ping(b"over there?"))
        assert await client.hear() == Pong(b"over there?")  # one: the server's
        async with asyncio.TaskGroup() as group:
            ping = group.create_task(server.ping())
            event = await client.hear()
            assert isinstance(event, Ping)
            await client.say(client.frames.pong(event.data))
            assert await ping > 0
        await client.say(client.frames.close(4001, "bye"))
        assert await client.hear() == Close(4001, "")
        assert (server.close_code, server.close_reason) == (4001, "bye")
        backend.done.set()
        assert await client.hear() is None
    assert closed == [(4001, "bye")]


@pytest.mark.parametrize("code", [1000, 1005, 3000, 4999])
async def test_the_servers_close_code_survives(code: int) -> None:
    async def end(socket: WebSocket) -> None:
        await socket.close(code, "" if code == 1005 else "over")

    async with inspecting(same, stack(ws.server(), end)) as front, raw(front) as client:
        await client.open()
        assert await client.hear() == Close(code, "" if code == 1005 else "over")
        await client.say(client.frames.close(code))
        assert await client.hear() is None


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("how", ["end", "break"])
async def test_a_disconnect_without_a_close_ends_the_other_side(side: str, how: str) -> None:
    backend = Backend()
    closed: list[int | None] = []

    def note(conversation: RelayedWebSocket) -> None:
        closed.append(conversation.close_code)

    async with inspecting(same, stack(ws.server(), backend), on_close=note) as front, raw(front) as client:
        await client.open()
        server = await backend.opened.get()
        leaving = client.stream if side == "client" else server._end.stream
        if how == "end":
            await leaving.aclose()
        else:
            leaving.abort()
        if side == "client":
            with pytest.raises((EOFError, OSError)):
                await server.receive()
            assert server.close_code == 1006
        else:
            try:
                assert await client.hear() is None
            except OSError:
                assert how == "break"
        backend.done.set()
    assert closed == [1006]


BAD = [
    (b"\x81\x05hello", 1002),
    (b"\x81\x81\0\0\0\0\xff", 1007),
    (b"\x82\xfe\x03\xe9\0\0\0\0", 1009),
    (b"\xc1\x81\0\0\0\0a", 1002),
    (b"\x88\x82\0\0\0\0\x03\xe7", 1002),
]


@pytest.mark.parametrize(("said", "code"), BAD)
async def test_protocol_errors_close_both_sides(said: bytes, code: int) -> None:
    backend = Backend()
    async with inspecting(same, stack(ws.server(), backend), max_size=1000) as front, raw(front) as client:
        await client.open()
        server = await backend.opened.get()
        await client.say(client.frames.message("last words") + said)
        assert await server.receive() == "last words"
        with pytest.raises(StreamClosedError, match=str(code)):
            await server.receive()
        event = await client.hear()
        assert isinstance(event, Close) and event.code == code and event.reason
        assert await client.hear() is None
        backend.done.set()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("from_client", [False, True])
async def test_a_hook_that_raises_ends_its_conversation_alone(
    is_async: bool, from_client: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: Message) -> Message:
        if message.data == "fail" and message.from_client is from_client:
            raise RuntimeError("a bug")
        return message

    async def fail_later(message: Message) -> Message:
        await asyncio.sleep(0)
        return fail(message)

    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def noting(socket: WebSocket) -> None:
        try:
            await echo(socket)
        finally:
            codes.put_nowait(socket.close_code)

    async with (
        inspecting(fail_later if is_async else fail, stack(ws.server(), noting)) as front,
        ws.connect(f"ws://{front}/") as other,
    ):
        async with ws.connect(f"ws://{front}/") as socket:
            await socket.send("fail")
            with pytest.raises(StreamClosedError, match="1011"):
                await socket.receive()
            assert await codes.get() == 1011
        await other.send("still here")
        assert await other.receive() == "still here"
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.exc_info is not None and "a bug" in str(record.exc_info[1])


@pytest.mark.parametrize("which", ["on_open", "on_close"])
async def test_a_watcher_that_raises_is_logged_once(which: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(conversation: RelayedWebSocket) -> None:
        raise RuntimeError("a bug")

    async with (
        inspecting(same, stack(ws.server(), echo), **{which: fail}) as front,
        ws.connect(f"ws://{front}/") as socket,
    ):
        if which == "on_open":
            with pytest.raises(StreamClosedError, match="1011"):
                await socket.receive()
        else:
            await socket.send("a")
            assert await socket.receive() == "a"
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.exc_info is not None and "a bug" in str(record.exc_info[1])


async def test_a_hook_that_returns_another_type_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        inspecting(lambda message: "text", stack(ws.server(), echo)) as front,  # type: ignore[arg-type,return-value]
        ws.connect(f"ws://{front}/") as socket,
    ):
        await socket.send("a")
        with pytest.raises(StreamClosedError, match="1011"):
            await socket.receive()
    assert [each.levelno for each in caplog.records if each.levelno >= logging.WARNING] == [logging.ERROR]


@pytest.mark.parametrize("from_client", [True, False])
async def test_a_slow_reader_applies_backpressure(from_client: bool) -> None:
    backend = Backend()
    message = b"a" * 60_000
    async with (
        inspecting(same, stack(ws.server(compression=False), backend)) as front,
        ws.connect(f"ws://{front}/", compression=False) as client,
    ):
        server = await backend.opened.get()
        writer, reader = (client, server) if from_client else (server, client)
        sent = 0
        while sent < 2000:
            try:
                async with asyncio.timeout(0.3):
                    await writer.send(message)
            except TimeoutError:
                break
            sent += 1
        assert sent < 1000
        for _ in range(sent):
            assert await reader.receive() == message
        backend.done.set()


async def test_a_stop_closes_both_with_1001() -> None:
    backend = Backend()
    async with serving(stack(ws.server(), backend)) as address:
        proxy = stack(http.server(), ws.inspect(same), http.reverse_proxy(f"http://{address}"))
        async with serve(tcp.server("127.0.0.1:0", proxy)) as front:
            stream = await tcp.connect()(Target.parse(str(front.addresses[0])))
            client = Raw(stream)
            await client.open()
            server = await backend.opened.get()
        # the block has drained: the proxy did not wait for a client that answers nothing
        assert await client.hear() == Close(1001, "the server is going away")
        with pytest.raises(StreamClosedError, match="1001"):
            await server.receive()
        backend.done.set()
        stream.abort()


async def test_through_a_forward_proxy() -> None:
    seen: list[str | bytes] = []

    def note(message: Message) -> Message:
        seen.append(message.data)
        return message

    async with (
        serving(stack(ws.server(), echo)) as address,
        serving(stack(ws.inspect(note), http.proxy())) as front,
        raw(front) as client,
    ):
        await client.open(path=f"http://{address}/", host=address)
        await client.say(client.frames.message("hello"))
        assert await client.hear() == "hello"
    assert seen == ["hello", "hello"]


async def test_hooks_in_a_row_and_an_exchange_in_this_process() -> None:
    def first(message: Message) -> Message:
        message.data = f"{message.data!s}1"
        return message

    def second(message: Message) -> Message:
        message.data = f"{message.data!s}2"
        return message

    exchange = stack(ws.inspect(first), ws.inspect(second), ws.server(), echo)
    assert describe(exchange) == "ws.inspect() > ws.inspect() > ws.server() > echo"
    async with ws.connect("ws://a/", client=exchange) as socket:
        await socket.send("x")
        assert await socket.receive() == "x1221"


async def test_an_unmodified_client_is_served() -> None:
    async with inspecting(same, stack(ws.server(subprotocols=["chat"]), echo)) as front:
        async with peer_connect(f"ws://{front}/", subprotocols=["chat"], max_size=None) as peer:  # type: ignore[list-item]
            assert peer.subprotocol == "chat"
            for message in ("hello", b"x" * 1_000_000, ["in ", "frag", "ments"]):
                await peer.send(message)
                assert await peer.recv() == ("".join(message) if isinstance(message, list) else message)
            await (await peer.ping())
        assert peer.close_code == 1000


messages = st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200)), max_size=5)


@settings(deadline=None, max_examples=20)
@given(st.data(), messages)
def test_any_fragments_come_out_as_the_messages_they_are(
    data: st.DataObject, said: list[str | bytes]
) -> None:
    draw = data.draw
    bytes_said = b"".join(
        fragments(draw, each.encode(), 1, None) if isinstance(each, str) else fragments(draw, each, 2, None)
        for each in said
    )
    step = draw(st.integers(1, 300))
    seen: list[str | bytes] = []

    def note(message: Message) -> Message:
        if message.from_client:
            seen.append(message.data)
        return message

    async def main() -> list[object]:
        heard: list[object] = []
        async with inspecting(note, stack(ws.server(), echo)) as front, raw(front) as client:
            await client.open()
            for start in range(0, len(bytes_said), step):
                await client.say(bytes_said[start : start + step])
            while len(heard) < len(said):
                event = await client.hear()
                if not isinstance(event, Pong):
                    heard.append(event)
        return heard

    assert asyncio.run(main()) == said == seen

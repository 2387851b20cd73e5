"""`ws.server`: what its handler and its clients get to hear."""

import asyncio
import logging

import pytest

from llama import ConfigError, StreamClosedError, Target, describe, http, serve, stack, tcp, testing, ws
from llama.http import Request, Response
from llama.ws import WebSocket
from llama.ws._wire import Close, Ping, Pong
from tests.ws.talking import KEY, Raw, echo, echoing, raw, serving

HURTS = [
    (b"\x81\x05hello", 1002),  # not masked
    (b"\xc1\x81\0\0\0\0a", 1002),
    (b"\x83\x81\0\0\0\0a", 1002),
    (b"\x81\x81\0\0\0\0\xff", 1007),
    (b"\x82\xfe\x03\xe9\0\0\0\0", 1009),
    (b"\x88\x81\0\0\0\0a", 1002),
]


@pytest.mark.parametrize(("said", "code"), HURTS)
async def test_protocol_errors_are_closed_with_a_code(said: bytes, code: int) -> None:
    seen: list[object] = []

    async def note(socket: WebSocket) -> None:
        try:
            while True:
                seen.append(await socket.receive())
        except Exception as error:
            seen.append((type(error).__name__, socket.close_code))
            raise

    async with serving(stack(ws.server(max_size=1000), note)) as address, raw(address) as client:
        await client.open()
        await client.say(b"\x82\x81\0\0\0\0a" + said)
        event = await client.hear()
        assert isinstance(event, Close) and event.code == code
        assert await client.hear() is None
    kind = "TooLargeError" if code == 1009 else "ProtocolError"
    assert seen == [b"a", (kind, code)]


async def test_a_close_is_answered_by_its_code() -> None:
    codes: list[object] = []

    async def note(socket: WebSocket) -> None:
        try:
            await socket.receive()
        except StreamClosedError as error:
            codes.extend((socket.close_code, socket.close_reason, "4001 bye" in str(error)))
        with pytest.raises(StreamClosedError):
            await socket.send("late")

    async with serving(stack(ws.server(), note)) as address, raw(address) as client:
        await client.open()
        await client.say(client.frames.close(4001, "bye"))
        assert await client.hear() == Close(4001, "")
        assert await client.hear() is None
    assert codes == [4001, "bye", True]


@pytest.mark.parametrize("code", [1000, 1001, 1005])
async def test_a_normal_end_ends_the_loop(code: int) -> None:
    ended = asyncio.Event()

    async def note(socket: WebSocket) -> None:
        async for _ in socket:
            pass
        ended.set()

    async with serving(stack(ws.server(), note)) as address, raw(address) as client:
        await client.open()
        await client.say(client.frames.close(code))
        await ended.wait()
        assert await client.hear() == Close(code, "")


async def test_a_client_that_leaves_without_a_close_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    seen: asyncio.Queue[object] = asyncio.Queue()

    async def note(socket: WebSocket) -> None:
        try:
            async for _ in socket:
                pass
        except EOFError:
            seen.put_nowait(socket.close_code)
            raise

    async with serving(stack(ws.server(), note)) as address:
        async with raw(address) as client:
            await client.open()
            await client.stream.aclose()
        assert await seen.get() == 1006
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_a_handler_that_raises_closes_with_1011_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(socket: WebSocket) -> None:
        raise RuntimeError("a bug")

    async with serving(stack(ws.server(), fail)) as address, raw(address) as client:
        await client.open()
        assert await client.hear() == Close(1011, "")
        await client.say(client.frames.close(1011))
        assert await client.hear() is None
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.exc_info is not None and "a bug" in str(record.exc_info[1])


async def test_a_handler_that_only_sends_learns_of_the_close_and_of_pings() -> None:
    ended = asyncio.Event()

    async def tick(socket: WebSocket) -> None:
        try:
            while True:
                await socket.send("tick" * 10_000)
        except StreamClosedError:
            ended.set()

    async with serving(stack(ws.server(), tick)) as address, raw(address) as client:
        await client.open()
        await client.say(client.frames.ping(b"there?"))
        while (event := await client.hear()) != Pong(b"there?"):
            assert event == "tick" * 10_000
        await client.say(client.frames.close(1000))
        while (event := await client.hear()) != Close(1000, ""):
            assert event == "tick" * 10_000
        await ended.wait()


async def test_of_many_pings_at_once_the_last_is_answered() -> None:
    async with echoing() as address, raw(address) as client:
        await client.open()
        await client.say(
            b"".join(client.frames.ping(b"%d" % n) for n in range(50)) + client.frames.message("x")
        )
        pongs: list[object] = []
        while (event := await client.hear()) != "x":
            pongs.append(event)
        assert pongs[-1:] == [Pong(b"49")] or pongs == []
        while not pongs:
            pongs.append(await client.hear())
        assert pongs[-1] == Pong(b"49")


async def test_a_ping_is_measured() -> None:
    took: list[float] = []

    async def measure(socket: WebSocket) -> None:
        took.append(await socket.ping())

    async with serving(stack(ws.server(), measure)) as address, raw(address) as client:
        await client.open()
        ping = await client.hear()
        assert isinstance(ping, Ping)
        await client.say(client.frames.pong(b"of nobody") + client.frames.pong(ping.data))
        assert await client.hear() == Close(1000, "")
    assert len(took) == 1 and took[0] > 0


async def test_a_ping_whose_client_leaves_raises() -> None:
    raised = asyncio.Event()

    async def measure(socket: WebSocket) -> None:
        with pytest.raises(EOFError):
            await socket.ping()
        raised.set()

    async with serving(stack(ws.server(), measure)) as address, raw(address) as client:
        await client.open()
        await client.hear()
        await client.stream.aclose()
        await raised.wait()


async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    go = asyncio.Event()
    seen: list[object] = []

    async def patient(socket: WebSocket) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await socket.receive()
        go.set()
        seen.extend([await socket.receive(), await socket.receive()])

    async with serving(stack(ws.server(), patient)) as address, raw(address) as client:
        await client.open()
        await go.wait()
        await client.say(client.frames.message("one") + client.frames.message("two"))
        await client.hear()
    assert seen == ["one", "two"]


async def test_one_task_receives_at_a_time() -> None:
    async def twice(socket: WebSocket) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(socket.receive())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="one task receives at a time"):
                await socket.receive()

    async with serving(stack(ws.server(), twice)) as address, raw(address) as client:
        await client.open()
        await client.say(client.frames.message("one"))
        assert await client.hear() == Close(1000, "")


async def test_messages_sent_by_many_tasks_stay_whole() -> None:
    async def many(socket: WebSocket) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(socket.send(f"{number:02}" * 50_000))

    async with serving(stack(ws.server(), many)) as address, raw(address) as client:
        await client.open()
        heard = {await client.hear() for _ in range(20)}
        assert heard == {f"{number:02}" * 50_000 for number in range(20)}


async def test_a_client_that_sends_faster_than_it_is_read_has_to_wait() -> None:
    go = asyncio.Event()

    async def wait(socket: WebSocket) -> None:
        await go.wait()
        async for _ in socket:
            pass

    message = b"a" * 60_000
    async with serving(stack(ws.server(), wait)) as address, raw(address) as client:
        await client.open()
        sent = 0
        try:
            while sent < 2000:
                async with asyncio.timeout(0.3):
                    await client.say(client.frames.message(message))
                sent += 1
        except TimeoutError:
            pass
        assert sent < 1000
        go.set()


async def test_a_client_that_does_not_read_makes_the_sender_wait() -> None:
    sent: list[int] = []
    stuck = asyncio.Event()

    async def flood(socket: WebSocket) -> None:
        try:
            for number in range(2000):
                async with asyncio.timeout(0.3):
                    await socket.send(b"a" * 60_000)
                sent.append(number)
        except TimeoutError:
            stuck.set()

    async with serving(stack(ws.server(), flood)) as address, raw(address) as client:
        await client.open()
        await stuck.wait()
        assert len(sent) < 1000
        client.stream.abort()


@pytest.mark.parametrize("answers", [True, False])
async def test_closing_ends_the_iteration(answers: bool, caplog: pytest.LogCaptureFixture) -> None:
    codes: asyncio.Queue[object] = asyncio.Queue()

    async def close_later(socket: WebSocket) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(socket.close(4000, "enough"))
            assert [message async for message in socket] == []
        codes.put_nowait(socket.close_code)

    async with serving(stack(ws.server(), close_later)) as address, raw(address) as client:
        await client.open()
        assert await client.hear() == Close(4000, "enough")
        if answers:
            await client.say(client.frames.close(4000))
        else:
            await client.stream.aclose()
        assert await codes.get() == (4000 if answers else 1006)
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_a_peer_that_answers_no_pings_is_disconnected() -> None:
    seen: asyncio.Queue[object] = asyncio.Queue()

    async def note(socket: WebSocket) -> None:
        with pytest.raises(TimeoutError, match="no answer to a ping"):
            await socket.receive()
        seen.put_nowait(socket.close_code)

    layer = ws.server(ping_interval=0.05, ping_timeout=0.05)
    async with serving(stack(layer, note)) as address, raw(address) as client:
        await client.open()
        assert await client.hear() == Ping(b"")
        assert await seen.get() == 1006


async def test_a_peer_that_answers_pings_is_kept() -> None:
    async with echoing(ping_interval=0.02, ping_timeout=10) as address, raw(address) as client:
        await client.open()
        for _ in range(3):
            assert await client.hear() == Ping(b"")
            await client.say(client.frames.pong(b""))
        await client.say(client.frames.message("hello"))
        while (event := await client.hear()) != "hello":
            assert event == Ping(b"")


async def test_a_stop_closes_with_1001() -> None:
    inside = asyncio.Event()

    async def wait(socket: WebSocket) -> None:
        inside.set()
        async for _ in socket:
            pass

    server = tcp.server("127.0.0.1:0", stack(http.server(), ws.server(), wait))
    async with asyncio.TaskGroup() as group:
        opened, stop = asyncio.Event(), asyncio.Event()
        addresses: list[str] = []

        async def run() -> None:
            async with serve(server) as running:
                addresses.extend(map(str, running.addresses))
                opened.set()
                await stop.wait()

        group.create_task(run())
        await opened.wait()
        async with raw(addresses[0]) as client:
            await client.open()
            await inside.wait()
            stop.set()
            assert await client.hear() == Close(1001, "the server is going away")
            await client.say(client.frames.close(1001))
            assert await client.hear() is None


async def test_a_stop_does_not_wait_for_an_idle_client() -> None:
    inside = asyncio.Event()

    async def wait(socket: WebSocket) -> None:
        inside.set()
        async for _ in socket:
            pass

    async with serving(stack(ws.server(), wait)) as address:
        stream = await tcp.connect()(Target.parse(address))
        client = Raw(stream)
        await client.open()
        await inside.wait()
    stream.abort()


async def test_a_route_leads_to_it() -> None:
    async def page(request: Request) -> Response:
        return Response(body=b"page")

    exchange = http.route(("/echo/{name}", stack(ws.server(), echo)), default=page)
    async with testing.client(exchange) as client:
        async with client.upgrade(
            "websocket", "/echo/a", {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
        ) as (
            response,
            stream,
        ):
            assert response.status == 101
            await stream.write(b"\x81\x81\0\0\0\0a")
            assert await stream.read() == b"\x81\x01a"
        assert await (await client.get("/")).body.read() == b"page"


async def test_the_handler_knows_the_request() -> None:
    seen: list[object] = []

    async def note(socket: WebSocket) -> None:
        seen.extend(
            [socket.request.path, socket.request.headers["x-a"], socket.response.status, repr(socket)[:16]]
        )

    async with serving(stack(ws.server(), note)) as address, raw(address) as client:
        await client.open("X-A: b", path="/a?b")
        await client.hear()
    assert seen == ["/a?b", "b", 101, "<WebSocket /a?b "]


def test_a_stack_of_the_wrong_kinds_is_refused() -> None:
    assert describe(stack(http.server(), ws.server(), echo)) == "http.server() > ws.server() > echo"
    with pytest.raises(TypeError, match=r"ws.server\(\) gives WebSocket, tcp.forward\(.*\) takes Stream"):
        ws.server()(tcp.forward("a:1"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes Request"):
        stack(tcp.connection_limit(1), ws.server(), echo)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "options",
    [
        {"max_size": 0},
        {"ping_interval": 0},
        {"ping_timeout": 1},
        {"origins": "https://a"},
        {"subprotocols": "chat"},
    ],
)
def test_invalid_settings_are_rejected(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"ws\.server"):
        ws.server(**options)  # type: ignore[arg-type]

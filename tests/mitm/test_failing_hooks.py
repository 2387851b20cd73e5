"""Hooks that raise, hang or return nonsense, behind every front door and for every kind of client."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from llama import (
    ConnectionHandler,
    Connector,
    Stream,
    StreamClosedError,
    Target,
    http,
    layer,
    mitm,
    serve,
    socks5,
    stack,
    tcp,
    tls,
    ws,
)
from llama.http import Origin, Request, RequestHandler, Response
from tests.mitm.worlds import HOST, To, World

DOORS = ["http", "socks5", "forward"]
VERSIONS = ["1.1", "2"]


@dataclass
class Door:
    """A front door that looks inside, and clients in front of it."""

    over: Connector
    client: RequestHandler
    version: str


@asynccontextmanager
async def opened(
    world: World,
    door: str,
    upstream: ConnectionHandler,
    *layers: object,
    version: str = "2",
    **options: object,
) -> AsyncGenerator[Door, None]:
    options.setdefault("verify", world.site_pem)
    async with AsyncExitStack() as exits:
        to = To((await exits.enter_async_context(serve(upstream, listen="127.0.0.1:0"))).port)
        relay = mitm.relay(world.ca, *layers, **options)  # type: ignore[arg-type]
        handlers: dict[str, Callable[[], ConnectionHandler]] = {
            "http": lambda: stack(http.server(), mitm.proxy(world.ca, *layers, connect=to, **options)),  # type: ignore[arg-type]
            "socks5": lambda: socks5.server(connect=to, relay=relay),
            "forward": lambda: tcp.forward(f"{HOST}:443", connect=to, relay=relay),
        }
        front = await exits.enter_async_context(serve(handlers[door](), listen="127.0.0.1:0"))
        overs: dict[str, Callable[[], Connector]] = {
            "http": lambda: http.connect(f"127.0.0.1:{front.port}"),
            "socks5": lambda: socks5.connect(f"127.0.0.1:{front.port}"),
            "forward": lambda: To(front.port),
        }
        over = overs[door]()
        secure = tls.connect(over, ca=world.pem, alpn=("http/1.1",) if version == "1.1" else ("h2",))

        async def as_told(target: Target) -> Stream:
            return await secure(Target(target.host, target.port))  # not what the client would like

        client = await exits.enter_async_context(http.client(as_told))

        async def ask(request: Request) -> Response:
            """Over one connection for WebSockets too where that is HTTP/2."""
            request.extensions.set(Origin("http" if version == "1.1" else "h2c", Target(HOST, 443)))
            return await client(request)

        yield Door(over, ask, version)


async def get(door: Door, path: str = "/ok") -> tuple[int, str]:
    response = await door.client(Request("GET", f"https://{HOST}{path}"))
    try:
        assert response.version == door.version
        return response.status, (await response.body.read()).decode()
    finally:
        await response.aclose()


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The last lines of what was logged with a traceback, each with the function that it came from."""
    found: list[str] = []
    for record in caplog.records:
        if record.exc_info and record.exc_info[1] is not None:
            error, trace = record.exc_info[1], record.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = trace.tb_frame.f_code.co_name if trace is not None else "nowhere"
            found.append(f"{where}: {type(error).__name__}: {error}")
    return found


async def cancelled() -> None:
    """What is cancelled is not who waits for it."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


class Moody:
    """A hook that does what the path says."""

    def __init__(self) -> None:
        self.hanging = asyncio.Event()
        self.left = asyncio.Event()

    def layer(self) -> object:
        @layer
        async def moody(request: Request, inner: RequestHandler) -> Response:
            match request.path:
                case "/raise":
                    raise ZeroDivisionError("a bug of the hook")
                case "/late":
                    await inner(request)
                    raise ZeroDivisionError("a bug after the answer")
                case "/nothing":
                    return None  # type: ignore[return-value]
                case "/no-body":
                    response = await inner(request)
                    response.body = 3  # type: ignore[assignment]
                    return response
                case "/exit":
                    sys.exit(3)
                case "/cancelled":
                    await cancelled()
                case "/hang":
                    await self.hang()
                case _:
                    pass
            return await inner(request)

        return moody

    async def hang(self) -> None:
        self.hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("door", DOORS)
async def test_a_failing_http_hook_affects_only_its_own_exchange(
    world: World, door: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    moody = Moody()
    async with opened(world, door, world.https(), moody.layer(), version=version) as front:
        answers = await asyncio.gather(
            *(
                get(front, path)
                for path in ("/raise", "/ok", "/late", "/ok", "/nothing", "/ok", "/no-body", "/ok")
            )
        )
        assert [status for status, _ in answers] == [500, 200] * 4
        assert (await get(front))[0] == 200
    assert sorted(tracebacks(caplog)) == [
        "__call__: TypeError: the hook moody returned None, not a Response",
        "__init__: TypeError: 'int' object is not iterable",
        "moody: ZeroDivisionError: a bug after the answer",
        "moody: ZeroDivisionError: a bug of the hook",
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", ["/exit", "/cancelled"])
async def test_an_http_hook_cannot_end_more_than_its_exchange(
    world: World, path: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(world, "http", world.https(), Moody().layer(), version=version) as front:
        answers = await asyncio.gather(*(get(front, each) for each in (path, "/ok", path, "/ok")))
        assert [status for status, _ in answers] == [500, 200, 500, 200]
        assert (await get(front))[0] == 200
    assert len(tracebacks(caplog)) == 2 and "the hook moody" in caplog.text


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("door", DOORS)
async def test_a_blocked_http_hook_is_cancelled_when_its_client_disconnects(
    world: World, door: str, version: str
) -> None:
    moody = Moody()
    async with opened(world, door, world.https(), moody.layer(), version=version) as front:
        async with asyncio.TaskGroup() as group:
            hanging = group.create_task(get(front, "/hang"))
            await moody.hanging.wait()
            assert [status for status, _ in await asyncio.gather(*(get(front) for _ in range(5)))] == [
                200
            ] * 5
            hanging.cancel()
            async with asyncio.timeout(20):
                await moody.left.wait()
        assert (await get(front))[0] == 200


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("door", DOORS)
async def test_a_blocked_http_hook_can_be_timed_out(world: World, door: str, version: str) -> None:
    moody = Moody()
    server = http.server(handler_timeout=0.2)
    async with opened(world, door, world.https(), moody.layer(), version=version, server=server) as front:
        assert (await get(front, "/hang"))[0] == 504
        assert moody.left.is_set()
        assert (await get(front))[0] == 200


# messages


async def echo(socket: ws.WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


def site(world: World) -> ConnectionHandler:
    return stack(tls.server(*world.files()), http.server(), ws.server(), echo)


def moody_message(moody: Moody) -> ws.Hook:
    async def on_message(message: ws.Message) -> ws.Message | None:
        match message.data:
            case "raise":
                raise ZeroDivisionError("a bug of the hook")
            case "nonsense":
                return "nonsense"  # type: ignore[return-value]
            case "data":
                message.data = 3  # type: ignore[assignment]
            case "surrogate":
                message.data = "\ud800"
            case "exit":
                sys.exit(3)
            case "cancelled":
                await cancelled()
            case "hang":
                await moody.hang()
            case _:
                pass
        return message

    return on_message


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("raise", "on_message: ZeroDivisionError: a bug of the hook"),
        ("nonsense", "returned 'nonsense': expected a Message or None"),
        ("data", "TypeError"),
        ("surrogate", "UnicodeEncodeError"),
        ("exit", "the hook on_message raised SystemExit"),
        ("cancelled", "the hook on_message raised CancelledError, but its task was not cancelled"),
    ],
)
async def test_a_failing_message_hook_ends_only_its_own_websocket(
    world: World, door: str, version: str, said: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    hook = moody_message(Moody())
    async with opened(world, door, site(world), ws.inspect(hook), version=version) as front:
        url = f"wss://{HOST}/chat"
        assert (await get(front))[0] == 426  # HTTP/2's settings are known from here on
        async with ws.connect(url, client=front.client) as other:
            async with ws.connect(url, client=front.client) as socket:
                await socket.send(said)
                with pytest.raises(StreamClosedError):
                    await socket.receive()
                assert socket.close_code == 1011
            await other.send("hello")
            assert await other.receive() == "hello"
    found = tracebacks(caplog)
    assert len(found) == 1 and logged in found[0], found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("door", DOORS)
async def test_a_blocked_message_hook_is_cancelled_when_its_client_disconnects(
    world: World, door: str, version: str
) -> None:
    moody = Moody()
    hook = moody_message(moody)
    async with opened(world, door, site(world), ws.inspect(hook), version=version) as front:
        url = f"wss://{HOST}/chat"
        assert (await get(front))[0] == 426  # HTTP/2's settings are known from here on
        async with ws.connect(url, client=front.client) as other, asyncio.TaskGroup() as group:

            async def hang() -> None:
                async with ws.connect(url, client=front.client) as socket:
                    await socket.send("hang")
                    await socket.receive()

            hanging = group.create_task(hang())
            await moody.hanging.wait()
            await other.send("hello")
            assert await other.receive() == "hello"
            hanging.cancel()
            async with asyncio.timeout(20):
                await moody.left.wait()
            await other.send("hello")
            assert await other.receive() == "hello"


async def test_a_slow_message_hook_finishes_after_the_client_has_disconnected(world: World) -> None:
    got: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def keep(socket: ws.WebSocket) -> None:
        async for message in socket:
            got.put_nowait(message)

    began, go = asyncio.Event(), asyncio.Event()

    async def slow(message: ws.Message) -> ws.Message:
        began.set()
        await go.wait()
        return message

    upstream = stack(tls.server(*world.files()), http.server(), ws.server(), keep)
    async with opened(world, "forward", upstream, ws.inspect(slow)) as front:
        await get(front)
        async with ws.connect(f"wss://{HOST}/chat", client=front.client) as socket:
            await socket.send("last")
            await began.wait()
            await socket.send("words")
            asyncio.get_running_loop().call_later(0.1, go.set)
        async with asyncio.timeout(20):
            assert [await got.get(), await got.get()] == ["last", "words"]


# bytes


def moody_chunks(moody: Moody) -> mitm.ChunkHook:
    async def chunks(chunk: mitm.Chunk) -> bytes:
        match chunk.data:
            case b"\x00raise":
                raise ZeroDivisionError("a bug of the hook")
            case b"\x00nonsense":
                return "nonsense"  # type: ignore[return-value]
            case b"\x00exit":
                sys.exit(3)
            case b"\x00cancelled":
                await cancelled()
            case b"\x00hang":
                await moody.hang()
            case _:
                pass
        return chunk.data

    return chunks


async def echo_bytes(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("said", "logged"),
    [
        (b"\x00raise", "chunks: ZeroDivisionError: a bug of the hook"),
        (b"\x00nonsense", "returned 'nonsense', expected bytes"),
        (b"\x00exit", "raised SystemExit"),
        (b"\x00cancelled", "raised CancelledError, but its task was not cancelled"),
    ],
)
async def test_a_failing_chunk_hook_ends_only_its_own_connection(
    world: World, door: str, said: bytes, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(world, door, echo_bytes, on_chunk=moody_chunks(Moody())) as front:
        target = Target(HOST, 443)
        other, stream = await front.over(target), await front.over(target)
        await other.write(b"\x00hello")
        assert await other.read() == b"\x00hello"
        await stream.write(said)
        with pytest.raises((OSError, EOFError)):
            assert await stream.read() == b""
            raise EOFError
        stream.abort()
        await other.write(b"\x00again")
        assert await other.read() == b"\x00again"
        await other.aclose()
    found = tracebacks(caplog)
    assert len(found) == 1 and logged in found[0], found


@pytest.mark.parametrize("door", DOORS)
async def test_a_blocked_chunk_hook_is_cancelled_when_its_client_resets(world: World, door: str) -> None:
    moody = Moody()
    async with opened(world, door, echo_bytes, on_chunk=moody_chunks(moody)) as front:
        target = Target(HOST, 443)
        other, stream = await front.over(target), await front.over(target)
        await stream.write(b"\x00hang")
        await moody.hanging.wait()
        await other.write(b"\x00hello")
        assert await other.read() == b"\x00hello"
        stream.abort()
        async with asyncio.timeout(20):
            await moody.left.wait()
        await other.write(b"\x00again")
        assert await other.read() == b"\x00again"
        await other.aclose()


async def test_a_chunk_hook_may_be_slow_on_a_half_closed_connection(world: World) -> None:
    async def slow(chunk: mitm.Chunk) -> bytes:
        await asyncio.sleep(0.05)
        return chunk.data

    async with opened(world, "forward", echo_bytes, on_chunk=slow) as front:
        stream = await front.over(Target(HOST, 443))
        await stream.write(b"\x00hello")
        await stream.write_eof()
        assert await stream.read() == b"\x00hello"
        assert await stream.read() == b""
        await stream.aclose()

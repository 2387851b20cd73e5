"""Whichever way an exchange ends, nothing of it is left: a table of endings, each checked for all it may hold."""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import pytest

from llama import ConnectionHandler, Layer, Shutdown, Stream, concurrency_limit, layer, stack, timeout, trace
from llama._core.errors import LlamaError, UnreachableError
from llama.http import Request, RequestHandler, Response, access_log, client, retry, reverse_proxy, server
from llama.http._messages.body import Body
from llama.http._proxy.reverse import ReverseProxy
from llama.layers._concurrency_limit import ConcurrencyLimit
from llama.layers._timeout import Timeout
from tests.http.serving import Client, client_of, get, last
from tests.http.upstreams import OK, Upstream, answering, head_of, tcp_pair

BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(100_000)
HUGE = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + bytes(1_000_000)
FAILED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000000\r\n\r\n" + bytes(100_000)
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
CHAT = get("/", "Connection: Upgrade", "Upgrade: chat")
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"
HTTPLayer = Layer[Request, Response, Request, Response]


class House:
    """A proxy of which every part can hold one exchange, and what its parts hold."""

    def __init__(self, origin: ConnectionHandler, within: HTTPLayer, settings: dict[str, float]) -> None:
        self.asked = asyncio.Event()
        self.upstream = Upstream(self._noting(origin), tcp_pair)
        self.client = client(self.upstream, max_connections=1, pool_timeout=1)
        self.proxy = reverse_proxy("http://a.example", client=self.client, balance="least_connections")
        self.inner = concurrency_limit(1)(self.proxy)
        self.timeout = timeout(30)(within(self.inner))
        self.outer = concurrency_limit(1)(self.timeout)
        self.handler = server(**settings)(access_log()(trace("it")(self.outer)))  # type: ignore[arg-type]

    def _noting(self, origin: ConnectionHandler) -> ConnectionHandler:
        async def noting(stream: Stream) -> None:
            self.asked.set()
            await origin(stream)

        return noting

    def held(self) -> list[str]:
        """What is not free."""
        assert isinstance(self.inner, ConcurrencyLimit) and isinstance(self.outer, ConcurrencyLimit)
        assert isinstance(self.timeout, Timeout) and isinstance(self.proxy, ReverseProxy)
        pool = self.client.state.open()
        resources = {
            "the slot of the limit within": not self.inner.slots.free,
            "the slot of the limit around": not self.outer.slots.free,
            "a timeout": bool(self.timeout.deadlines._calls),
            "a connection of the pool": pool.count != len(pool.idle),
            "a task that sends a body": bool(len(pool.tasks)),
            "a turn of the upstream": bool(self.proxy.balance.upstreams[0].active),
        }
        return [name for name, is_held in resources.items() if is_held]

    async def free(self) -> None:
        """Wait until nothing is held."""
        try:
            async with asyncio.timeout(3):
                while self.held():  # noqa: ASYNC110  # what would set an event is what is looked for
                    await asyncio.sleep(0)
        except TimeoutError:
            raise AssertionError(f"still held: {', '.join(self.held())}") from None


Drive = Callable[[Client, House], Awaitable[object]]


# what the origin does


async def silent(stream: Stream) -> None:
    await head_of(stream)
    await stream.read()


def saying(*said: bytes) -> ConnectionHandler:
    """Answers one request, and then waits for the other side's end."""

    async def origin(stream: Stream) -> None:
        await head_of(stream)
        for each in said:
            await stream.write(each)
        while await stream.read():
            pass

    return origin


def saying_first(first: bytes, then: bytes) -> ConnectionHandler:
    """One answer for the first connection, another for all others."""
    answers = [first]

    async def origin(stream: Stream) -> None:
        await saying(answers.pop() if answers else then)(stream)

    return origin


def dying(said: bytes = b"") -> ConnectionHandler:
    async def origin(stream: Stream) -> None:
        await head_of(stream)
        await stream.write(said)
        await asyncio.sleep(0.01)  # the kernel's time
        stream.abort()

    return origin


async def closing(stream: Stream) -> None:
    await head_of(stream)
    await stream.write(b"HTTP/1.1 200 OK\r\n\r\nuntil it closes")


async def echoing(stream: Stream) -> None:
    await head_of(stream)
    await stream.write(SWITCH)
    while data := await stream.read():
        await stream.write(data)


# what a layer does


@layer
async def passing(request: Request, inner: RequestHandler) -> Response:
    return await inner(request)


@layer
async def forgetting(request: Request, inner: RequestHandler) -> Response:
    await inner(request)
    return Response(302, {"Location": "/"})


@layer
async def closing_first(request: Request, inner: RequestHandler) -> Response:
    await (await inner(request)).aclose()
    return Response(204)


@layer
async def answering_itself(request: Request, inner: RequestHandler) -> Response:
    return Response(302, {"Location": "/"})


@layer
async def keeping_the_body(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    return Response(200, body=response.body)


@layer
async def asking_twice(request: Request, inner: RequestHandler) -> Response:
    if (await inner(request)).status == 503:
        await asyncio.sleep(0)
    return await inner(request)


@layer
async def misleading(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    response.headers["Content-Length"] = "7"
    response.replace_body(Response(200, body=b"hello").body)
    return response


@layer
async def pondering(request: Request, inner: RequestHandler) -> Response:
    response = await inner(request)
    await asyncio.Event().wait()
    return response


@layer
async def hurried(request: Request, inner: RequestHandler) -> Response:
    async with asyncio.timeout(0.02):
        response = await inner(request)
        await asyncio.Event().wait()
    return response


def failing(error: Exception, cause: bool = False) -> HTTPLayer:
    @layer
    async def failing(request: Request, inner: RequestHandler) -> Response:
        response = await inner(request)
        try:
            raise ValueError(response.status)
        except ValueError as first:
            raise error from (first if cause else None)

    return failing


# what the client does


def say(*said: bytes) -> Drive:
    """Says that, and hears all of the answer."""

    async def drive(browser: Client, house: House) -> None:
        for each in said:
            await browser.say(each)
        try:
            await browser.hear_end()
        except OSError:
            pass

    return drive


def leave(said: bytes, *, after: bytes = b"", politely: bool = False) -> Drive:
    """Says that, and leaves once the origin was asked, or when it heard some of the answer."""

    async def drive(browser: Client, house: House) -> None:
        await browser.say(said)
        await house.asked.wait()
        heard = b""
        while after not in heard:
            heard += await browser.stream.read()
        if politely:
            await browser.stream.write_eof()
        else:
            browser.stream.abort()
        await browser.served

    return drive


async def leave_unheard(browser: Client, house: House) -> None:
    await browser.say(b"GET / HTTP/1.1\r\nHo")
    browser.stream.abort()
    await browser.served


async def take_nothing(browser: Client, house: House) -> None:
    await browser.say(get())
    await browser.served


async def stop(browser: Client, house: House) -> None:
    await browser.say(get())
    await house.asked.wait()
    await asyncio.sleep(0.01)  # into the layer's wait
    assert not await browser.shutdown.drain(0.01)
    browser.served = browser.shutdown.spawn(asyncio.sleep(0))


async def chat(browser: Client, house: House) -> None:
    await browser.say(CHAT)
    await browser.say(b"hi")
    heard = b""
    while not heard.endswith(b"hi"):
        heard += await browser.stream.read()
    await browser.stream.write_eof()
    await browser.hear_end()


async def post_in_vain(browser: Client, house: House) -> None:
    await browser.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nabc")
    await say()(browser, house)


class Ending(NamedTuple):
    name: str
    origin: ConnectionHandler
    drive: Drive
    within: HTTPLayer = passing
    settings: dict[str, float] = {}  # noqa: RUF012  # of the server; nobody changes it
    records: int = 1


IMPATIENT = {"write_timeout": 0.05}
ENDINGS = [
    # the whole of it
    Ending("a body of a known length", answering(OK), say(last())),
    Ending("a body in chunks", answering(CHUNKED + b"1\r\na\r\n0\r\n\r\n"), say(last())),
    Ending("chunks and trailers", saying(CHUNKED, b"1\r\na\r\n0\r\nA: 1\r\n\r\n"), say(last())),
    Ending("a body until the end", closing, say(last())),
    Ending("no body", answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), say(last())),
    Ending("HEAD", answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), say(last(method="HEAD"))),
    Ending("HEAD with a body", saying(BIG), say(last(method="HEAD"))),
    Ending("204", answering(b"HTTP/1.1 204 No Content\r\n\r\n"), say(last())),
    Ending("304", answering(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), say(last())),
    Ending("HTTP/1.0", answering(CHUNKED + b"0\r\n\r\n"), say(get(version="1.0"))),
    Ending("an early refusal", saying(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"), post_in_vain),
    Ending("several on one connection", answering(OK), say(get(), get(), last()), records=3),
    # layers
    Ending("a layer closes the response", saying(BIG), say(last()), closing_first),
    Ending("a layer forgets a small response", answering(OK), say(last()), forgetting),
    Ending("a layer forgets a large response", saying(BIG), say(last()), forgetting),
    Ending("a layer forgets an upgrade", saying(SWITCH), say(CHAT + last()), forgetting, records=2),
    Ending("a layer closes an upgrade", saying(SWITCH), say(CHAT + last()), closing_first, records=2),
    Ending("a layer answers itself", saying(BIG), say(last()), answering_itself),
    Ending("a layer keeps the body alone", answering(OK), say(last()), keeping_the_body),
    Ending("a layer forgets, and asks again", answering(REFUSED, OK), say(last()), asking_twice),
    Ending("a retry", saying_first(FAILED, OK), say(last()), retry(2, statuses=[503], backoff=0)),
    Ending("a layer fails", saying(BIG), say(last()), failing(RuntimeError("a bug"))),
    Ending("a layer fails with a status", saying(BIG), say(last()), failing(LlamaError("no", status=418))),
    Ending("a layer fails because of an error", saying(BIG), say(last()), failing(UnreachableError("no"), cause=True)),
    Ending("a layer fails with an upgrade", saying(SWITCH), say(CHAT + last()), failing(TypeError("bug")), records=2),
    Ending("a layer gives up", saying(BIG), say(last()), hurried),
    Ending("a response that cannot be sent", saying(BIG), say(last()), misleading),
    # the client
    Ending("the client leaves within its head", silent, leave_unheard, records=0),
    Ending("the client leaves before the answer", silent, leave(get())),
    Ending("the client ends before the answer", silent, leave(get(), politely=True)),
    Ending("the client leaves while a layer has the response", saying(BIG), leave(get()), pondering),
    Ending("the client leaves within the head of the answer", saying(b"HTTP/1.1 200 OK\r\n"), leave(get())),
    Ending("the client leaves within the answer", saying(BIG), leave(get(), after=bytes(1000))),
    Ending("the client ends within the answer", saying(BIG), leave(get(), after=bytes(1000), politely=True)),
    Ending("the client leaves within its body", silent, leave(POST)),
    Ending("the client ends within its body", silent, leave(POST, politely=True)),
    Ending("the client leaves within both bodies", saying(BIG), leave(POST, after=bytes(1000))),
    Ending("the client leaves a tunnel", saying(SWITCH), leave(CHAT, after=b"101")),
    Ending("the client's body is malformed", silent, say(get("/", "Transfer-Encoding: chunked") + b"z\r\n")),
    Ending("the client takes nothing", saying(HUGE, *[bytes(1_000_000)] * 49), take_nothing, settings=IMPATIENT),
    # the upstream
    Ending("the upstream leaves before its answer", dying(), say(last())),
    Ending("the upstream leaves within its head", dying(b"HTTP/1.1 2"), say(last())),
    Ending("the upstream leaves within its body", dying(BIG), say(last())),
    Ending("the upstream leaves within the request's body", dying(), say(POST)),
    Ending("the upstream says nonsense", saying(b"nonsense\r\n\r\n"), say(last())),
    Ending("the upstream's body is malformed", saying(CHUNKED, b"z\r\n"), say(last())),
    Ending("an upgrade nobody asked for", saying(SWITCH), say(last())),
    Ending("an upgrade that is declined", answering(OK), say(CHAT + last()), records=2),
    Ending("an upgrade to the end", echoing, chat),
    # the server
    Ending("the answer takes too long", silent, say(last()), settings={"handler_timeout": 0.05}),
    Ending("a layer takes too long with the response", saying(BIG), say(last()), pondering, {"handler_timeout": 0.05}),
    Ending("the server stops for good", silent, stop),
    Ending("the server stops for good, a layer has the response", saying(BIG), stop, pondering),
    Ending("the server stops for good within the answer", saying(BIG), stop),
]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS, ids=[each.name.replace(" ", "_") for each in ENDINGS])
async def test_every_ending_releases_all_resources(ending: Ending, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llama")
    house = House(ending.origin, ending.within, ending.settings)
    async with house.client:
        async with client_of(house.handler) as browser:
            await ending.drive(browser, house)
            await house.free()
        assert [record.name for record in caplog.records].count("llama.access") == ending.records
        assert [record.name for record in caplog.records].count("llama.trace") == ending.records


async def test_an_error_page_that_replaces_a_response_is_closed() -> None:
    ended: list[int] = []

    def page(error: BaseException, status: int, request: Request | None) -> Response:
        response = Response(status, body=b"sorry")
        response.on_close(lambda: ended.append(status))
        return response

    async def misleading(request: Request) -> Response:
        return Response(200, {"Content-Length": "7"}, b"hello")

    async with client_of(server(error_handler=page)(misleading)) as browser:
        await browser.say(last())
        assert (await browser.hear_end()).endswith(b"sorry")
        assert ended == [500]


async def test_an_invalid_error_page_yields_an_empty_response() -> None:
    def page(error: BaseException, status: int, request: Request | None) -> Response:
        return Response(status, {"Content-Length": "7"}, b"sorry")

    async def misleading(request: Request) -> Response:
        return Response(200, {"Content-Length": "7"}, b"hello")

    async with client_of(server(error_handler=page)(misleading)) as browser:
        await browser.say(last())
        assert (await browser.hear_end()).startswith(b"HTTP/1.1 500 ")


# outside of a server


async def test_dropping_a_response_runs_on_close_immediately() -> None:
    ended: list[int] = []
    response = Response()
    response.on_close(lambda: ended.append(1))
    response.on_close(lambda: ended.append(2))
    del response
    assert ended == [2, 1]


async def test_keeping_only_the_body_keeps_the_exchange() -> None:
    service = stack(concurrency_limit(1), hello)
    assert isinstance(service, ConcurrencyLimit)
    wraps: list[Callable[[Body], AsyncIterable[bytes]]] = [lambda b: b, lambda b: b.map(bytes.upper), aiter]
    for wrap in wraps:
        kept = wrap((await service(Request("GET", "/"))).body)
        assert not service.slots.free
        assert [chunk async for chunk in kept] in ([b"hello"], [b"HELLO"])
        assert not service.slots.free
        del kept
        assert service.slots.free


async def test_a_failing_body_that_was_kept_alone_ends_the_exchange() -> None:
    asking = client(Upstream(dying(BIG), tcp_pair))
    service = stack(concurrency_limit(1), asking)
    assert isinstance(service, ConcurrencyLimit)
    async with asking:
        body = (await service(Request("GET", "http://a.example/"))).body
        with pytest.raises(LlamaError) as kept:  # and the traceback with it
            while await body.read_chunk():
                pass
        assert service.slots.free, kept


async def test_a_body_kept_after_aclose_does_not_run_on_close_again() -> None:
    ended: list[int] = []
    response = await hello(Request("GET", "/"))
    response.on_close(lambda: ended.append(1))
    body = response.body
    response.on_close(lambda: ended.append(2))
    await response.aclose()
    del response, body
    assert ended == [2, 1]


async def test_on_close_of_a_dropped_response_may_be_async(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def end() -> None:
        await asyncio.sleep(0)
        ended.set()

    def fail() -> None:
        raise RuntimeError("the other one is told all the same")

    response = Response()
    response.on_close(end)
    response.on_close(fail)
    del response
    await ended.wait()
    (record,) = caplog.records
    assert record.exc_info is not None
    caplog.clear()


async def test_on_close_runs_in_its_own_loop_if_another_loop_collects() -> None:
    told: asyncio.Queue[tuple[str, asyncio.AbstractEventLoop]] = asyncio.Queue()
    mine, response = asyncio.get_running_loop(), [Response()]

    async def end() -> None:
        assert not mine.is_closed()
        told.put_nowait((threading.current_thread().name, asyncio.get_running_loop()))

    async def drop() -> None:
        async with Shutdown():
            response.pop()

    response[0].on_close(end)
    thread = threading.Thread(target=asyncio.run, args=(drop(),))
    thread.start()
    async with asyncio.timeout(20):
        assert await told.get() == (threading.current_thread().name, mine)
    thread.join()


async def test_on_close_runs_in_the_loop_if_a_thread_collects() -> None:
    service = stack(concurrency_limit(1), hello)
    assert isinstance(service, ConcurrencyLimit)
    async with client_of(server()(service)) as browser:
        await browser.say(last())
        await browser.hear_end()
        held = [await service(Request("GET", "/"))]
        await asyncio.to_thread(held.clear)
        await service.slots.next_free()


async def hello(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"hello"

    return Response(body=body())


async def test_a_failed_exchange_leaves_no_reference_cycles() -> None:
    class Held:
        pass

    async def ask(fetcher: RequestHandler) -> None:
        held = Held()
        known.append(weakref.ref(held))
        await fetcher(Request("GET", "http://a.example/"))

    known: list[weakref.ref[Held]] = []
    async with client(Upstream(dying(), tcp_pair)) as fetcher:
        gc.disable()
        try:
            with suppress(LlamaError):
                await ask(fetcher)
            assert known[0]() is None
        finally:
            gc.enable()

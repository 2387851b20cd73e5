"""An exchange as an ASGI application: what a server tells it, and what it answers."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import pytest

from llama import OverloadedError, PeerAddress, Stream, TruncatedError, asgi, http, layer, stack, to_asgi
from llama._core.server import LocalAddress
from llama._core.shutdown import Shutdown
from llama.http import Body, Headers, Request, RequestHandler, Response
from tests.asgi.asgi_server import ask, called
from tests.asgi.asgi_server import http as scope_of


async def hello(request: Request) -> Response:
    return Response(200, {"Content-Type": "text/plain", "X-A": "b"}, b"hello")


async def echo(request: Request) -> Response:
    return Response(200, body=request.body)


def noting(requests: list[Request]) -> RequestHandler:
    async def note(request: Request) -> Response:
        requests.append(request)
        return Response()

    return note


# the request


async def test_a_request_is_built_from_the_scope() -> None:
    requests: list[Request] = []
    fields = [(b"x-a", b"1"), (b"x-b", b"\xe4"), (b"x-a", b"2")]
    scope = scope_of("PATCH", "/a", *fields, query_string=b"b=%20c", scheme="https", http_version="2")
    await ask(to_asgi(noting(requests)), scope)
    (request,) = requests
    assert (request.method, request.path, request.scheme, request.version) == (
        "PATCH",
        "/a?b=%20c",
        "https",
        "2",
    )
    assert request.url == "https://a.example/a?b=%20c"
    assert list(request.headers) == [("host", "a.example"), ("x-a", "1"), ("x-b", "\xe4"), ("x-a", "2")]
    assert request.client == PeerAddress("192.0.2.1", 5)
    assert request.extensions.get(LocalAddress) == LocalAddress("192.0.2.2", 80)


@pytest.mark.parametrize(
    ("path", "raw", "root", "seen"),
    [
        ("/", b"/", "", "/"),
        ("", b"", "", "/"),
        ("/api/a", b"/api/a", "/api", "/a"),
        ("/api/a", b"/api/a", "/api/", "/a"),
        ("/api", b"/api", "/api", "/"),
        ("/apiary", b"/apiary", "/api", "/apiary"),
        ("/a", b"/a", "/api", "/a"),
        ("/api/a b//\xe4/", b"/api/a%20b%2F%2f%C3%A4/", "/api", "/a%20b%2F%2f%C3%A4/"),
        ("/a p/b c", b"/a%20p/b%20c", "/a p", "/b%20c"),
        ("/a p", b"/a%20p", "/a p", "/"),
        ("/changed?", b"/sent", "", "/changed%3F"),
        ("/api/changed%", b"/sent", "/api", "/changed%25"),
        ("/a", b"/a?q=1", "", "/a"),
        ("/\xe4", None, "", "/%C3%A4"),
    ],
)
async def test_the_path_is_relative_to_the_mount_point(
    path: str, raw: bytes | None, root: str, seen: str
) -> None:
    requests: list[Request] = []
    scope = scope_of("GET", "/", path=path, raw_path=raw, root_path=root)
    if raw is None:
        del scope["raw_path"]
    await ask(to_asgi(noting(requests)), scope)
    assert requests[0].path == seen


async def test_a_body_is_received_as_it_is_read() -> None:
    async with called(to_asgi(echo), scope_of("POST", "/", (b"transfer-encoding", b"chunked"))) as call:
        assert (await call.hear())["type"] == "http.response.start"
        for part in (b"abc", b"def"):
            call.say("http.request", body=part, more_body=True)
            assert (await call.hear())["body"] == part
        call.say("http.request", body=b"", more_body=False)
        assert await call.hear() == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_body_without_length_fields() -> None:
    seen: list[tuple[bytes | None, int | None]] = []

    async def look(request: Request) -> Response:
        seen.append((request.body.buffered, request.body.length))
        return Response(body=await request.body.read())

    status, _, body = await ask(to_asgi(look), scope_of("POST", http_version="2"), b"all of it")
    assert (status, body, seen) == (200, b"all of it", [(b"all of it", 9)])
    async with called(to_asgi(look), scope_of("POST", http_version="2")) as call:
        call.say("http.request", body=b"some", more_body=True)
        call.say("http.request", body=b" more", more_body=False)
        assert (await call.response())[2] == b"some more"
    assert seen[1] == (None, None)


async def test_a_body_with_a_length_is_not_waited_for() -> None:
    seen: list[int | None] = []

    async def early(request: Request) -> Response:
        seen.append(request.body.length)
        return Response(413)

    async with called(to_asgi(early), scope_of("PUT", "/", (b"content-length", b"9"))) as call:
        assert (await call.response())[0] == 413
    assert seen == [9]


async def test_a_client_that_leaves_within_its_body() -> None:
    errors: list[Exception] = []

    async def read(request: Request) -> Response:
        try:
            await request.body.read()
        except TruncatedError as error:
            errors.append(error)
            raise
        return Response()

    async with called(to_asgi(read), scope_of("PUT", "/", (b"content-length", b"9"))) as call:
        call.say("http.request", body=b"some", more_body=True)
        call.leave()
        await call.over()
        assert call.sent.empty()
    assert len(errors) == 1


# the response


async def test_a_response_has_its_fields_in_lower_case_and_its_length() -> None:
    status, headers, body = await ask(to_asgi(hello), scope_of())
    assert (status, body) == (200, b"hello")
    assert headers == {b"content-type": b"text/plain", b"x-a": b"b", b"content-length": b"5"}


async def test_hop_by_hop_fields_are_left_to_the_server() -> None:
    async def odd(request: Request) -> Response:
        return Response(200, {"Connection": "close", "Keep-Alive": "5", "Transfer-Encoding": "chunked"}, b"a")

    _, headers, _ = await ask(to_asgi(odd), scope_of())
    assert headers == {b"content-length": b"1"}


async def test_a_head_request_gets_the_length_alone() -> None:
    status, headers, body = await ask(to_asgi(hello), scope_of("HEAD"))
    assert (status, headers[b"content-length"], body) == (200, b"5", b"")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_a_body(status: int) -> None:
    async def none(request: Request) -> Response:
        return Response(status, {"ETag": '"a"'})

    assert await ask(to_asgi(none), scope_of()) == (status, {b"etag": b'"a"'}, b"")


async def test_a_response_streams_and_waits_for_the_server() -> None:
    given: list[int] = []
    may_send = asyncio.Semaphore(0)

    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            given.append(number)
            yield b"%d" % number

    async def numbers(request: Request) -> Response:
        return Response(body=parts())

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False} if not sent else await never()

    async def put(message: Any) -> None:
        sent.append(message)
        await may_send.acquire()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(to_asgi(numbers)(scope_of(), receive, put))
        await turns()
        assert (len(sent), given) == (1, [])
        for count in range(1, 4):
            may_send.release()
            await turns()
            assert (len(sent), given) == (count + 1, list(range(count)))
        may_send.release()
        may_send.release()
        await task


async def never() -> Any:
    await asyncio.get_running_loop().create_future()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_trailers_and_early_hints_where_the_server_has_them() -> None:
    async def app(request: Request) -> Response:
        await request.send_informational(103, [("Link", "</a.css>; rel=preload"), ("Link", "</b.js>")])
        await request.send_informational(102)
        response = Response(body=iter([b"hello"]))
        response.trailers = Headers([("X-Sum", "5")])
        return response

    extensions: dict[str, Any] = {"http.response.trailers": {}, "http.response.early_hint": {}}
    async with called(to_asgi(app), scope_of(extensions=extensions)) as call:
        call.say("http.request", body=b"", more_body=False)
        hint = await call.hear()
        assert hint == {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>"]}
        start = await call.hear()
        assert start["trailers"] is True
        assert [(await call.hear())["body"] for _ in range(2)] == [b"hello", b""]
        assert await call.hear() == {
            "type": "http.response.trailers",
            "headers": [(b"x-sum", b"5")],
            "more_trailers": False,
        }
    status, _, body = await ask(to_asgi(app), scope_of())
    assert (status, body) == (200, b"hello")


async def taken(stream: Stream) -> None:
    raise AssertionError


async def test_an_unrequested_upgrade_is_502() -> None:
    async def odd(request: Request) -> Response:
        return Response(101, upgrade=taken)

    assert (await ask(to_asgi(odd), scope_of()))[0] == 502


# errors


async def test_an_error_of_llamas_is_a_response() -> None:
    async def busy(request: Request) -> Response:
        raise OverloadedError("too many", retry_after=7)

    status, headers, body = await ask(to_asgi(busy), scope_of())
    assert (status, headers[b"retry-after"], body) == (503, b"7", b"503 Service Unavailable\n")

    assert headers[b"proxy-status"] == b"llama; error=connection_limit_reached"
    _, headers, _ = await ask(to_asgi(busy, proxy_name="edge"), scope_of())
    assert headers[b"proxy-status"] == b"edge; error=connection_limit_reached"

    def page(error: BaseException, status: int, request: Request | None) -> Response:
        return Response(status, body=b"mine")

    assert (await ask(to_asgi(busy, error_page=page), scope_of()))[2] == b"mine"


async def test_a_wrong_length_is_an_error_before_anything_is_sent() -> None:
    async def wrong(request: Request) -> Response:
        return Response(200, {"Content-Length": "3"}, b"hello")

    assert (await ask(to_asgi(wrong), scope_of()))[0] == 500


async def test_a_bug_is_raised_to_the_server() -> None:
    async def broken(request: Request) -> Response:
        raise LookupError("a bug")

    with pytest.RaisesGroup(LookupError):
        await ask(to_asgi(broken), scope_of())


async def test_a_response_that_breaks_off_is_raised_to_break_the_connection_off() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"some"
        raise TruncatedError("the upstream left")

    async def cut(request: Request) -> Response:
        return Response(body=parts())

    heard: list[Any] = []
    with pytest.RaisesGroup(TruncatedError):
        async with called(to_asgi(cut), scope_of()) as call:
            call.say("http.request", body=b"", more_body=False)
            heard += [await call.hear(), await call.hear()]
            await call.over()
    assert [message["type"] for message in heard] == ["http.response.start", "http.response.body"]
    assert heard[-1]["more_body"] is True


# clients that leave


class Held(Body):
    """A body that never comes."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.closed = False

    async def read_chunk(self) -> bytes:
        self.asked.set()
        return bytes(await never())

    async def aclose(self) -> None:
        self.closed = True


async def test_a_client_that_leaves_cancels_the_exchange() -> None:
    begun = asyncio.Event()
    cancelled: list[bool] = []

    async def slow(request: Request) -> Response:
        begun.set()
        try:
            await never()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return Response()

    async with called(to_asgi(slow), scope_of()) as call:
        call.say("http.request", body=b"", more_body=False)
        await begun.wait()
        call.leave()
        await call.over()
        assert call.sent.empty()
    assert cancelled == [True]


async def test_a_client_that_leaves_within_the_response_closes_it() -> None:
    held = Held()
    ended: list[bool] = []

    async def app(request: Request) -> Response:
        response = Response(body=held)
        response.on_close(lambda: ended.append(True))
        return response

    async with called(to_asgi(app), scope_of()) as call:
        call.say("http.request", body=b"", more_body=False)
        await held.asked.wait()
        call.leave()
        await call.over()
    assert held.closed
    assert ended == [True]


async def test_a_send_that_fails_ends_the_call_in_silence() -> None:
    ended: list[bool] = []

    async def app(request: Request) -> Response:
        response = Response(body=b"hello")
        response.on_close(lambda: ended.append(True))
        return response

    async with called(to_asgi(app), scope_of("POST", "/", (b"content-length", b"1"))) as call:
        call.gone = True
        await call.over()
    assert ended == [True]


async def test_a_cancelled_call_is_cancelled() -> None:
    async with called(to_asgi(noting_never), scope_of()) as call:
        call.say("http.request", body=b"", more_body=False)
        await turns()
        assert call.task is not None
        call.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.task


async def noting_never(request: Request) -> Response:
    await never()
    return Response()


# what it owns


class Owner:
    """An exchange with something to open and to close, and a task."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.fails = False

    async def __aenter__(self) -> "Owner":
        if self.fails:
            raise OSError("no room")
        self.log.append("open")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.append("close")

    async def __call__(self, request: Request) -> Response:
        self.log.append("ask")
        Shutdown.current().spawn(self.later())
        return Response()

    async def later(self) -> None:
        await asyncio.sleep(0)
        self.log.append("later")


def scope_of_lifespan() -> dict[str, Any]:
    return {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}


async def test_the_lifespan_opens_and_closes_what_is_within() -> None:
    @layer
    async def around(request: Request, inner: RequestHandler) -> Response:
        return await inner(request)

    owner = Owner()
    app = to_asgi(stack(around, owner))
    async with called(app, scope_of_lifespan()) as life:
        life.say("lifespan.startup")
        assert await life.hear() == {"type": "lifespan.startup.complete"}
        await ask(app, scope_of())
        life.say("lifespan.shutdown")
        assert await life.hear() == {"type": "lifespan.shutdown.complete"}
    assert owner.log == ["open", "ask", "later", "close"]


async def test_a_failed_start_is_reported() -> None:
    owner = Owner()
    owner.fails = True
    with pytest.RaisesGroup(OSError):
        async with called(to_asgi(owner), scope_of_lifespan()) as life:
            life.say("lifespan.startup")
            assert await life.hear() == {"type": "lifespan.startup.failed", "message": "no room"}
            await life.over()


async def test_as_a_context_manager_it_is_open_as_long() -> None:
    owner = Owner()
    async with to_asgi(owner) as app, app:
        await ask(app, scope_of())
        await ask(app, scope_of())
        assert owner.log[0] == "open"
    assert (owner.log.count("open"), owner.log[-1], owner.log.count("close")) == (1, "close", 1)


def test_without_a_lifespan_it_opens_on_the_first_request_until_the_loop_ends() -> None:
    owner = Owner()
    app = to_asgi(owner)

    async def requests() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(ask(app, scope_of()))
        assert owner.log.count("close") == before

    before = 0
    asyncio.run(requests())
    assert (owner.log[0], owner.log[-1], len(owner.log)) == ("open", "close", 8)
    before = 1
    asyncio.run(requests())
    assert (owner.log[-1], owner.log.count("open"), owner.log.count("close")) == ("close", 2, 2)


async def test_an_asgi_application_within_an_asgi_application() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "no lifespan"
        body = (await receive())["body"]
        await send(
            {"type": "http.response.start", "status": 201, "headers": [(b"x-path", scope["raw_path"])]}
        )
        await send({"type": "http.response.body", "body": body})

    status, headers, body = await ask(to_asgi(asgi(app)), scope_of("POST", "/a%20b", path="/a b"), b"hi")
    assert (status, headers[b"x-path"], body) == (201, b"/a%20b", b"hi")


async def test_a_scope_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="does not serve 'mail'"):
        await to_asgi(hello)({"type": "mail"}, never, never)  # type: ignore[arg-type]


def test_it_is_described_and_checked() -> None:
    assert repr(to_asgi(hello)) == "to_asgi(hello)"
    with pytest.raises(TypeError, match="takes Stream"):
        to_asgi(stack(http.server(), hello))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layer factory"):
        to_asgi(http.request_id)  # type: ignore[arg-type]

"""ASGI applications over HTTP: transcripts."""

import asyncio
from typing import Any

import pytest

from llama import Shutdown, asgi, stack
from llama._core.server import LocalAddress, PeerAddress
from llama.http import Request, server
from llama.testing._stream_suite.helpers import spin
from tests.http.serving import client_of, get, last, talk

App = Any


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP here")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def asked(app: App, *said: bytes) -> bytes:
    return talk(stack(server(), asgi(app)), *said)


def test_an_application_answers() -> None:
    assert asked(hello, get() + last()) == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello"
    )


def test_an_application_gets_the_scope_of_the_request() -> None:
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await hello(scope, receive, send)

    stacked = stack(server(), asgi(app, root_path="/root"))
    talk(stacked, last("/a%20b/%C3%A4/\xc3\xa4?c=%20", "X-A: b", "x-a: c"))
    (scope,) = scopes
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["method"], scope["scheme"], scope["http_version"]) == ("GET", "http", "1.1")
    assert (scope["raw_path"], scope["query_string"]) == ("/a%20b/%C3%A4/\xc3\xa4".encode(), b"c=%20")
    assert scope["root_path"] == "/root"
    assert scope["headers"][0] == (b"host", b"a")
    assert scope["headers"][-2:] == [(b"x-a", b"b"), (b"x-a", b"c")]
    assert scope["client"] == ("192.0.2.1", 5)
    assert scope["server"] is None
    assert scope["state"] == {}
    assert "tls" not in scope["extensions"]


@pytest.mark.parametrize(
    ("path", "decoded"), [("/%C3%A4", "/\xe4"), ("/\xe4", "/\xe4"), ("/%ff", "/\ufffd"), ("/%2F", "//")]
)
def test_a_path_is_decoded(path: str, decoded: str) -> None:
    paths: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await hello(scope, receive, send)

    asked(app, last(path))
    assert paths == [decoded]


def test_the_scope_has_the_server_address_if_known() -> None:
    async def main() -> Any:
        scopes: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            await hello(scope, receive, send)

        handler = stack(server(), asgi(app))

        async def located(stream: Any) -> None:
            stream.extensions.set(LocalAddress("192.0.2.2", 80))
            stream.extensions.set(PeerAddress("unix", 0))
            await handler(stream)

        async with client_of(located) as client:
            await client.say(last())
            await client.hear_end()
        return scopes[0]

    assert asyncio.run(main())["server"] == ("192.0.2.2", 80)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


def test_bodies_stream_both_ways() -> None:
    async def main() -> None:
        async with client_of(stack(server(), asgi(echo))) as client:
            await client.say(get("/", "Transfer-Encoding: chunked", "Connection: close", method="POST"))
            await client.say(b"3\r\nabc\r\n")
            await client.hear(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n"
            )
            await client.say(b"3\r\ndef\r\n")
            await client.hear(b"3\r\ndef\r\n")
            await client.say(b"0\r\n\r\n")
            assert await client.hear_end() == b"0\r\n\r\n"

    asyncio.run(main())


def test_a_body_with_the_head_is_one_message() -> None:
    messages: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages.append(await receive())
        await hello(scope, receive, send)

    asked(app, last("/", "Content-Length: 3", method="POST") + b"abc")
    asked(app, last())
    assert messages == [
        {"type": "http.request", "body": b"abc", "more_body": False},
        {"type": "http.request", "body": b"", "more_body": False},
    ]


def test_a_slow_client_slows_the_application() -> None:
    async def main() -> None:
        sent = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            nonlocal sent
            await send({"type": "http.response.start", "status": 200})
            for _ in range(1000):
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
                sent += 1
            await send({"type": "http.response.body"})

        async with client_of(stack(server(), asgi(app))) as client:
            await client.say(last())
            await client.stream.read(1)
            before = -1
            while before != sent:
                before = sent
                await spin(500)
            assert sent < 500
            assert len(await client.hear_end()) > 100_000_000
            assert sent == 1000

    asyncio.run(main())


def test_trailers_follow_the_body() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "http.response.trailers" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "trailers": True})
        await send({"type": "http.response.body", "body": b"a"})
        await send({"type": "http.response.trailers", "headers": [(b"x-a", b"b")], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"x-c", b"d")]})

    assert asked(app, last()).endswith(b"1\r\na\r\n0\r\nx-a: b\r\nx-c: d\r\n\r\n")


def test_early_hints_are_sent_at_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a>", b"</b>"]})
        await hello(scope, receive, send)

    heard = asked(app, last())
    assert heard.startswith(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\nHTTP/1.1 200 OK\r\n"
    )


def test_an_application_may_go_on_after_its_response() -> None:
    async def main() -> None:
        go, went = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await hello(scope, receive, send)
            await go.wait()
            went.set()

        async with client_of(stack(server(), asgi(app))) as client:
            await client.say(last())
            assert (await client.hear_end()).endswith(b"hello")
            go.set()
            await went.wait()

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["before", "within"])
def test_the_disconnect_of_a_client_is_reported(moment: str) -> None:
    async def main() -> list[str]:
        begun, over = asyncio.Event(), asyncio.Event()
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.request"
            if moment == "within":
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"a", "more_body": True})
            begun.set()
            seen.append((await receive())["type"])
            seen.append((await receive())["type"])
            try:
                if moment == "before":
                    await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"a", "more_body": True})
            except OSError:
                seen.append("error")
            over.set()

        async with client_of(stack(server(), asgi(app))) as client:
            await client.say(get())
            await begun.wait()
            client.stream.abort()
            await over.wait()
        return seen

    assert asyncio.run(main()) == ["http.disconnect", "http.disconnect", "error"]


def test_an_application_that_fails_first_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("secret")

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    for app in (fails, silent):
        assert asked(app, last()).startswith(b"HTTP/1.1 500 ")
    assert len(caplog.records) == 2


def test_an_application_that_fails_later_breaks_the_response_off() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise RuntimeError("secret")

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})

    for app in (fails, returns):
        with pytest.raises(ConnectionResetError):
            asked(app, last())


def test_an_application_that_fails_at_the_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        raise RuntimeError("later")

    assert asked(app, last()).endswith(b"hello")
    assert "failed after its response" in caplog.text


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body", "body": b"a"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.start", "status": 200}],
        [{"type": "http.nonsense"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.early_hint", "links": []}],
        [{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]}],
    ],
)
def test_messages_out_of_turn_are_errors_of_the_application(messages: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    assert asked(app, last()).startswith(b"HTTP/1.1 500 ")


def test_a_response_without_a_length_is_given_one() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"X-A", b"b")]})
        await send({"type": "http.response.body", "body": b"hello"})

    heard = asked(app, last())
    assert heard == (
        b"HTTP/1.1 404 Not Found\r\nX-A: b\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    )


def test_its_repr_names_the_application() -> None:
    assert repr(asgi(hello)) == "asgi(hello)"
    with pytest.raises(TypeError, match="call it"):
        stack(server(), asgi)  # type: ignore[arg-type]
    assert isinstance(Request("GET", "/"), Request)


def test_tasks_that_outlive_the_application_receive_a_disconnect() -> None:
    left: list[asyncio.Task[Any]] = []

    async def listen(receive: Any) -> Any:
        await receive()
        return await receive()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        left.append(Shutdown.current().spawn(listen(receive)))
        await hello(scope, receive, send)

    asked(app, last())
    assert left[0].result() == {"type": "http.disconnect"}

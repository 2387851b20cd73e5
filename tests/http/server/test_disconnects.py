"""How exchanges end that do not end well, and how connections end at all."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llama import serve, stack, tls, to_asgi
from llama._core.errors import (
    ConfigError,
    OverloadedError,
    ProtocolError,
    RefusedError,
    TruncatedError,
    UnreachableError,
)
from llama.http import Request, RequestHandler, Response, server
from llama.http._messages.error_response import status_of
from tests.http.serving import CLOSING, HELLO, client_of, exchange_of, get, hello, last, talk


def raising(error: BaseException) -> RequestHandler:
    async def answer(request: Request) -> Response:
        raise error

    return answer


# errors of the exchange

ERRORS: list[tuple[BaseException, int, str]] = [
    (RuntimeError("secret"), 500, "proxy_internal_error"),
    (FileNotFoundError("secret"), 500, "proxy_internal_error"),
    (TimeoutError("secret"), 504, "http_response_timeout"),
    (ConnectionResetError("secret"), 502, "connection_terminated"),
    (UnreachableError("secret"), 502, "destination_unavailable"),
    (TruncatedError("secret"), 502, "http_response_incomplete"),
    (OverloadedError("secret", retry_after=2.5), 503, "connection_limit_reached"),
    (ProtocolError("secret", status=502), 502, "http_protocol_error"),
    (RefusedError("shown"), 403, "http_request_denied"),
    (ProtocolError("shown"), 400, "http_request_error"),
    (RefusedError("shown", status=451), 451, "http_request_denied"),
]


@pytest.mark.parametrize(("error", "status", "proxy_error"), ERRORS, ids=lambda value: str(value)[:40])
def test_an_error_is_answered_with_its_status(error: BaseException, status: int, proxy_error: str) -> None:
    heard = talk(stack(server(), raising(error)), get() + last())
    first, _, second = heard.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert f"Proxy-Status: llama; error={proxy_error}\r\n".encode() in first + b"\r\n"
    assert (b"Retry-After: 3\r\n" in first) is isinstance(error, OverloadedError)
    assert b"secret" not in heard
    assert (b"shown" in heard) is (status < 500)
    assert b"HTTP/1.1 %d " % status in second, "the connection goes on"


def test_an_invalid_status_of_an_error_is_ignored() -> None:
    error = RuntimeError()
    error.status = 200  # type: ignore[attr-defined]
    assert status_of(error) == 500


def test_an_unexpected_error_is_logged_with_its_trace_once(caplog: pytest.LogCaptureFixture) -> None:
    talk(stack(server(), raising(RuntimeError("secret"))), last())
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.name == "llama.server"


def test_an_expected_error_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    talk(stack(server(), raising(UnreachableError("nobody at a:1"))), last())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "502: nobody at a:1" in record.getMessage()


def test_the_error_page_can_be_replaced() -> None:
    def page(error: BaseException, status: int, request: Request | None) -> Response:
        method = request.method if request is not None else "nothing"
        return Response(status, {"Proxy-Status": "mine"}, f"{method}: {error}")

    heard = talk(stack(server(error_handler=page), raising(RuntimeError("shown"))), last())
    assert heard.endswith(b"GET: shown")
    assert heard.count(b"Proxy-Status") == 1
    assert talk(stack(server(error_handler=page), hello), b"\0").endswith(
        b"nothing: a control character in the head"
    )


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("edge-1.example:8", b"edge-1.example:8"),
        ("*", b"*"),
        ("1st", b'"1st"'),
        ('the "edge" \\ ours', b'"the \\"edge\\" \\\\ ours"'),
    ],
)
def test_the_name_in_proxy_status_can_be_set(name: str, field: bytes) -> None:
    named = server(proxy_name=name)
    line = b"\r\nProxy-Status: %b; error=%b\r\n"
    assert line % (field, b"destination_unavailable") in talk(
        stack(named, raising(UnreachableError("a"))), last()
    )
    assert line % (field, b"http_request_error") in talk(stack(named, hello), b"\0")


@pytest.mark.parametrize("name", ["", "a\r\nb", "a\tb", "caf\u00e9"])
@pytest.mark.parametrize("factory", [server, to_asgi])
def test_an_invalid_proxy_status_name_is_an_error(factory: Any, name: str) -> None:
    given = () if factory is server else (hello,)
    with pytest.raises(ConfigError, match=r"\(proxy_name='.*'\): expected printable ASCII characters"):
        factory(*given, proxy_name=name)


def test_a_failing_error_page_yields_an_empty_response() -> None:
    def page(error: BaseException, status: int, request: Request | None) -> Response:
        raise RuntimeError("the page")

    heard = talk(stack(server(error_handler=page), raising(RuntimeError())), last())
    assert heard == b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def no_response(request: Request) -> Response:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    "exchange",
    [
        no_response,
        exchange_of(Response(200, {"Content-Length": "4"}, b"hello")),
        exchange_of(Response(99)),
        exchange_of(Response(199)),
        exchange_of(Response(1000)),
    ],
)
def test_a_response_that_cannot_be_sent_is_an_internal_error(exchange: RequestHandler) -> None:
    assert talk(stack(server(), exchange), last()).startswith(b"HTTP/1.1 500 ")


# bad requests

REFUSED: list[tuple[bytes, int]] = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    (b"\x16\x03\x01\x02\x00", 400),
    (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 70_000, 431),
    (b"GET /" + b"b" * 20_000, 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
]


@pytest.mark.parametrize(("said", "status"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_bad_request_is_answered_and_closes_the_connection(said: bytes, status: int) -> None:
    async def unreachable(request: Request) -> Response:
        raise AssertionError("this must not be asked")

    heard = talk(stack(server(), unreachable), said)
    assert heard.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in heard
    assert heard.count(b"HTTP/1.1") == 1


def test_a_bad_request_does_not_affect_the_one_before() -> None:
    heard = talk(stack(server(), hello), get() + b"nonsense\r\n\r\n" + get())
    assert heard.startswith(HELLO + b"HTTP/1.1 400 ")
    assert heard.count(b"HTTP/1.1") == 2


# bodies that break off


async def broken() -> AsyncIterator[bytes]:
    yield b"hello"
    raise UnreachableError("the upstream is gone")


@pytest.mark.parametrize(
    "response",
    [
        Response(200, body=broken()),
        Response(200, {"Content-Length": "10"}, body=broken()),
        Response(200, {"Content-Length": "10"}, body=[b"hello"]),
        Response(200, {"Content-Length": "7"}, body=[b"hello", b"world"]),
    ],
)
def test_a_failing_response_body_aborts_the_connection(response: Response) -> None:
    async def main() -> None:
        async with client_of(stack(server(), exchange_of(response))) as client:
            await client.say(last())
            with pytest.raises(ConnectionResetError):
                await client.hear_end()

    asyncio.run(main())


# the client leaves


@pytest.mark.parametrize("leave", ["write_eof", "abort"])
def test_a_disconnect_cancels_the_handler(leave: str) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait(request: Request) -> Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

        async with client_of(stack(server(), wait)) as client:
            await client.say(get())
            await begun.wait()
            if leave == "abort":
                client.stream.abort()
            else:
                await client.stream.write_eof()
            await ended.wait()
            await client.served

    asyncio.run(main())


def test_a_disconnect_ends_a_waiting_stream() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def events() -> AsyncIterator[bytes]:
            try:
                yield b"one"
                await asyncio.Event().wait()
            finally:
                closed.set()

        response = Response(200, body=events())
        over = asyncio.Event()
        response.on_close(over.set)
        async with client_of(stack(server(), exchange_of(response))) as client:
            await client.say(get())
            await client.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await client.stream.write_eof()
            await closed.wait()
            await over.wait()

    asyncio.run(main())


def test_a_client_may_half_close_if_allowed() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def wait(request: Request) -> Response:
            asyncio.get_running_loop().call_later(0.1, go.set)  # longer than it takes to look for the end
            await go.wait()
            return Response(200, body=b"hello")

        async with client_of(stack(server(half_close=True), wait)) as client:
            await client.say(get())
            await client.stream.write_eof()
            assert await client.hear_end() == CLOSING

    asyncio.run(main())


def test_the_next_request_may_arrive_during_a_slow_one() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def wait(request: Request) -> Response:
            asyncio.get_running_loop().call_later(0.1, go.set)
            await go.wait()
            return Response(200, body=b"hello")

        async with client_of(stack(server(), wait)) as client:
            await client.say(get())
            await client.say(last())
            assert await client.hear_end() == HELLO + CLOSING

    asyncio.run(main())


def test_on_close_runs_after_every_kind_of_end() -> None:
    running: list[str] = []

    async def main() -> None:
        for path in ("/", "/error", "/broken", "/wait"):
            async with client_of(stack(server(), answer)) as client:
                await client.say(last(path))
                if path == "/wait":
                    await waiting.wait()
                    client.stream.abort()
                    continue
                with contextlib.suppress(ConnectionResetError):
                    await client.hear_end()
            assert not running

    async def answer(request: Request) -> Response:
        if request.path == "/error":
            raise UnreachableError("x")

        async def wait() -> AsyncIterator[bytes]:
            waiting.set()
            await asyncio.Event().wait()
            yield b""

        bodies = {"/broken": broken(), "/wait": wait()}
        response = Response(200, body=bodies.get(request.path, b"hello"))
        running.append(request.path)
        response.on_close(lambda: running.remove(request.path))
        return response

    waiting = asyncio.Event()
    asyncio.run(main())


# times

SHORT = 0.05


def test_a_connection_without_a_first_byte_is_closed_without_a_response() -> None:
    assert talk(stack(server(first_byte_timeout=SHORT), hello)) == b""


def test_an_idle_connection_is_closed_without_a_response() -> None:
    assert talk(stack(server(idle_timeout=SHORT), hello), get()) == HELLO


def test_a_slow_head_is_answered_with_408() -> None:
    heard = talk(stack(server(head_timeout=SHORT), hello), b"GET / HTTP/1.1\r\n")
    assert heard.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"Connection: close" in heard


def test_a_body_without_progress_is_answered_with_408() -> None:
    async def read(request: Request) -> Response:
        return Response(200, body=await request.body.read())

    said = get("/", "Content-Length: 5", method="POST") + b"a"
    heard = talk(stack(server(body_timeout=SHORT), read), said)
    assert heard.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"Connection: close" in heard


def test_a_slow_handler_is_a_504_and_the_connection_is_reused() -> None:
    async def wait(request: Request) -> Response:
        if request.path == "/wait":
            await asyncio.Event().wait()
        return Response(200, body=b"hello")

    heard = talk(stack(server(handler_timeout=SHORT), wait), get("/wait") + last())
    assert heard.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert heard.endswith(CLOSING)


def test_a_client_that_reads_nothing_is_disconnected() -> None:
    async def main() -> None:
        response = Response(200, body=bytes(50_000_000))
        over = asyncio.Event()
        response.on_close(over.set)
        async with client_of(stack(server(write_timeout=SHORT), exchange_of(response))) as client:
            await client.say(get())
            await over.wait()
            await client.served

    asyncio.run(main())


def test_a_slow_client_is_not_disconnected() -> None:
    size = 3_000_000
    response = Response(200, body=bytes(size))

    async def main() -> None:
        async with client_of(stack(server(write_timeout=5.0), exchange_of(response))) as client:
            await client.say(last())
            assert len(await client.hear_end()) > size

    asyncio.run(main())


def test_a_timeout_of_zero_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"http\.server\(head_timeout=0\)"):
        server(head_timeout=0)


# stopping


def test_stopping_closes_idle_connections() -> None:
    async def main() -> None:
        async with client_of(stack(server(), hello)) as fresh, client_of(stack(server(), hello)) as used:
            await used.say(get())
            await used.hear(HELLO)
            for client in (fresh, used):
                client.shutdown.stop()
                assert await client.hear_end() == b""

    asyncio.run(main())


def test_stopping_waits_for_requests_in_flight() -> None:
    async def main() -> None:
        begun, go = asyncio.Event(), asyncio.Event()

        async def wait(request: Request) -> Response:
            begun.set()
            await go.wait()
            return Response(200, body=b"hello")

        async with client_of(stack(server(), wait)) as client:
            await client.say(get())
            await begun.wait()
            client.shutdown.stop()
            go.set()
            assert await client.hear_end() == CLOSING

    asyncio.run(main())


def test_a_cancelled_connection_is_cancelled() -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait(request: Request) -> Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

        async with client_of(stack(server(), wait)) as client:
            await client.say(get())
            await begun.wait()
            client.shutdown.cancel()
            await ended.wait()
            with pytest.raises(asyncio.CancelledError):
                await client.served
            client.served = client.shutdown.spawn(asyncio.sleep(0))

    asyncio.run(main())


def test_a_tls_client_may_omit_close_notify_between_requests(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = tls.CertificateAuthority.create()
    ca = authority.write_pem(tmp_path / "ca.pem")
    handler = stack(tls.server(*authority.issue("localhost").write(tmp_path)), server(), hello)

    def ask(port: int) -> bytes:
        context = ssl.create_default_context(cafile=str(ca))
        plain = socket.create_connection(("127.0.0.1", port))
        client = context.wrap_socket(plain, server_hostname="localhost")
        client.sendall(get())
        heard = client.recv(65536)
        client.close()  # the socket alone
        return heard

    async def main() -> bytes:
        async with serve(handler, listen="127.0.0.1:0") as serving:
            heard = await asyncio.to_thread(ask, serving.port)
            await serving.shutdown.drain()
            return heard

    assert asyncio.run(main()).endswith(b"hello")
    assert not caplog.records

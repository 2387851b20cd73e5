"""Requests keep their parts; responses are owned."""

import asyncio
import gzip

import pytest

from llama._core.errors import LlamaError
from llama._core.extensions import Extensions
from llama.http._messages.body import BytesBody
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, Response


@pytest.mark.parametrize(
    ("method", "url", "scheme", "authority", "path", "whole"),
    [
        ("GET", "http://a.example/b?c=d", "http", "a.example", "/b?c=d", "http://a.example/b?c=d"),
        ("GET", "HTTPS://a.example:8443", "https", "a.example:8443", "", "https://a.example:8443"),
        ("GET", "http://a.example/b#c", "http", "a.example", "/b", "http://a.example/b"),
        ("GET", "/b c?\xe4", "", "", "/b%20c?%C3%A4", "http:///b%20c?%C3%A4"),
        ("GET", "http://\xe4.example/", "http", "xn--4ca.example", "/", "http://xn--4ca.example/"),
        ("OPTIONS", "*", "", "", "*", "http://"),
        ("CONNECT", "a.example:443", "", "a.example:443", "", "a.example:443"),
    ],
)
def test_a_url_is_split_into_its_parts(
    method: str, url: str, scheme: str, authority: str, path: str, whole: str
) -> None:
    request = Request(method, url)
    assert (request.scheme, request.authority, request.path) == (scheme, authority, path)
    assert request.url == whole
    assert request.is_absolute_form is bool(scheme)


def test_a_path_cannot_end_the_request_line() -> None:
    assert Request("GET", "/a\r\nb").path == "/a%0D%0Ab"
    assert Request("GET", "http://a.example/a\r\nb").path == "/a%0D%0Ab"


def test_the_authority_is_the_host_field() -> None:
    request = Request("GET", "http://a.example/", {"X": "y", "Host": "b.example"})
    assert request.authority == "b.example"
    request.authority = "c.example"
    assert list(request.headers) == [("X", "y"), ("Host", "c.example")]
    request = Request("GET", "/", {"X": "y"})
    request.authority = "d.example"
    assert list(request.headers) == [("Host", "d.example"), ("X", "y")]


def test_the_query_is_what_follows_the_first_question_mark() -> None:
    assert Request("GET", "/a?b?c").query == "b?c"
    assert Request("GET", "/a").query == ""


def test_assigning_a_body_removes_the_framing_fields() -> None:
    response = Response(200, {"Content-Length": "3", "Transfer-Encoding": "chunked", "A": "b"}, b"abc")
    response.body = response.body
    assert len(response.headers) == 3
    response.body = BytesBody(b"abcd")
    assert list(response.headers) == [("A", "b")]


def test_assigning_a_decoded_body_drops_its_coding() -> None:
    data = gzip.compress(b"a cloud")
    response = Response(200, {"Content-Length": str(len(data)), "Content-Encoding": "gzip"}, [data])
    response.body = response.body.decoded()
    assert list(response.headers) == []
    assert asyncio.run(response.body.read()) == b"a cloud"


def test_assigning_an_edited_body_keeps_its_coding() -> None:
    data = gzip.compress(b"a cloud")
    response = Response(200, {"Content-Length": str(len(data)), "Content-Encoding": "gzip"}, [data])
    response.body = response.body.replace(b"cloud", b"llama")
    assert list(response.headers) == [("Content-Encoding", "gzip")]
    assert gzip.decompress(asyncio.run(response.body.read())) == b"a llama"


def test_an_edited_body_of_another_message_is_assigned_decoded() -> None:
    source = Response(200, {"Content-Encoding": "gzip"}, [gzip.compress(b"a cloud")])
    response = Response(200, {"A": "b"})
    response.body = source.body.replace(b"cloud", b"llama")
    assert list(response.headers) == [("A", "b")]
    assert asyncio.run(response.body.read()) == b"a llama"


def test_assigning_an_untouched_body_keeps_its_coding() -> None:
    response = Response(200, {"Content-Encoding": "gzip"}, [b"x"])
    response.body = b"y"
    assert "content-encoding" in response.headers


def test_trailers_can_be_set() -> None:
    response = Response(200)
    assert response.trailers is None
    response.trailers = Headers({"A": "b"})
    assert response.trailers["a"] == "b"


def test_a_request_inherits_the_extensions_of_its_connection() -> None:
    connection = Extensions(5)
    request = Request("GET", "/")
    request._connection_extensions = connection
    request.extensions.set("a")
    assert request.extensions[int] == 5
    assert connection.get(str) is None


def test_closing_a_response_calls_back_once_last_first() -> None:
    order: list[str] = []

    async def asynchronous() -> None:
        order.append("async")

    def failing() -> None:
        order.append("failing")
        raise LlamaError("x")

    response = Response(200)
    response.on_close(lambda: order.append("sync"))
    response.on_close(asynchronous)
    response.on_close(failing)

    async def main() -> None:
        with pytest.raises(LlamaError):
            await response.aclose()
        await response.aclose()

    asyncio.run(main())
    assert order == ["failing", "async", "sync"]


def test_inform_without_a_server_does_nothing() -> None:
    seen: list[tuple[int, str]] = []

    async def inform(status: int, headers: Headers) -> None:
        seen.append((status, headers["link"]))

    async def main() -> None:
        request = Request("GET", "/")
        await request.send_informational(103, {"Link": "a"})
        request._send_informational = inform
        await request.send_informational(103, {"Link": "b"})
        for status in (99, 101, 200):
            with pytest.raises(ValueError, match="informational"):
                await request.send_informational(status)

    asyncio.run(main())
    assert seen == [(103, "b")]


def test_messages_have_a_repr() -> None:
    assert repr(Request("GET", "http://a/b")) == "<Request GET http://a/b>"
    assert repr(Response(404)) == "<Response 404>"

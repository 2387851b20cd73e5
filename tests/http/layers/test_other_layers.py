"""Body limits, path normalization, access logs and redirects."""

import asyncio
import base64
import json
import logging
import re
from collections.abc import AsyncIterator

import pytest

from llama import http, stack
from llama._core.errors import ConfigError, ProtocolError, TooLargeError, UnreachableError
from llama.http import Request, RequestHandler, Response, server
from llama.http._layers.routing.normalize_path import normalized
from tests.http.serving import CLOSING, client_of, exchange_of, get, hello, last, talk


def ask(exchange: RequestHandler, request: Request) -> Response:
    async def main() -> Response:
        return await exchange(request)

    return asyncio.run(main())


# body limit


async def size(request: Request) -> Response:
    return Response(200, body=str(len(await request.body.read())))


@pytest.mark.parametrize("framed", [["Content-Length: 5"], ["Transfer-Encoding: chunked"]])
def test_a_body_above_the_limit_is_413(framed: list[str]) -> None:
    raw = b"hello" if "Length" in framed[0] else b"5\r\nhello\r\n0\r\n\r\n"
    said = last("/", *framed, method="POST") + raw
    assert talk(stack(server(), http.body_limit(5), size), said).endswith(b"\r\n\r\n5")
    assert talk(stack(server(), http.body_limit(4), size), said).startswith(b"HTTP/1.1 413 ")


def test_a_body_above_the_limit_gets_no_100_continue() -> None:
    said = get("/", "Content-Length: 5", "Expect: 100-continue", method="POST")
    assert talk(stack(server(), http.body_limit(4), size), said).startswith(b"HTTP/1.1 413 ")
    with pytest.raises(TooLargeError):
        ask(stack(http.body_limit(4), size), Request("POST", "/", body=b"hello"))
    with pytest.raises(ConfigError):
        http.body_limit(-1)


# paths


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a//b///", "/a/b/"),
        ("/a/./b/.", "/a/b/"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/%61%2e%2E/%7e", "/a../~"),
        ("/a/%2e%2e/b", "/b"),
        ("/a%2fb%c3%a4", "/a%2Fb%C3%A4"),
        ("/...", "/..."),
        ("*", "*"),
        ("", ""),
    ],
)
def test_normalize_path_unifies_spellings(path: str, normal: str) -> None:
    assert normalized(path) == normal
    assert normalized(normal) == normal


@pytest.mark.parametrize("path", ["/..", "/a/../..", "/%2e%2e/", "/%", "/%zz", "/a%0", "/%00"])
def test_a_path_above_the_root_or_with_a_malformed_escape_is_rejected(path: str) -> None:
    with pytest.raises(ProtocolError):
        normalized(path)


def test_normalize_path_does_not_change_the_query() -> None:
    paths: list[str] = []

    async def look(request: Request) -> Response:
        paths.append(request.path)
        return Response()

    ask(stack(http.normalize_path(), look), Request("GET", "/a/../b?c=/../%2e"))
    ask(stack(http.normalize_path(merge_slashes=False), look), Request("GET", "/a//b"))
    assert paths == ["/b?c=/../%2e", "/a//b"]


# the access log


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "llama.access")
    return caplog


def logged(lines: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in lines.records if record.name == "llama.access"]


def test_the_access_log_has_one_line_for_each_exchange(lines: pytest.LogCaptureFixture) -> None:
    said = last("/a?b", "Referer: r", 'User-Agent: "x"')
    assert talk(stack(server(), http.access_log(), hello), said) == CLOSING
    assert talk(stack(server(), http.access_log("common"), hello), said) == CLOSING
    combined, common = [record.getMessage() for record in logged(lines)]
    combined = re.sub(r"\[.*?\]", "[]", combined)
    assert combined == '192.0.2.1 - - [] "GET /a?b HTTP/1.1" 200 5 "r" "\\x22x\\x22"'
    assert common.endswith('"GET /a?b HTTP/1.1" 200 5')


@pytest.mark.parametrize("code", [0x00, 0x0A, 0x1B, 0x22, 0x5C, 0x7F, 0x80, 0x85, 0x9B, 0x9F])
def test_the_access_log_escapes_quotes_and_control_characters(
    lines: pytest.LogCaptureFixture, code: int
) -> None:
    request = Request("GET", "/a", {"User-Agent": "a", "Referer": "r"})
    for name in ("User-Agent", "Referer"):
        request.headers._lines[request.headers.names.index(name.lower())] = f"{name}: x{chr(code)}y"
    request.path = f"/x{chr(code)}y"

    async def main() -> None:
        await (await stack(http.access_log("combined"), hello)(request)).aclose()

    asyncio.run(main())
    (record,) = logged(lines)
    line = record.getMessage()
    assert line.count(f"x\\x{code:02x}y") == 3 and line.isascii() and line.count('"') == 6


def test_the_access_log_of_a_forward_proxy_has_absolute_urls(lines: pytest.LogCaptureFixture) -> None:
    for log in (http.access_log("common"), http.access_log("json")):
        assert talk(stack(server(), log, hello), last("http://site.example:81/a?b")) == CLOSING
    common, told = [record.getMessage() for record in logged(lines)]
    assert common.endswith('"GET http://site.example:81/a?b HTTP/1.1" 200 5')
    fields = json.loads(told)
    assert (fields["server.address"], fields["url.path"]) == ("site.example:81", "/a")


def test_the_access_log_escapes_the_name_of_the_user(lines: pytest.LogCaptureFixture) -> None:
    credentials = base64.b64encode(b'a"\n\x1b:b').decode()
    application = stack(server(), http.access_log("common"), http.basic_auth({'a"\n\x1b': "b"}), hello)
    assert talk(application, last("/", f"Authorization: Basic {credentials}")) == CLOSING
    (record,) = logged(lines)
    assert "- a\\x22\\x0a\\x1b [" in record.getMessage()


def test_the_access_log_of_http_2_has_the_path(lines: pytest.LogCaptureFixture) -> None:
    request = Request("GET", "https://site.example/a?b")
    request.version = "2"

    async def main() -> None:
        await (await stack(http.access_log("common"), hello)(request)).aclose()

    asyncio.run(main())
    (record,) = logged(lines)
    assert record.getMessage().endswith('"GET /a?b HTTP/2" 200 5')


def test_the_access_log_can_be_json(lines: pytest.LogCaptureFixture) -> None:
    application = stack(
        server(), http.request_id(), http.access_log("json"), http.basic_auth({"a": "b"}), hello
    )
    talk(application, last("/a?b", "Authorization: Basic YTpi"))
    (record,) = logged(lines)
    fields = json.loads(record.getMessage())
    assert fields["url.path"] == "/a"
    assert fields["user.name"] == "a"
    assert len(fields["http.request.id"]) == 32
    assert fields["complete"] is True
    assert getattr(record, "http.response.status_code") == 200


async def broken() -> AsyncIterator[bytes]:
    yield b"hello"
    raise UnreachableError("gone")


async def failing(request: Request) -> Response:
    raise UnreachableError("gone")


@pytest.mark.parametrize(
    ("exchange", "status", "size", "complete"),
    [
        (exchange_of(Response(200, body=[b"hello", b"world"])), 200, 10, True),
        (exchange_of(Response(200, {"Content-Length": "9"}, broken())), 200, 5, False),
        (failing, 502, 0, True),
    ],
)
def test_the_access_log_shows_how_an_exchange_ended(
    exchange: RequestHandler, status: int, size: int, complete: bool, lines: pytest.LogCaptureFixture
) -> None:
    try:
        talk(stack(server(), http.access_log("json"), exchange), last())
    except ConnectionResetError:
        assert not complete
    (record,) = logged(lines)
    fields = json.loads(record.getMessage())
    assert fields["http.response.status_code"] == status
    assert fields["http.response.body.size"] == size
    assert fields["complete"] is complete


def test_a_client_that_disconnected_is_logged_as_499(lines: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def wait(request: Request) -> Response:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with client_of(stack(server(), http.access_log(), wait)) as client:
            await client.say(get())
            await begun.wait()
            client.stream.abort()
            await client.served

    asyncio.run(main())
    (record,) = logged(lines)
    assert '"GET / HTTP/1.1" 499 -' in record.getMessage()


def test_a_disabled_access_log_has_no_overhead(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "llama.access")
    assert talk(stack(server(), http.access_log(), hello), last()) == CLOSING
    assert not logged(caplog)
    with pytest.raises(ConfigError, match="expected 'common'"):
        http.access_log("short")  # type: ignore[arg-type]


# redirects


@pytest.mark.parametrize(
    ("host", "path", "location"),
    [
        ("a.example", "/b?c", "https://a.example/b?c"),
        ("a.example:80", "/b", "https://a.example/b"),
        ("[::1]:80", "/", "https://[::1]/"),
        ("[::1]", "/", "https://[::1]/"),
        ("a.example:", "//evil.example/", "https://a.example//evil.example/"),
        ("a.example", "*", "https://a.example/"),
    ],
)
def test_redirect_to_https_keeps_host_and_path(host: str, path: str, location: str) -> None:
    response = ask(http.redirect("https"), Request("GET", path, {"Host": host}))
    assert (response.status, response.headers["location"]) == (308, location)


def test_redirect_accepts_a_port_or_a_fixed_url() -> None:
    request = Request("GET", "http://a.example:8080/b")
    assert ask(http.redirect("https", port=8443), request).headers["location"] == "https://a.example:8443/b"
    response = ask(http.redirect("https://b.example/c", status=302), request)
    assert (response.status, response.headers["location"]) == (302, "https://b.example/c")
    with pytest.raises(ProtocolError, match="without a Host field"):
        ask(http.redirect("https"), Request("GET", "/"))
    with pytest.raises(ConfigError, match="status=200"):
        http.redirect("https", status=200)
    with pytest.raises(ConfigError, match="or a URL"):
        http.redirect("")
    assert talk(stack(server(), http.redirect("https")), last()).startswith(
        b"HTTP/1.1 308 Permanent Redirect\r\n"
    )

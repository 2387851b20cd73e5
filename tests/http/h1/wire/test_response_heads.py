"""What responses may look like, and which are refused rather than passed on: a table."""

import pytest

from llama._core.errors import ProtocolError
from llama.http._h1.wire.framing import CHUNKED, UNTIL_CLOSE
from llama.http._h1.wire.head import ResponseHead, parse_response


def response(line: bytes, *lines: bytes, method: str = "GET") -> ResponseHead:
    return parse_response(b"".join(each + b"\r\n" for each in (line, *lines)), method)


@pytest.mark.parametrize(
    ("line", "version", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK", "1.1", 200, "OK"),
        (b"HTTP/1.1 200 ", "1.1", 200, ""),
        (b"HTTP/1.1 200", "1.1", 200, ""),
        (b"HTTP/1.0 404 Not \xe4 Found", "1.0", 404, "Not \xe4 Found"),
        (b"HTTP/1.1 599 ", "1.1", 599, ""),
        (b"HTTP/1.1 600 OK", "1.1", 600, "OK"),
        (b"HTTP/1.1 999 Denied", "1.1", 999, "Denied"),
    ],
)
def test_a_status_line_is_taken_apart(line: bytes, version: str, status: int, reason: str) -> None:
    head = response(line)
    assert (head.version, head.status, head.reason) == (version, status, reason)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 1000 OK",
        b"HTTP/1.1 2xx OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200\tOK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/2.0 200 OK",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\nK",
    ],
)
def test_a_bad_status_line_is_a_bad_gateway(line: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        response(line)
    assert caught.value.status == 502


LENGTHS: list[tuple[str, bytes, list[bytes], int]] = [
    ("GET", b"HTTP/1.1 200 OK", [], UNTIL_CLOSE),
    ("GET", b"HTTP/1.0 200 OK", [], UNTIL_CLOSE),
    ("GET", b"HTTP/1.1 200 OK", [b"Content-Length: 5"], 5),
    ("GET", b"HTTP/1.1 200 OK", [b"Content-Length: 0"], 0),
    ("GET", b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], CHUNKED),
    ("HEAD", b"HTTP/1.1 200 OK", [b"Content-Length: 5"], 0),
    ("HEAD", b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked"], 0),
    ("HEAD", b"HTTP/1.1 200 OK", [], 0),
    ("GET", b"HTTP/1.1 304 Not Modified", [b"Content-Length: 5"], 0),
    ("GET", b"HTTP/1.1 304 Not Modified", [b"Transfer-Encoding: chunked"], 0),
    ("GET", b"HTTP/1.1 204 No Content", [], 0),
    ("GET", b"HTTP/1.1 204 No Content", [b"Content-Length: 0"], 0),
    ("GET", b"HTTP/1.1 204 No Content", [b"Content-Length: 5"], 0),
    ("GET", b"HTTP/1.1 204 No Content", [b"Transfer-Encoding: chunked"], 0),
    ("GET", b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"Content-Length: 5"], 5),
    ("GET", b"HTTP/1.1 200 OK", [b"Content-Length: 5,5 , 5"], 5),
    ("HEAD", b"HTTP/1.1 200 OK", [b"Content-Length: 5, 5"], 0),
    ("GET", b"HTTP/1.1 205 Reset Content", [b"Content-Length: 5"], 5),
    ("GET", b"HTTP/1.1 103 Early Hints", [], 0),
    ("GET", b"HTTP/1.1 103 Early Hints", [b"Content-Length: 5"], 0),
    ("GET", b"HTTP/1.1 103 Early Hints", [b"Transfer-Encoding: gzip"], 0),
    ("GET", b"HTTP/1.0 103 Early Hints", [b"Transfer-Encoding: chunked"], 0),
    ("GET", b"HTTP/1.1 101 Switching Protocols", [], 0),
    ("CONNECT", b"HTTP/1.1 200 Connection established", [], 0),
    ("CONNECT", b"HTTP/1.1 200 Connection established", [b"Content-Length: 5"], 0),
    ("CONNECT", b"HTTP/1.1 407 No", [b"Content-Length: 5"], 5),
]


@pytest.mark.parametrize(("method", "line", "lines", "length"), LENGTHS)
def test_the_length_of_a_body_is_decided(method: str, line: bytes, lines: list[bytes], length: int) -> None:
    assert response(line, *lines, method=method).length == length


AMBIGUOUS: list[tuple[str, bytes, list[bytes]]] = [
    ("both framings", b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"Transfer-Encoding: chunked"]),
    ("both framings to HEAD", b"HTTP/1.1 304 OK", [b"Content-Length: 5", b"Transfer-Encoding: chunked"]),
    ("two lengths", b"HTTP/1.1 200 OK", [b"Content-Length: 5", b"Content-Length: 6"]),
    ("a bad length", b"HTTP/1.1 200 OK", [b"Content-Length: 5a"]),
    ("an unknown coding", b"HTTP/1.1 200 OK", [b"Transfer-Encoding: gzip, chunked"]),
    ("chunked twice", b"HTTP/1.1 200 OK", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"]),
    ("chunked in HTTP/1.0", b"HTTP/1.0 200 OK", [b"Transfer-Encoding: chunked"]),
    ("a list of differing lengths", b"HTTP/1.1 200 OK", [b"Content-Length: 5, 6"]),
    ("a list with an empty length", b"HTTP/1.1 200 OK", [b"Content-Length: 5,,5"]),
    ("a list of signed lengths", b"HTTP/1.1 200 OK", [b"Content-Length: +5, +5"]),
    ("a folded line", b"HTTP/1.1 200 OK", [b"A: b", b" c"]),
    ("a space before the colon", b"HTTP/1.1 200 OK", [b"A : b"]),
    ("a bare LF", b"HTTP/1.1 200 OK", [b"A: b\nC: d"]),
    ("NUL", b"HTTP/1.1 200 OK", [b"A: b\x00"]),
]


@pytest.mark.parametrize(("line", "lines"), [pytest.param(b, c, id=a) for a, b, c in AMBIGUOUS])
def test_an_ambiguous_response_is_a_bad_gateway(line: bytes, lines: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="in a response") as caught:
        response(line, *lines)
    assert caught.value.status == 502


def test_a_connection_is_kept_unless_its_end_is_the_bodys() -> None:
    assert response(b"HTTP/1.1 200 OK", b"Content-Length: 5").keep_alive
    assert not response(b"HTTP/1.1 200 OK").keep_alive
    assert not response(b"HTTP/1.1 200 OK", b"Content-Length: 5", b"Connection: close").keep_alive
    assert not response(b"HTTP/1.0 200 OK", b"Content-Length: 5").keep_alive
    assert response(b"HTTP/1.0 200 OK", b"Content-Length: 5", b"Connection: keep-alive").keep_alive


def test_the_protocol_that_was_switched_to_is_named() -> None:
    head = response(b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: WebSocket")
    assert head.upgrade_protocol == "websocket"

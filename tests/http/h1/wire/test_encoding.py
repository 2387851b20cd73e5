"""Messages as bytes: transcripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import ProtocolError
from llama.http._h1.wire.encode import encode_request, encode_response, request_framing, response_framing
from llama.http._h1.wire.framing import CHUNKED, UNTIL_CLOSE
from llama.http._h1.wire.head import parse_request, parse_response
from llama.http._messages.headers import Headers

h11 = pytest.importorskip("h11")


def response(
    method: str,
    status: int,
    headers: dict[str, str],
    length: int | None,
    version: str = "1.1",
    extra: str = "",
) -> bytes:
    fields = Headers(headers)
    framing = response_framing(method, status, version, fields, length)
    return encode_response(method, status, "", fields, framing, extra, length)


RESPONSES: list[tuple[str, int, dict[str, str], int | None, str, bytes]] = [
    ("GET", 200, {}, 5, "1.1", b"200 OK\r\nContent-Length: 5\r\n"),
    ("GET", 200, {}, 0, "1.1", b"200 OK\r\nContent-Length: 0\r\n"),
    ("GET", 200, {"A": "b", "content-length": "5"}, 5, "1.1", b"200 OK\r\nA: b\r\ncontent-length: 5\r\n"),
    ("GET", 200, {"Content-Length": "5"}, None, "1.1", b"200 OK\r\nContent-Length: 5\r\n"),
    ("GET", 200, {}, None, "1.1", b"200 OK\r\nTransfer-Encoding: chunked\r\n"),
    ("GET", 200, {"Transfer-Encoding": "x"}, None, "1.1", b"200 OK\r\nTransfer-Encoding: chunked\r\n"),
    ("GET", 200, {"Connection": "x", "Keep-Alive": "y"}, 0, "1.1", b"200 OK\r\nContent-Length: 0\r\n"),
    ("GET", 200, {}, None, "1.0", b"200 OK\r\n"),
    ("HEAD", 200, {}, 5, "1.1", b"200 OK\r\nContent-Length: 5\r\n"),
    ("HEAD", 200, {"Content-Length": "7"}, 0, "1.1", b"200 OK\r\nContent-Length: 7\r\n"),
    ("HEAD", 200, {}, None, "1.1", b"200 OK\r\n"),
    ("GET", 304, {"Content-Length": "7"}, 0, "1.1", b"304 Not Modified\r\nContent-Length: 7\r\n"),
    ("GET", 204, {"Content-Length": "0"}, 0, "1.1", b"204 No Content\r\n"),
    ("GET", 204, {}, 0, "1.1", b"204 No Content\r\n"),
    ("GET", 103, {"Link": "a"}, 0, "1.1", b"103 Early Hints\r\nLink: a\r\n"),
    ("GET", 599, {}, 0, "1.1", b"599 \r\nContent-Length: 0\r\n"),
]


@pytest.mark.parametrize(("method", "status", "headers", "length", "version", "raw"), RESPONSES)
def test_a_response_is_framed(
    method: str, status: int, headers: dict[str, str], length: int | None, version: str, raw: bytes
) -> None:
    assert response(method, status, headers, length, version) == b"HTTP/1.1 " + raw + b"\r\n"


def test_extra_lines_come_last() -> None:
    assert response("GET", 204, {"A": "b"}, 0, extra="Date: x\r\n").endswith(b"A: b\r\nDate: x\r\n\r\n")


def test_how_a_body_of_unknown_length_is_framed() -> None:
    assert response_framing("GET", 200, "1.1", Headers(), None) == CHUNKED
    assert response_framing("GET", 200, "1.0", Headers(), None) == UNTIL_CLOSE
    assert response_framing("GET", 200, "1.0", Headers({"Content-Length": "3"}), None) == 3
    assert request_framing(Headers(), None) == CHUNKED
    assert request_framing(Headers({"Content-Length": "3"}), None) == 3


def test_a_length_that_contradicts_the_body_is_an_error_of_this_side() -> None:
    headers = Headers({"Content-Length": "4"})
    with pytest.raises(ProtocolError, match="says 4, the body has 5") as caught:
        response_framing("GET", 200, "1.1", headers, 5)
    assert caught.value.status == 500
    with pytest.raises(ProtocolError, match="says 4, the body has 5") as caught:
        request_framing(headers, 5)
    assert caught.value.status == 500


@pytest.mark.parametrize(
    ("method", "headers", "framing", "raw"),
    [
        ("GET", {"Host": "a"}, 0, b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("POST", {"Host": "a"}, 0, b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
        ("GET", {"Host": "a"}, 5, b"GET /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
        ("PUT", {"Content-Length": "5"}, 5, b"PUT /b HTTP/1.1\r\nContent-Length: 5\r\n\r\n"),
        ("PUT", {"Connection": "x"}, CHUNKED, b"PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_a_request_is_framed(method: str, headers: dict[str, str], framing: int, raw: bytes) -> None:
    assert encode_request(method, "/b", Headers(headers), framing) == raw


@pytest.mark.parametrize(
    ("method", "target"), [("G T", "/"), ("", "/"), ("GET", "/ "), ("GET", ""), ("GET", "/\r\n")]
)
def test_a_request_line_that_cannot_be_is_not_written(method: str, target: str) -> None:
    with pytest.raises(ValueError, match=r"method|request target"):
        encode_request(method, target, Headers(), 0)


def test_an_invalid_status_line_is_rejected() -> None:
    with pytest.raises(ValueError, match="between 100 and 999, got 99"):
        response("GET", 99, {}, 0)
    with pytest.raises(ValueError, match="reason"):
        encode_response("GET", 200, "a\r\nb", Headers(), 0)


FIELDS = st.lists(
    st.tuples(
        st.from_regex(r"X-[!#$%&'*+.^_`|~0-9A-Za-z-]{0,9}", fullmatch=True),
        st.from_regex(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]{0,9}[!-~\x80-\xff])?)?", fullmatch=True),
    ),
    max_size=8,
)


@given(FIELDS)
def test_fields_come_back_byte_for_byte(pairs: list[tuple[str, str]]) -> None:
    headers = Headers([("Host", "a.example"), *pairs])
    raw = encode_request("GET", "/", headers, 0)
    assert list(parse_request(raw[:-2]).headers) == [("Host", "a.example"), *pairs]
    raw = encode_response("HEAD", 200, "", headers, 0)
    assert list(parse_response(raw[:-2], "HEAD").headers) == [("Host", "a.example"), *pairs]


@given(FIELDS)
def test_another_parser_reads_the_same(pairs: list[tuple[str, str]]) -> None:
    raw = encode_request("GET", "/a?b", Headers([("Host", "a.example"), *pairs]), 0)
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(raw)
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    expected = [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
    assert list(event.headers)[1:] == expected


HEADS = st.lists(
    st.sampled_from(
        [
            b"GET / HTTP/1.1",
            b"\r\n",
            b"\n",
            b"\r",
            b"Host: a",
            b"A: b",
            b" ",
            b":",
            b"\x00",
            b"\t",
            b"a",
            b"\xe4",
        ]
    ),
    max_size=12,
).map(b"".join)


@given(HEADS)
def test_what_is_accepted_another_parser_accepts_with_the_same_fields(data: bytes) -> None:
    raw = data + b"\r\n"
    try:
        head = parse_request(raw)
    except ProtocolError:
        return
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(raw + b"\r\n")
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in head.headers]
    assert list(event.headers) == fields

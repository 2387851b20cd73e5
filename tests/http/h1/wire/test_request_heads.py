"""What requests may look like, and what the others get: a table."""

import pytest

from llama._core.errors import ProtocolError
from llama.http._h1.wire.framing import CHUNKED
from llama.http._h1.wire.head import RequestHead, parse_request
from llama.http._limits import Limits

HOST = b"Host: a.example\r\n"


def get(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = HOST) -> RequestHead:
    return parse_request(line + b"\r\n" + host + b"".join(each + b"\r\n" for each in lines))


GOOD: list[tuple[bytes, str, str, str | None, str]] = [
    # request line                                method     scheme   authority         path
    (b"GET / HTTP/1.1", "GET", "", None, "/"),
    (b"GET /a?b=c&d HTTP/1.1", "GET", "", None, "/a?b=c&d"),
    (b"GET //b.example/a HTTP/1.1", "GET", "", None, "//b.example/a"),
    (b"GET /%41/../b HTTP/1.1", "GET", "", None, "/%41/../b"),
    (b"GET /{a}|b^c HTTP/1.1", "GET", "", None, "/{a}|b^c"),
    (b"GET /\xc3\xa4 HTTP/1.1", "GET", "", None, "/\xc3\xa4"),
    (b"GET / HTTP/1.0", "GET", "", None, "/"),
    (b"M-SEARCH /x HTTP/1.1", "M-SEARCH", "", None, "/x"),
    (b"get / HTTP/1.1", "get", "", None, "/"),
    (b"OPTIONS * HTTP/1.1", "OPTIONS", "", None, "*"),
    (b"GET http://b.example/a?b HTTP/1.1", "GET", "http", "b.example", "/a?b"),
    (b"GET http://b.example HTTP/1.1", "GET", "http", "b.example", ""),
    (b"GET http://b.example?q HTTP/1.1", "GET", "http", "b.example", "?q"),
    (b"GET HTTPS://b.example:8443/ HTTP/1.1", "GET", "https", "b.example:8443", "/"),
    (b"GET http://[::1]:80/ HTTP/1.1", "GET", "http", "[::1]:80", "/"),
    (b"CONNECT b.example:443 HTTP/1.1", "CONNECT", "", "b.example:443", ""),
    (b"CONNECT [2001:db8::1]:443 HTTP/1.1", "CONNECT", "", "[2001:db8::1]:443", ""),
]


@pytest.mark.parametrize(("line", "method", "scheme", "authority", "path"), GOOD)
def test_a_request_line_is_taken_apart(
    line: bytes, method: str, scheme: str, authority: str | None, path: str
) -> None:
    head = get(line=line)
    assert (head.method, head.scheme, head.authority, head.path) == (method, scheme, authority, path)
    assert head.target == line.split(b" ")[1].decode("latin-1")
    assert head.is_absolute_form is bool(scheme)


BAD_LINES: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"GET", 400),
    (b"GET /", 400),
    (b"GET / HTTP/1.1 ", 400),
    (b" GET / HTTP/1.1", 400),
    (b"GET  / HTTP/1.1", 400),
    (b"GET\t/\tHTTP/1.1", 400),
    (b"GET / a HTTP/1.1", 400),
    (b"G(T / HTTP/1.1", 400),
    (b"G\xc4T / HTTP/1.1", 400),
    (b"GET / http/1.1", 400),
    (b"GET / HTTP/1.10", 400),
    (b"GET / HTTP/01.1", 400),
    (b"GET / HTTPS/1.1", 400),
    (b"GET / HTTP/0.9", 505),
    (b"GET / HTTP/1.2", 505),
    (b"GET / HTTP/2.0", 505),
    (b"PRI * HTTP/2.0", 505),
    (b"GET /a\x00b HTTP/1.1", 400),
    (b"GET /a\x7fb HTTP/1.1", 400),
    (b"GET /a#b HTTP/1.1", 400),
    (b"GET a HTTP/1.1", 400),
    (b"GET * HTTP/1.1", 400),
    (b"GET ? HTTP/1.1", 400),
    (b"GET b.example:443 HTTP/1.1", 400),
    (b"GET http:///a HTTP/1.1", 400),
    (b"GET http://user@b.example/ HTTP/1.1", 400),
    (b"GET http://b.example:99999/ HTTP/1.1", 400),
    (b"GET http://b.example:8x/ HTTP/1.1", 400),
    (b"GET http://b\\example/ HTTP/1.1", 400),
    (b"GET :/ HTTP/1.1", 400),
    (b"CONNECT / HTTP/1.1", 400),
    (b"CONNECT b.example HTTP/1.1", 400),
    (b"CONNECT :443 HTTP/1.1", 400),
    (b"CONNECT b.example: HTTP/1.1", 400),
    (b"CONNECT b.example:0 HTTP/1.1", 400),
    (b"CONNECT b.example:65536 HTTP/1.1", 400),
    (b"CONNECT user@b.example:443 HTTP/1.1", 400),
    (b"CONNECT http://b.example:443 HTTP/1.1", 400),
    (b"CONNECT b.example:443/a HTTP/1.1", 400),
    (b"GET /" + b"a" * 17000 + b" HTTP/1.1", 414),
    (b"G" * 65 + b" / HTTP/1.1", 400),
]


@pytest.mark.parametrize(("line", "status"), BAD_LINES)
def test_a_bad_request_line_is_refused(line: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        get(line=line)
    assert caught.value.status == status


BAD_FIELDS: list[tuple[str, list[bytes], int]] = [
    ("no colon", [b"A"], 400),
    ("no name", [b": b"], 400),
    ("space before the colon", [b"A : b"], 400),
    ("tab before the colon", [b"A\t: b"], 400),
    ("space in the name", [b"A b: c"], 400),
    ("a folded line", [b"A: b", b" c"], 400),
    ("a folded line by tab", [b"A: b", b"\tc"], 400),
    ("a first line that is folded", [b" A: b"], 400),
    ("NUL in a value", [b"A: b\x00c"], 400),
    ("NUL in a name", [b"A\x00: b"], 400),
    ("bare CR in a value", [b"A: b\rc"], 400),
    ("bare CR at the end of a value", [b"A: b\r"], 400),
    ("bare LF in a value", [b"A: b\nC: d"], 400),
    ("a control character", [b"A: b\x0bc"], 400),
    ("DEL", [b"A: b\x7f"], 400),
    ("escape", [b"A: \x1b[2J"], 400),
    ("a name beyond ASCII", [b"\xc3\xa4: b"], 400),
    ("a quoted name", [b'"A": b'], 400),
    ("too many", [b"A: b"] * 128, 431),
    ("two Hosts", [b"Host: a.example"], 400),
    ("an expectation", [b"Expect: money"], 417),
    ("CONTENT-LENGTH and content-length", [b"CONTENT-LENGTH: 1", b"content-length: 2"], 400),
    ("two Content-Lengths that agree", [b"Content-Length: 1", b"Content-Length: 1"], 400),
    ("a list of lengths", [b"Content-Length: 1, 1"], 400),
    ("an empty length", [b"Content-Length:"], 400),
    ("a signed length", [b"Content-Length: +1"], 400),
    ("a negative length", [b"Content-Length: -1"], 400),
    ("a length in hex", [b"Content-Length: 0x1"], 400),
    ("a length with an underscore", [b"Content-Length: 1_0"], 400),
    ("a length with a space", [b"Content-Length: 1 0"], 400),
    ("a length in superscript", [b"Content-Length: \xb2"], 400),
    ("a length of 19 digits", [b"Content-Length: 1000000000000000000"], 400),
    ("both framings", [b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
    ("both framings, the other way round", [b"Transfer-Encoding: chunked", b"Content-Length: 5"], 400),
    ("chunked twice", [b"Transfer-Encoding: chunked, chunked"], 400),
    ("chunked twice in two fields", [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400),
    ("chunked not last", [b"Transfer-Encoding: chunked, gzip"], 400),
    ("an empty coding", [b"Transfer-Encoding: "], 400),
    ("an empty element", [b"Transfer-Encoding: chunked,"], 400),
    ("an unknown coding", [b"Transfer-Encoding: xchunked"], 501),
    ("identity", [b"Transfer-Encoding: identity"], 501),
    ("a coding before chunked", [b"Transfer-Encoding: gzip, chunked"], 501),
    ("a quoted coding", [b'Transfer-Encoding: "chunked"'], 501),
    ("chunked with a parameter", [b"Transfer-Encoding: chunked;a=b"], 501),
    ("a vertical tab before chunked", [b"Transfer-Encoding: \x0bchunked"], 400),
    ("a no-break space before chunked", [b"Transfer-Encoding: \xa0chunked"], 501),
]


@pytest.mark.parametrize(("lines", "status"), [pytest.param(b, c, id=a) for a, b, c in BAD_FIELDS])
def test_bad_fields_are_refused(lines: list[bytes], status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        get(*lines)
    assert caught.value.status == status


HOSTS = [
    (b"a.example", True),
    (b"a.example:", True),
    (b"a.example:80", True),
    (b"", True),
    (b"127.0.0.1:1", True),
    (b"[::1]:80", True),
    (b"a_b.example", True),
    (b"a b", False),
    (b"a/b", False),
    (b"a?b", False),
    (b"a#b", False),
    (b"a@b", False),
    (b"a,b", False),
    (b"a.example, b.example", False),
    (b"http://a.example", False),
    (b"a:b", False),
    (b"a:65536", False),
    (b"::1", False),
    (b"[::1", False),
    (b"[::1]a", False),
    (b"[::1]:123456", False),
    (b"\xc3\xa4.example", False),
    (b"a%zz", False),
]


@pytest.mark.parametrize(("host", "good"), HOSTS)
def test_the_host_is_checked(host: bytes, good: bool) -> None:
    if good:
        assert get(host=b"Host: " + host + b"\r\n").headers["host"] == host.decode()
        return
    with pytest.raises(ProtocolError) as caught:
        get(host=b"Host: " + host + b"\r\n")
    assert caught.value.status == 400


def test_http_11_needs_a_host_and_http_10_does_not() -> None:
    with pytest.raises(ProtocolError, match="no Host"):
        get(host=b"")
    assert get(line=b"GET / HTTP/1.0", host=b"").version == "1.0"


def test_a_browsers_request_keeps_its_fields_byte_for_byte() -> None:
    head = get(b"accept:*/*", b"X-A:  b \t c\t ", b"x-a:", b"Cookie: a=\xe4; b", b"COOKIE: c")
    assert list(head.headers) == [
        ("Host", "a.example"),
        ("accept", "*/*"),
        ("X-A", "b \t c"),
        ("x-a", ""),
        ("Cookie", "a=\xe4; b"),
        ("COOKIE", "c"),
    ]


def test_a_no_break_space_is_part_of_a_value() -> None:
    assert get(b"A: b\xa0").headers["a"] == "b\xa0"


FRAMINGS: list[tuple[bytes, list[bytes], int]] = [
    (b"GET / HTTP/1.1", [], 0),
    (b"POST / HTTP/1.1", [], 0),
    (b"POST / HTTP/1.0", [], 0),
    (b"POST / HTTP/1.1", [b"Content-Length: 0"], 0),
    (b"GET / HTTP/1.1", [b"Content-Length: 12"], 12),
    (b"POST / HTTP/1.1", [b"Transfer-Encoding: chunked"], CHUNKED),
    (b"POST / HTTP/1.1", [b"TRANSFER-encoding:\tChunked "], CHUNKED),
]


@pytest.mark.parametrize(("line", "lines", "length"), FRAMINGS)
def test_the_length_of_a_body_is_decided(line: bytes, lines: list[bytes], length: int) -> None:
    assert get(*lines, line=line).length == length


def test_http_10_cannot_be_chunked() -> None:
    with pytest.raises(ProtocolError, match=r"HTTP/1\.0"):
        get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")


def test_connect_has_no_body() -> None:
    line = b"CONNECT a.example:443 HTTP/1.1"
    assert get(b"Content-Length: 0", line=line).length == 0
    with pytest.raises(ProtocolError, match="CONNECT with a body"):
        get(b"Content-Length: 1", line=line)
    with pytest.raises(ProtocolError, match="CONNECT with a body"):
        get(b"Transfer-Encoding: chunked", line=line)


ALIVE: list[tuple[bytes, list[bytes], bool]] = [
    (b"GET / HTTP/1.1", [], True),
    (b"GET / HTTP/1.1", [b"Connection: close"], False),
    (b"GET / HTTP/1.1", [b"Connection: x, CLOSE"], False),
    (b"GET / HTTP/1.1", [b"Connection: keep-alive", b"Connection: close"], False),
    (b"GET / HTTP/1.0", [], False),
    (b"GET / HTTP/1.0", [b"Connection: Keep-Alive"], True),
    (b"GET / HTTP/1.0", [b"Connection: keep-alive, close"], False),
]


@pytest.mark.parametrize(("line", "lines", "alive"), ALIVE)
def test_a_connection_is_kept_or_not(line: bytes, lines: list[bytes], alive: bool) -> None:
    assert get(*lines, line=line).keep_alive is alive


def test_an_upgrade_is_asked_for_by_two_fields() -> None:
    assert get(b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade").upgrade_protocol == "websocket"
    assert get(b"Upgrade: WebSocket").upgrade_protocol == ""
    assert get(b"Connection: upgrade").upgrade_protocol == ""
    assert get(b"Upgrade: a", b"Connection: upgrade", line=b"GET / HTTP/1.0").upgrade_protocol == ""


def test_a_continue_is_expected_when_a_body_comes() -> None:
    assert get(b"Expect: 100-Continue", b"Content-Length: 1").expects_continue
    assert not get(b"Expect: 100-continue").expects_continue
    assert not get(b"Expect: 100-continue", b"Content-Length: 1", line=b"POST / HTTP/1.0").expects_continue


def test_limits_can_be_set() -> None:
    raw = b"GET /abc HTTP/1.1\r\nHost: a\r\nB: c\r\n"
    assert parse_request(raw, Limits(max_start_line=17, max_headers=2)).path == "/abc"
    with pytest.raises(ProtocolError) as caught:
        parse_request(raw, Limits(max_start_line=16))
    assert caught.value.status == 414
    with pytest.raises(ProtocolError, match="more than 1 header fields"):
        parse_request(raw, Limits(max_headers=1))

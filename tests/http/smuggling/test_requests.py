"""Requests that chained servers are known to parse differently, and the result of each.

For each request that the backend answers, it sees exactly one request with one framing; for all others, nothing.
"""

import asyncio
from collections.abc import Callable

import pytest

from llama import Stream
from llama.http import RequestHandler, server
from tests.http.serving import client_of
from tests.http.smuggling.cases import HIDDEN, LAST, SMUGGLED, Backend, forward, reverse, statuses, through
from tests.http.upstreams import OK, Upstream, tcp_pair

Make = Callable[[Upstream], RequestHandler]
proxies = pytest.mark.parametrize("make", [reverse, forward])


def head(line: str, *lines: str) -> bytes:
    return "".join(f"{each}\r\n" for each in (line, "Host: a", *lines, "")).encode("latin-1")


def post(*lines: str) -> bytes:
    return head("POST / HTTP/1.1", *lines)


def get(*lines: str) -> bytes:
    return head("GET / HTTP/1.1", *lines)


def chunked(body: bytes) -> bytes:
    return post("Transfer-Encoding: chunked") + body


def labels(table: dict[str, object]) -> list[str]:
    return [name.replace(" ", "_") for name in table]


HELD = f"Content-Length: {len(HIDDEN)}"

# what is refused: nothing reaches the backend, and the connection ends

ONE = b"1\r\na\r\n0\r\n\r\n"

REFUSED: dict[str, tuple[bytes, int]] = {
    # conflicting lengths
    "CL.TE": (post("Content-Length: 6", "Transfer-Encoding: chunked") + b"0\r\n\r\nG", 400),
    "TE.CL": (post("Transfer-Encoding: chunked", "Content-Length: 4") + b"5c\r\nGPOST / HTTP/1.1\r\n", 400),
    "TE and CL: 0": (post("Transfer-Encoding: chunked", "Content-Length: 0") + ONE, 400),
    "CL twice, differing": (post("Content-Length: 0", "Content-Length: 35") + SMUGGLED, 400),
    "CL twice, the same": (post("Content-Length: 1", "Content-Length: 1") + b"a", 400),
    "CL twice in other case": (post("Content-Length: 0", "CONTENT-LENGTH: 35") + SMUGGLED, 400),
    # invalid Content-Length
    "CL list": (post("Content-Length: 1, 1") + b"a", 400),
    "CL list, differing": (post("Content-Length: 0, 35") + SMUGGLED, 400),
    "CL +": (post("Content-Length: +1") + b"a", 400),
    "CL -": (post("Content-Length: -1") + b"a", 400),
    "CL hex": (post("Content-Length: 0x1") + b"a", 400),
    "CL octal": (post("Content-Length: 010") + b"12345678", 400),
    "CL zeros": (post("Content-Length: 00") + SMUGGLED, 400),
    "CL decimal point": (post("Content-Length: 1.0") + b"a", 400),
    "CL exponent": (post("Content-Length: 1e0") + b"a", 400),
    "CL underscore": (post("Content-Length: 1_0") + bytes(10), 400),
    "CL space within": (post("Content-Length: 3 6") + SMUGGLED, 400),
    "CL tab within": (post("Content-Length: 0\t35") + SMUGGLED, 400),
    "CL empty": (post("Content-Length:") + SMUGGLED, 400),
    "CL comma": (post("Content-Length: ,1") + b"a", 400),
    "CL semicolon": (post("Content-Length: 1;1") + b"a", 400),
    "CL quoted": (post('Content-Length: "1"') + b"a", 400),
    "CL other digits": (post("Content-Length: \xb9") + b"a", 400),
    "CL over 64 bits": (post("Content-Length: 18446744073709551616") + SMUGGLED, 400),
    "CL over 32 bits wraps": (post("Content-Length: 36893488147419103232") + SMUGGLED, 400),
    "CL vertical tab": (post("Content-Length: \x0b1") + b"a", 400),
    "CL form feed": (post("Content-Length: 1\x0c") + b"a", 400),
    "CL no-break space": (post("Content-Length: \xa01") + b"a", 400),
    "CL NUL": (post("Content-Length: 1\x00") + b"a", 400),
    "CL space before colon": (post("Content-Length : 35") + SMUGGLED, 400),
    "CL folded": (post("Content-Length:\r\n 35") + SMUGGLED, 400),
    "CL continued": (post("Content-Length: 3\r\n 6") + SMUGGLED, 400),
    # Transfer-Encoding that is invalid, or valid only for some servers
    "TE: xchunked": (post("Transfer-Encoding: xchunked") + ONE, 501),
    "TE: identity": (post("Transfer-Encoding: identity") + SMUGGLED, 501),
    "TE: identity, CL": (post("Transfer-Encoding: identity", "Content-Length: 35") + SMUGGLED, 400),
    "TE: chunked, identity": (post("Transfer-Encoding: chunked, identity") + ONE, 400),
    "TE: identity, chunked": (post("Transfer-Encoding: identity, chunked") + ONE, 501),
    "TE: chunked, chunked": (post("Transfer-Encoding: chunked, chunked") + ONE, 400),
    "TE twice": (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + ONE, 400),
    "TE twice, one unknown": (post("Transfer-Encoding: chunked", "Transfer-Encoding: x") + ONE, 400),
    "TE twice, unknown first": (post("Transfer-Encoding: x", "Transfer-Encoding: chunked") + ONE, 501),
    "TE: gzip, chunked": (post("Transfer-Encoding: gzip, chunked") + ONE, 501),
    "TE: chunked, gzip": (post("Transfer-Encoding: chunked, gzip") + ONE, 400),
    "TE with a parameter": (post("Transfer-Encoding: chunked;q=1") + ONE, 501),
    "TE quoted": (post('Transfer-Encoding: "chunked"') + ONE, 501),
    "TE in single quotes": (post("Transfer-Encoding: 'chunked'") + ONE, 501),
    "TE empty": (post("Transfer-Encoding:") + ONE, 400),
    "TE with an empty element": (post("Transfer-Encoding: chunked,") + ONE, 400),
    "TE empty element first": (post("Transfer-Encoding: , chunked") + ONE, 400),
    "TE vertical tab": (post("Transfer-Encoding: \x0bchunked") + ONE, 400),
    "TE form feed": (post("Transfer-Encoding: chunked\x0c") + ONE, 400),
    "TE no-break space": (post("Transfer-Encoding: \xa0chunked") + ONE, 501),
    "TE NUL": (post("Transfer-Encoding: chunked\x00") + ONE, 400),
    "TE space before colon": (post("Transfer-Encoding : chunked") + ONE, 400),
    "TE tab before colon": (post("Transfer-Encoding\t: chunked") + ONE, 400),
    "TE line break before colon": (post("Transfer-Encoding\r\n : chunked") + ONE, 400),
    "TE space before name": (post(" Transfer-Encoding: chunked") + ONE, 400),
    "TE folded": (post("Transfer-Encoding:\r\n chunked") + ONE, 400),
    "TE in a folded line": (post("X: a\r\n Transfer-Encoding: chunked") + ONE, 400),
    "TE after a bare LF": (post("X: a\nTransfer-Encoding: chunked") + ONE, 400),
    "TE after a bare CR": (post("X: a\rTransfer-Encoding: chunked") + ONE, 400),
    "TE after NUL": (post("X: a\x00Transfer-Encoding: chunked") + ONE, 400),
    "TE with an odd letter": (post("Transfer-Encod\xedng: chunked") + ONE, 400),
    "TE first of all": (b"POST / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: a\r\n\r\n" + ONE, 400),
    "TE in HTTP/1.0": (head("POST / HTTP/1.0", "Transfer-Encoding: chunked") + ONE, 400),
    # line endings and field lines
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n" + SMUGGLED, 400),
    "bare LF at the end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n" + SMUGGLED, 400),
    "bare LF after the first line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    "bare CR": (b"GET / HTTP/1.1\rHost: a\r\r" + SMUGGLED, 400),
    "CR CR LF": (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n" + SMUGGLED, 400),
    "CR in a value": (head("GET / HTTP/1.1", "X: a\rb"), 400),
    "NUL in a value": (head("GET / HTTP/1.1", "X: a\x00b"), 400),
    "NUL in a name": (head("GET / HTTP/1.1", "X\x00: a"), 400),
    "DEL in a value": (head("GET / HTTP/1.1", "X: a\x7fb"), 400),
    "obs-fold": (head("GET / HTTP/1.1", "X: a", " b"), 400),
    "obs-fold by a tab": (head("GET / HTTP/1.1", "X: a", "\tb"), 400),
    "a line without a colon": (head("GET / HTTP/1.1", "GET /smuggled HTTP/1.1"), 400),
    "a line of nothing but a colon": (head("GET / HTTP/1.1", ": a"), 400),
    "space in a name": (head("GET / HTTP/1.1", "X Y: a"), 400),
    "odd bytes in a name": (head("GET / HTTP/1.1", "X\xff: a"), 400),
    "a name in brackets": (head("GET / HTTP/1.1", "X[]: a"), 400),
    "two empty lines first": (b"\r\n\r\n" + LAST, 400),
    # the request line
    "HTTP/0.9": (b"GET /smuggled\r\n\r\n", 400),
    "HTTP/1.2": (head("GET / HTTP/1.2"), 505),
    "HTTP/2.0": (b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/1.10": (head("GET / HTTP/1.10"), 400),
    "HTTP/01.1": (head("GET / HTTP/01.1"), 400),
    "HTTP/1.1 twice": (head("GET / HTTP/1.1 HTTP/1.1"), 400),
    "http/1.1": (head("GET / http/1.1"), 400),
    "HTTP /1.1": (head("GET / HTTP /1.1"), 400),
    "space at the end": (head("GET / HTTP/1.1 "), 400),
    "two spaces": (head("GET  / HTTP/1.1"), 400),
    "tab for space": (head("GET\t/ HTTP/1.1"), 400),
    "form feed for space": (head("GET\x0c/ HTTP/1.1"), 400),
    "space first": (head(" GET / HTTP/1.1"), 400),
    "space in the target": (head("GET /a b HTTP/1.1"), 400),
    "NUL in the target": (head("GET /\x00 HTTP/1.1"), 400),
    "a fragment": (head("GET /#a HTTP/1.1"), 400),
    "method no token": (head("G(T / HTTP/1.1"), 400),
    "no method": (head("/ HTTP/1.1"), 400),
    "method NUL": (head("GET\x00 / HTTP/1.1"), 400),
    "target without a slash": (head("GET a HTTP/1.1"), 400),
    "target of a query alone": (head("GET ?a HTTP/1.1"), 400),
    "GET *": (head("GET * HTTP/1.1"), 400),
    "user in the target": (head("GET http://u@a/ HTTP/1.1"), 400),
    "nobody in the target": (head("GET http:///a HTTP/1.1"), 400),
    "backslash before the host": (head("GET http:\\\\a/ HTTP/1.1"), 400),
    "CONNECT with a body": (head("CONNECT a:80 HTTP/1.1", "Content-Length: 35") + SMUGGLED, 400),
    "CONNECT to a path": (head("CONNECT / HTTP/1.1"), 400),
    # Host
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "Host twice": (head("GET / HTTP/1.1", "Host: a"), 400),
    "Host twice, differing": (head("GET / HTTP/1.1", "Host: b"), 400),
    "Host in HTTP/1.0 twice": (head("GET / HTTP/1.0", "Host: b"), 400),
    "Host with a user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "Host list": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "Host with a space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "Host with a tab": (b"GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n", 400),
    "Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "Host with a query": (b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400),
    "Host with a fragment": (b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400),
    "Host with a backslash": (b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400),
    "Host with a scheme": (b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400),
    "Host with a wrong port": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    "Host with a large port": (b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    "Host with two ports": (b"GET / HTTP/1.1\r\nHost: a:80:90\r\n\r\n", 400),
    "Host with half an address": (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    "Host with odd bytes": (b"GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n", 400),
    "Host space before colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "Host folded": (b"GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", 400),
    # Expect
    "Expect of something else": (post("Expect: y", "Content-Length: 35") + SMUGGLED, 417),
    "Expect of more": (post("Expect: y 100-continue", "Content-Length: 35") + SMUGGLED, 417),
    "Expect list": (post("Expect: 100-continue, y", "Content-Length: 35") + SMUGGLED, 417),
    "Expect folded": (post("Expect:\r\n 100-continue", "Content-Length: 35") + SMUGGLED, 400),
}


@proxies
@pytest.mark.parametrize("name", REFUSED, ids=labels({**REFUSED}))
async def test_ambiguous_requests_are_rejected(name: str, make: Make) -> None:
    said, status = REFUSED[name]
    backend = Backend()
    heard = await through(said + LAST, backend, make)
    assert statuses(heard) == [status] and b"\r\nConnection: close\r\n" in heard
    assert backend.seen == [] and backend.rests == []


# bodies that go wrong after the head has passed: the backend sees no whole request, the client an error

BROKEN: dict[str, bytes] = {
    "size 0x": b"0x1\r\na\r\n0\r\n\r\n",
    "size +": b"+1\r\na\r\n0\r\n\r\n",
    "size -": b"-1\r\na\r\n0\r\n\r\n",
    "size with a space before": b" 1\r\na\r\n0\r\n\r\n",
    "size with a space after": b"1 \r\na\r\n0\r\n\r\n",
    "size with a tab after": b"1\t\r\na\r\n0\r\n\r\n",
    "size underscore": b"1_0\r\na\r\n0\r\n\r\n",
    "size no hex": b"g\r\na\r\n0\r\n\r\n",
    "size empty": b"\r\na\r\n0\r\n\r\n",
    "size list": b"1,1\r\na\r\n0\r\n\r\n",
    "size NUL": b"1\x00\r\na\r\n0\r\n\r\n",
    "size of 64 bits": b"10000000000000001\r\na\r\n0\r\n\r\n",
    "size with a score of zeros": b"00000000000000000001\r\na\r\n0\r\n\r\n",
    "size ended by LF": b"1\na\r\n0\r\n\r\n",
    "size ended by CR": b"1\ra\r\n0\r\n\r\n",
    "size ended by CR CR LF": b"1\r\r\na\r\n0\r\n\r\n",
    "chunk larger than its size": b"1\r\nab\r\n0\r\n\r\n",
    "chunk smaller than its size": b"3\r\na\r\n0\r\n\r\n" + SMUGGLED,
    "chunk ended by LF": b"1\r\na\n0\r\n\r\n",
    "chunk ended by CR": b"1\r\na\r0\r\n\r\n",
    "chunk without an end": b"1\r\na0\r\n\r\n",
    "chunk ended by anything": b"1\r\naXX0\r\n\r\n",
    "an empty line more": b"1\r\na\r\n\r\n0\r\n\r\n",
    "extension with LF": b"1;a\nb\r\na\r\n0\r\n\r\n",
    "extension ended by LF": b"1;a\na\r\n0\r\n\r\n",
    "extension with CR": b"1;a\rb\r\na\r\n0\r\n\r\n",
    "extension with LF in quotes": b'1;a="\n"\r\na\r\n0\r\n\r\n',
    "extension with CR LF in quotes": b'1;a="\r\n"\r\na\r\n0\r\n\r\n',
    "extension with NUL": b"1;\x00\r\na\r\n0\r\n\r\n",
    "extension without a name": b"1;\r\na\r\n0\r\n\r\n",
    "extension with a space in it": b"1;a b\r\na\r\n0\r\n\r\n",
    "extension larger than it may be": b"1;" + b"a" * 300 + b"\r\na\r\n0\r\n\r\n",
    "last chunk ended by LF": b"1\r\na\r\n0\n\r\n",
    "end ended by LF": b"1\r\na\r\n0\r\n\n" + SMUGGLED,
    "end of CR alone": b"1\r\na\r\n0\r\n\r" + SMUGGLED,
    "trailer Content-Length": b"1\r\na\r\n0\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
    "trailer Transfer-Encoding": b"1\r\na\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer Host": b"1\r\na\r\n0\r\nHost: b\r\n\r\n",
    "trailer ended by LF": b"1\r\na\r\n0\r\nX: 1\n\r\n",
    "trailer with CR": b"1\r\na\r\n0\r\nX: 1\r2\r\n\r\n",
    "trailer space before colon": b"1\r\na\r\n0\r\nX : 1\r\n\r\n",
    "trailer folded": b"1\r\na\r\n0\r\nX: 1\r\n 2\r\n\r\n",
    "trailer that is a request": b"1\r\na\r\n0\r\n" + SMUGGLED,
}


@proxies
@pytest.mark.parametrize("name", BROKEN, ids=labels({**BROKEN}))
async def test_a_body_with_ambiguous_framing_is_never_complete(name: str, make: Make) -> None:
    backend = Backend()
    heard = await through(chunked(BROKEN[name]) + LAST, backend, make)
    assert statuses(heard) == [400] and b"\r\nConnection: close\r\n" in heard
    assert backend.seen == []
    assert not any(rest.endswith(b"0\r\n\r\n") for rest in backend.rests)


# what passes, and what the backend sees of it

A = "Content-Length: 1"
CHUNKED = "Transfer-Encoding: chunked"
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket")
H2C = ("Upgrade: h2c", "HTTP2-Settings: x")
TWO = ["GET /", "GET /smuggled"]
AS_BODY = [f"POST / {HIDDEN.decode()}"]

PASSED: dict[str, tuple[bytes, list[str]]] = {
    "a request in a body": (post(HELD) + HIDDEN, AS_BODY),
    "a request in a chunk": (chunked(b"21\r\n" + HIDDEN + b"\r\n0\r\n\r\n"), AS_BODY),
    "a request after a body": (post(A) + b"a" + SMUGGLED, ["POST / a", "GET /smuggled"]),
    "a request after chunks": (chunked(ONE) + SMUGGLED, ["POST / a", "GET /smuggled"]),
    "a request after CL: 0": (post("Content-Length: 0") + SMUGGLED, ["POST /", "GET /smuggled"]),
    "a request after POST without a length": (post() + SMUGGLED, ["POST /", "GET /smuggled"]),
    "GET with a body": (get(HELD) + HIDDEN, [f"GET / {HIDDEN.decode()}"]),
    "HEAD with a body": (head("HEAD / HTTP/1.1", HELD) + HIDDEN, [f"HEAD / {HIDDEN.decode()}"]),
    "GET in chunks": (get(CHUNKED) + ONE, ["GET / a"]),
    "OPTIONS with a body": (head("OPTIONS / HTTP/1.1", A) + b"a", ["OPTIONS / a"]),
    "an unknown method": (head("FROB / HTTP/1.1", A) + b"a", ["FROB / a"]),
    "a method in lower case": (head("get / HTTP/1.1"), ["get /"]),
    "TE in other case": (post("tRANSFER-eNCODING: ChUnKeD") + ONE, ["POST / a"]),
    "TE with a tab": (post("Transfer-Encoding:\tchunked") + ONE, ["POST / a"]),
    "TE with spaces": (post("Transfer-Encoding:   chunked  ") + ONE, ["POST / a"]),
    "CL with spaces": (post("Content-Length:  1 ") + b"a", ["POST / a"]),
    "CL with a tab": (post("Content-Length:\t1\t") + b"a", ["POST / a"]),
    "zeros before a size": (chunked(b"0001\r\na\r\n0\r\n\r\n"), ["POST / a"]),
    "zeros for the last size": (chunked(b"1\r\na\r\n000\r\n\r\n"), ["POST / a"]),
    "upper case for a size": (chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), ["POST / 0123456789"]),
    "extensions": (chunked(b'1;a;b=c;d="e;\\" f"\r\na\r\n0;g\r\n\r\n'), ["POST / a"]),
    "extensions with spaces": (chunked(b"1 ; a = b\r\na\r\n0\r\n\r\n"), ["POST / a"]),
    "trailers": (chunked(b"1\r\na\r\n0\r\nX-A: 1\r\n\r\n"), ["POST / a"]),
    "trailers that are for heads": (chunked(b"1\r\na\r\n0\r\nCookie: a\r\nX-Forwarded-For: b\r\n\r\n"), ["POST / a"]),
    "underscores for CL": (get("Content_Length: 36") + SMUGGLED, TWO),
    "underscores for TE": (get("Transfer_Encoding: chunked") + SMUGGLED, TWO),
    "Connection: Content-Length": (post("Connection: Content-Length", A) + b"a", ["POST / a"]),
    "Connection: Transfer-Encoding": (post("Connection: Transfer-Encoding", CHUNKED) + ONE, ["POST / a"]),
    "Connection: Host": (get("Connection: Host"), ["GET /"]),
    "Connection: more than one": (post("Connection: keep-alive, content-length, HOST", A) + b"a", ["POST / a"]),
    "h2c": (get("Connection: Upgrade, HTTP2-Settings", *H2C), ["GET /"]),
    "h2c with a body": (post("Connection: Upgrade", "Upgrade: h2c", A) + b"a", ["POST / a"]),
    "h2c among others": (post("Connection: Upgrade", "Upgrade: x, h2c", A) + b"a", ["POST / a"]),
    "an upgrade that is declined": (get(*WEBSOCKET) + SMUGGLED, TWO),
    "an upgrade with a body": (post(*WEBSOCKET, HELD) + HIDDEN, AS_BODY),
    "an upgrade in chunks": (post(*WEBSOCKET, CHUNKED) + ONE, ["POST / a"]),
    "Upgrade that Connection does not name": (get("Upgrade: websocket"), ["GET /"]),
    "an upgrade in HTTP/1.0": (head("GET / HTTP/1.0", "Connection: Keep-Alive", *WEBSOCKET), ["GET /"]),
    "Expect without a body": (get("Expect: 100-continue") + SMUGGLED, TWO),
    "Expect with CL: 0": (post("Expect: 100-continue", "Content-Length: 0") + SMUGGLED, ["POST /", "GET /smuggled"]),
    "one empty line first": (b"\r\n" + head("GET / HTTP/1.1"), ["GET /"]),
    "HTTP/1.0 with a length": (head("POST / HTTP/1.0", "Connection: keep-alive", A) + b"a", ["POST / a"]),
    "an escaped line break": (head("GET /%0d%0aX:%20y HTTP/1.1"), ["GET /%0d%0aX:%20y"]),
}  # fmt: skip


@proxies
@pytest.mark.parametrize("name", PASSED, ids=labels({**PASSED}))
async def test_unambiguous_requests_reach_the_backend_with_one_framing(name: str, make: Make) -> None:
    said, seen = PASSED[name]
    backend = Backend()
    heard = await through(said + LAST, backend, make)
    assert [each for each in statuses(heard) if each != 100] == [200] * (len(seen) + 1)
    assert backend.seen == [*seen, "GET /last"]
    assert set(backend.rests) <= {b""}


# what the backend is told beside the framing


async def fields_seen(said: bytes) -> dict[bytes, bytes]:
    """Return the fields of the first request that the backend receives."""
    backend = Backend()
    await through(said + LAST, backend)
    assert backend.seen[-1] == "GET /last"
    return dict(backend.requests[0].fields)


async def test_the_target_wins_over_host() -> None:
    backend = Backend()
    await through(b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n" + LAST, backend)
    assert (backend.requests[0].host, backend.requests[0].target) == ("b", "/x")


@pytest.mark.parametrize("scheme", ["https", "ftp", "HTTPS"])
async def test_the_scheme_in_a_target_does_not_set_x_forwarded_proto(scheme: str) -> None:
    seen = await fields_seen(f"GET {scheme}://b/ HTTP/1.1\r\nHost: b\r\n\r\n".encode())
    assert seen[b"x-forwarded-proto"] == b"http" and b"proto=http" in seen[b"forwarded"].split(b";")


NAMED = ["Host", "Content-Length", "Via", "X-Forwarded-For", "Forwarded", "X-Forwarded-Proto"]


@pytest.mark.parametrize("name", NAMED)
async def test_connection_cannot_remove_fields_that_the_backend_relies_on(name: str) -> None:
    seen = await fields_seen(post(f"Connection: {name}, keep-alive", "Content-Length: 0"))
    assert name.lower().encode() in seen


SPOOFED = [
    "X_Forwarded_For: 1",
    "X_Real_IP: 1",
    "x_forwarded-proto: https",
    "Content_Length: 1",
    "Transfer_Encoding: x",
]


@pytest.mark.parametrize("line", SPOOFED)
async def test_fields_spelled_with_underscores_are_removed(line: str) -> None:
    seen = await fields_seen(head("GET / HTTP/1.1", line))
    assert line.partition(":")[0].lower().encode() not in seen


async def test_trailers_reach_the_backend_unless_they_are_header_only_fields() -> None:
    wire = b""

    async def noting(stream: Stream) -> None:
        nonlocal wire
        while data := await stream.read():
            wire += data
            if wire.endswith(b"0\r\nX-Sum: 1\r\n\r\n"):
                await stream.write(OK)

    said = post("Transfer-Encoding: chunked", "Connection: close")
    said += b"1\r\na\r\n0\r\nCookie: a\r\nX-Sum: 1\r\nX_Forwarded_For: b\r\nAuthorization: c\r\n\r\n"
    heard = await through(said, noting)
    assert statuses(heard) == [200]


PIECES = [*PASSED.items()][::4]


@pytest.mark.parametrize(("name", "case"), PIECES, ids=labels(dict(PIECES)))
async def test_byte_by_byte_input_gives_the_same_result(name: str, case: tuple[bytes, list[str]]) -> None:
    backend = Backend()
    await through(case[0] + LAST, backend, piecewise=True)
    assert backend.seen == [*case[1], "GET /last"]


# uploads that break off


@pytest.mark.parametrize("politely", [True, False], ids=["end", "reset"])
@pytest.mark.parametrize(
    "body", [b"", b"a", b"5\r\nhello\r\n", b"5\r\nhel", b"1\r\na\r\n0\r\n", b"1\r\na\r\n0\r\nX: 1\r\n"]
)
async def test_an_aborted_upload_is_never_complete(body: bytes, politely: bool) -> None:
    backend = Backend()
    upstream = Upstream(backend, tcp_pair)
    framing = "Transfer-Encoding: chunked" if b"\r" in body else "Content-Length: 10"
    async with client_of(server()(reverse(upstream))) as browser:
        await browser.say(post(framing) + body)
        while not upstream.streams:  # noqa: ASYNC110  # until it has been passed on
            await asyncio.sleep(0)
        if politely:
            await browser.stream.write_eof()
        else:
            browser.stream.abort()
        await browser.served
        while not backend.rests:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert backend.seen == []
    assert not backend.rests[0].endswith(b"0\r\n\r\n")

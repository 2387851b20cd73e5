"""What a peer may not do, case by case: RFC 9113 and 7541 in the order of their sections, as seen by a server.

An outcome is the code of a GOAWAY ("! CODE"), of a RST_STREAM ("1 CODE"), or a line of what happens.
"""

from __future__ import annotations

import pytest

from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    H2Error,
    code_name,
    frame,
)
from llama.http._h2.wire.protocol import H2Protocol
from tests.http.h2.wire.h2_pair import GET, OK, POST, SETTINGS_FRAME, Peer, Side

BLOCK = b"\x82\x86\x84\x41\x01a"  # GET http://a/
POST_BLOCK = b"\x83\x86\x84\x41\x01a"
BOTH = END_STREAM | END_HEADERS


def head(id: int, *, end: bool = True, block: bytes = BLOCK, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags | end, id, block)


def setting(key: int, value: int) -> bytes:
    return frames.settings({key: value})


OPEN = head(1, end=False, block=POST_BLOCK)
HALF = head(1)
RESET = frame(RST_STREAM, 0, 1, bytes(4))

CONNECTION_ERRORS = {
    # 3.4 and 4: the preface, frames
    "3.4 the first frame is no SETTINGS": (None, PREFACE + frame(PING, 0, 0, bytes(8)), "PROTOCOL_ERROR"),
    "3.4 the first frame acknowledges SETTINGS": (None, PREFACE + frame(SETTINGS, 1, 0), "PROTOCOL_ERROR"),
    "3.4 a malformed preface": (None, b"INVALID CONNECTION PREFACE\r\n\r\n", "PROTOCOL_ERROR"),
    "3.4 a request of HTTP/1.1": (None, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "PROTOCOL_ERROR"),
    "4.2 DATA larger than was agreed on": (OPEN, frame(DATA, 0, 1, bytes(16_385)), "FRAME_SIZE_ERROR"),
    "4.2 HEADERS larger than was agreed on": (b"", head(1, block=bytes(16_385)), "FRAME_SIZE_ERROR"),
    "4.3 a header block that is none": (b"", head(1, block=b"\x40"), "COMPRESSION_ERROR"),
    "4.3 PRIORITY within a header block": (
        head(1, flags=0), frame(PRIORITY, 0, 1, b"\0\0\0\0\0"), "PROTOCOL_ERROR"),
    "4.3 a frame of an unknown type within a header block": (head(1, flags=0), frame(0xFF, 0, 1), "PROTOCOL_ERROR"),
    "4.3 HEADERS of another stream within a header block": (head(1, flags=0), head(3), "PROTOCOL_ERROR"),
    # 5.1: states
    "5.1 idle: DATA": (b"", frame(DATA, END_STREAM, 1, b"x"), "PROTOCOL_ERROR"),
    "5.1 idle: RST_STREAM": (b"", RESET, "PROTOCOL_ERROR"),
    "5.1 idle: WINDOW_UPDATE": (b"", frames.window_update(1, 1), "PROTOCOL_ERROR"),
    "5.1 idle: CONTINUATION": (b"", frame(CONTINUATION, END_HEADERS, 1, BLOCK), "PROTOCOL_ERROR"),
    "5.1 half-closed: CONTINUATION": (HALF, frame(CONTINUATION, END_HEADERS, 1, BLOCK), "PROTOCOL_ERROR"),
    "5.1 closed by a reset: CONTINUATION": (
        OPEN + RESET, frame(CONTINUATION, END_HEADERS, 1, BLOCK), "PROTOCOL_ERROR"),
    "5.1.1 a stream of an even number": (b"", head(2), "PROTOCOL_ERROR"),
    "5.1.1 a stream before one that was opened": (head(5), head(3), "PROTOCOL_ERROR"),
    "5.1.1 DATA on a stream that was passed over": (head(5), frame(DATA, 0, 3, b"x"), "STREAM_CLOSED"),
    "5.3.1 PRIORITY on itself while idle": (b"", frame(PRIORITY, 0, 1, b"\0\0\0\x01\0"), "PROTOCOL_ERROR"),
    # 6: frames
    "6.1 DATA on stream 0": (b"", frame(DATA, 0, 0, b"x"), "PROTOCOL_ERROR"),
    "6.1 padding as long as its frame": (OPEN, frame(DATA, PADDED, 1, b"\x05test"), "PROTOCOL_ERROR"),
    "6.1 padding without its length": (OPEN, frame(DATA, PADDED, 1), "PROTOCOL_ERROR"),
    "6.2 HEADERS on stream 0": (b"", head(0), "PROTOCOL_ERROR"),
    "6.2 HEADERS with too much padding": (b"", head(1, flags=END_HEADERS | PADDED, block=b"\x07" + BLOCK),
        "PROTOCOL_ERROR"),
    "6.2 HEADERS too short for a priority": (
        b"", head(1, flags=END_HEADERS | WITH_PRIORITY, block=b"\0\0\0\0"), "FRAME_SIZE_ERROR"),
    "6.3 PRIORITY on stream 0": (b"", frame(PRIORITY, 0, 0, bytes(5)), "PROTOCOL_ERROR"),
    "6.3 PRIORITY of another length while idle": (b"", frame(PRIORITY, 0, 1, bytes(4)), "FRAME_SIZE_ERROR"),
    "6.3 PRIORITY of another length when closed": (OPEN + RESET, frame(PRIORITY, 0, 1, bytes(4)), "FRAME_SIZE_ERROR"),
    "6.4 RST_STREAM on stream 0": (b"", frame(RST_STREAM, 0, 0, bytes(4)), "PROTOCOL_ERROR"),
    "6.4 RST_STREAM of another length": (OPEN, frame(RST_STREAM, 0, 1, bytes(3)), "FRAME_SIZE_ERROR"),
    "6.5 an acknowledgement with a payload": (b"", frame(SETTINGS, 1, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    "6.5 SETTINGS on a stream": (b"", frame(SETTINGS, 0, 1, bytes(6)), "PROTOCOL_ERROR"),
    "6.5 SETTINGS that end within one": (b"", frame(SETTINGS, 0, 0, bytes(3)), "FRAME_SIZE_ERROR"),
    "6.5.2 ENABLE_PUSH 2": (b"", setting(2, 2), "PROTOCOL_ERROR"),
    "6.5.2 INITIAL_WINDOW_SIZE too large": (b"", setting(4, 1 << 31), "FLOW_CONTROL_ERROR"),
    "6.5.2 MAX_FRAME_SIZE too small": (b"", setting(5, 16_383), "PROTOCOL_ERROR"),
    "6.5.2 MAX_FRAME_SIZE too large": (b"", setting(5, 1 << 24), "PROTOCOL_ERROR"),
    "8441 ENABLE_CONNECT_PROTOCOL 2": (b"", setting(8, 2), "PROTOCOL_ERROR"),
    "8441 ENABLE_CONNECT_PROTOCOL taken back": (setting(8, 1), setting(8, 0), "PROTOCOL_ERROR"),
    "6.6 PUSH_PROMISE": (OPEN, frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + BLOCK), "PROTOCOL_ERROR"),
    "6.7 PING on a stream": (b"", frame(PING, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "6.7 PING of another length": (b"", frame(PING, 0, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    "6.8 GOAWAY on a stream": (b"", frame(GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "6.8 GOAWAY too short": (b"", frame(GOAWAY, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
    "6.9 WINDOW_UPDATE by 0": (b"", frames.window_update(0, 0), "PROTOCOL_ERROR"),
    "6.9 WINDOW_UPDATE of another length": (b"", frame(WINDOW_UPDATE, 0, 0, bytes(3)), "FRAME_SIZE_ERROR"),
    "6.9.1 a window that is too large": (b"", frames.window_update(0, (1 << 31) - 1), "FLOW_CONTROL_ERROR"),
    "6.9.1 more than the connection's window": (
        b"".join(head(id, end=False, block=POST_BLOCK) for id in range(1, 40, 2)), None, "FLOW_CONTROL_ERROR"),
    "6.9.2 a first window that makes another too large": (
        OPEN + frames.window_update(1, (1 << 31) - 1 - 65_535), setting(4, 65_536), "FLOW_CONTROL_ERROR"),
    "6.10 CONTINUATION without HEADERS": (b"", frame(CONTINUATION, END_HEADERS, 1, b""), "PROTOCOL_ERROR"),
    "6.10 CONTINUATION on stream 0": (head(1, flags=0), frame(CONTINUATION, 4, 0, b""), "PROTOCOL_ERROR"),
    "6.10 CONTINUATION after the block's end": (HALF, frame(CONTINUATION, 4, 1, b""), "PROTOCOL_ERROR"),
    "6.10 CONTINUATION after DATA": (OPEN + frame(DATA, 1, 1, b"x"), frame(CONTINUATION, 4, 1, b""), "PROTOCOL_ERROR"),
    # HPACK (7541)
    "hpack 2.3.3 an index beyond the tables": (b"", head(1, block=BLOCK + b"\xc6"), "COMPRESSION_ERROR"),
    "hpack 4.2 a change of size at the end": (b"", head(1, block=BLOCK + b"\x21"), "COMPRESSION_ERROR"),
    "hpack 5.2 padding of a byte": (b"", head(1, block=BLOCK + b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        "COMPRESSION_ERROR"),
    "hpack 5.2 padding with zeros": (b"", head(1, block=BLOCK + b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"),
        "COMPRESSION_ERROR"),
    "hpack 5.2 EOS": (b"", head(1, block=BLOCK + b"\x00\x85\xf2\xb2\x4a\x87\xff\xff\xff\xfd\x25\x42\x7f"),
        "COMPRESSION_ERROR"),
    "hpack 6.1 index 0": (b"", head(1, block=BLOCK + b"\x80"), "COMPRESSION_ERROR"),
    "hpack 6.3 a table larger than was agreed on": (b"", head(1, block=b"\x3f\xe2\x1f" + BLOCK), "COMPRESSION_ERROR"),
}  # fmt: skip

STREAM_ERRORS = {
    "5.1 half-closed: DATA": (HALF, frame(DATA, END_STREAM, 1, b"x"), "STREAM_CLOSED"),
    "5.1 half-closed: HEADERS": (HALF, HALF, "STREAM_CLOSED"),
    "5.1 closed by a reset: DATA": (OPEN + RESET, frame(DATA, END_STREAM, 1, b"x"), "STREAM_CLOSED"),
    "5.1 closed by a reset: HEADERS": (OPEN + RESET, HALF, "STREAM_CLOSED"),
    "5.3.1 HEADERS depend on themselves": (
        b"", head(1, flags=END_HEADERS | WITH_PRIORITY, block=b"\0\0\0\x01\0" + BLOCK), "PROTOCOL_ERROR"),
    "5.3.1 PRIORITY on itself": (OPEN, frame(PRIORITY, 0, 1, b"\0\0\0\x01\0"), "PROTOCOL_ERROR"),
    "6.3 PRIORITY of another length": (OPEN, frame(PRIORITY, 0, 1, bytes(4)), "FRAME_SIZE_ERROR"),
    "6.9 WINDOW_UPDATE by 0": (OPEN, frames.window_update(1, 0), "PROTOCOL_ERROR"),
    "6.9.1 a window that is too large": (OPEN, frames.window_update(1, (1 << 31) - 1), "FLOW_CONTROL_ERROR"),
    "6.9.1 more than the stream's window": (OPEN, frame(DATA, 0, 1, bytes(16_384)) * 4, "FLOW_CONTROL_ERROR"),
    "8.1 HEADERS in the middle without an end": (
        OPEN + frame(DATA, 0, 1, b"x"), head(1, end=False, block=b""), "PROTOCOL_ERROR"),
    "8.1 a pseudo-header field among trailers": (OPEN, head(1, block=b"\x82"), "PROTOCOL_ERROR"),
}  # fmt: skip

CT = ("content-length", "1")
MALFORMED = {
    "8.2.1 a name in upper case": [*GET, ("X-Test", "ok")],
    "8.2.1 a name with a colon": [*GET, ("a:b", "ok")],
    "8.2.1 a name with a space": [*GET, ("a b", "ok")],
    "8.2.1 an empty name": [*GET, ("", "ok")],
    "8.2.1 a value with a line end": [*GET, ("a", "b\r\nc: d")],
    "8.2.1 a value with NUL": [*GET, ("a", "b\0")],
    "8.2.1 a value that begins with a space": [*GET, ("a", " b")],
    "8.2.1 a value that ends with a tab": [*GET, ("a", "b\t")],
    "8.2.2 connection": [*GET, ("connection", "keep-alive")],
    "8.2.2 keep-alive": [*GET, ("keep-alive", "5")],
    "8.2.2 proxy-connection": [*GET, ("proxy-connection", "keep-alive")],
    "8.2.2 transfer-encoding": [*GET, ("transfer-encoding", "chunked")],
    "8.2.2 upgrade": [*GET, ("upgrade", "h2c")],
    "8.2.2 te that is not trailers": [*GET, ("te", "trailers, deflate")],
    "8.3 an unknown pseudo-header field": [*GET, (":test", "ok")],
    "8.3 a pseudo-header field of responses": [*GET, (":status", "200")],
    "8.3 a pseudo-header field after a regular one": [*GET[:3], ("x", "y"), GET[3]],
    "8.3.1 an empty path": [*GET[:3], (":path", "")],
    "8.3.1 a path that is relative": [*GET[:3], (":path", "a")],
    "8.3.1 a path with a space": [*GET[:3], (":path", "/a b")],
    "8.3.1 a path with a fragment": [*GET[:3], (":path", "/a#b")],
    "8.3.1 an asterisk that is not for OPTIONS": [*GET[:3], (":path", "*")],
    "8.3.1 no method": GET[1:],
    "8.3.1 no scheme": [GET[0], *GET[2:]],
    "8.3.1 an empty scheme": [GET[0], (":scheme", ""), *GET[2:]],
    "8.3.1 no path": GET[:3],
    "8.3.1 no authority": [*GET[:2], GET[3]],
    "8.3.1 an empty authority": [*GET[:2], (":authority", ""), GET[3]],
    "8.3.1 user information": [*GET[:2], (":authority", "u@a"), GET[3]],
    "8.3.1 Host differs": [*GET, ("host", "b")],
    "8.3.1 Host twice": [*GET, ("host", "a"), ("host", "a")],
    "8.3.1 a method twice": [GET[0], *GET],
    "8.3.1 a scheme twice": [*GET, GET[1]],
    "8.3.1 a path twice": [*GET, GET[3]],
    "8.3.1 a method that is no token": [(":method", "G T"), *GET[1:]],
    "8.3.1 a scheme that is none": [GET[0], (":scheme", "1 "), *GET[2:]],
    "8.5 CONNECT with a path": [(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
    "8.5 CONNECT with a scheme": [(":method", "CONNECT"), (":authority", "a:1"), (":scheme", "http")],
    "8.5 CONNECT without a port": [(":method", "CONNECT"), (":authority", "a")],
    "8.5 CONNECT without an authority": [(":method", "CONNECT"), ("host", "a:1")],
    "8441 a protocol without CONNECT": [*GET, (":protocol", "websocket")],
    "8441 a protocol without a path": [(":method", "CONNECT"), *GET[1:3], (":protocol", "websocket")],
    "8441 a protocol that is no token": [(":method", "CONNECT"), *GET[1:], (":protocol", "a b")],
    "8.1.1 Content-Length that is none": [*GET, ("content-length", "+1")],
    "8.1.1 Content-Length twice": [*POST, CT, CT],
    "8.1.1 Content-Length with no body": [*POST, CT],
}


def begin(before: bytes | None) -> H2Protocol:
    side = Side()
    if before is not None:
        side.engine.receive(PREFACE + SETTINGS_FRAME + before)
    side.engine.take()
    return side.engine


@pytest.mark.parametrize(("before", "bad", "code"), CONNECTION_ERRORS.values(), ids=CONNECTION_ERRORS)
def test_the_connection_ends(before: bytes | None, bad: bytes | None, code: str) -> None:
    engine = begin(before)
    if bad is None:
        engine._window = 65_535 * 3  # as if the connection had room for less than its streams have
        engine._size = 1 << 30
        bad = b"".join(frame(DATA, 0, id, bytes(16_000)) for id in range(1, 40, 2))
    with pytest.raises(H2Error) as caught:
        engine.receive(bad)
    assert code_name(caught.value.code) == code
    assert engine.take()[-200:].find(caught.value.code.to_bytes(4, "big")) >= 0
    engine.receive(bad)
    assert engine.take() == b""


@pytest.mark.parametrize(("before", "bad", "code"), STREAM_ERRORS.values(), ids=STREAM_ERRORS)
def test_the_stream_ends(before: bytes, bad: bytes, code: str) -> None:
    peer = Peer()
    peer.send(before)
    peer.read()
    peer.send(bad)
    assert peer.read()[0] == f"1 RST_STREAM {code}"
    peer.send(head(3))
    assert peer.side.heard()[-1] == "3 GET http://a/ end"


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_ends_its_stream(fields: list[tuple[str, str]]) -> None:
    peer = Peer()
    peer.send(peer.head(1, fields))
    assert peer.read() == ["1 RST_STREAM PROTOCOL_ERROR"]
    assert peer.side.heard() == []
    peer.send(peer.head(3))
    assert peer.side.heard() == ["3 GET http://a/ end"]


@pytest.mark.parametrize(
    ("length", "parts"), [("1", [b"test"]), ("5", [b"test"]), ("1", [b"te", b"st"]), ("0", [b"x"])]
)
def test_a_body_that_differs_from_its_content_length_ends_its_stream(length: str, parts: list[bytes]) -> None:
    peer = Peer()
    peer.send(peer.head(1, [*POST, ("content-length", length)], end=False))
    for part in parts:
        peer.send(frame(DATA, part is parts[-1], 1, part))
    assert peer.read()[0] == "1 RST_STREAM PROTOCOL_ERROR"


def test_trailers_that_come_before_the_content_length_was_reached_end_the_stream() -> None:
    peer = Peer()
    peer.send(peer.head(1, [*POST, ("content-length", "3")], end=False), peer.head(1, [("a", "b")]))
    assert peer.read() == ["1 RST_STREAM PROTOCOL_ERROR"]


def test_frames_after_a_stream_has_ended_end_the_connection() -> None:
    for late in (frame(DATA, 0, 1, b"x"), head(1)):
        peer = Peer()
        peer.send(head(1))
        peer.side.engine.send_head(peer.side.streams[1], OK, end=True)
        peer.read()
        peer.send(frames.window_update(1, 1), RESET, frame(PRIORITY, 0, 1, b"\0\0\0\0\0"))
        assert peer.read() == []
        assert peer.error(late) == "STREAM_CLOSED"


@pytest.mark.parametrize(
    "fine",
    [
        frame(0xFF, 0, 0, b"x"),
        frame(0xFF, 0xFF, 1, b"x"),
        frame(PING, 0xFE, 0, bytes(8)),
        frame(PING, 1, 0, bytes(8)),
        frame(PRIORITY, 0, 1, b"\0\0\0\x03\0"),
        setting(0xFFFF, 1),
        frame(GOAWAY, 0, 0, bytes(8)),
        frame(WINDOW_UPDATE, 0, 0x80000000, b"\x80\0\0\x01"),
    ],
    ids=["unknown type", "unknown type on a stream", "unknown flags", "unasked ack", "PRIORITY", "unknown setting",
         "GOAWAY", "reserved bits"],
)  # fmt: skip
def test_what_is_not_known_or_does_not_matter_is_no_error(fine: bytes) -> None:
    peer = Peer()
    peer.send(fine, head(1))
    assert peer.side.heard()[-1] == "1 GET http://a/ end"


@pytest.mark.parametrize(
    "bad",
    [
        frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02" + BLOCK),
        setting(2, 1),
        frame(HEADERS, BOTH, 2, b"\x88"),
        frame(HEADERS, BOTH, 3, b"\x88"),
        frame(DATA, 0, 3, b"x"),
    ],
    ids=[
        "PUSH_PROMISE",
        "ENABLE_PUSH 1",
        "a stream of the server's",
        "a response to nothing",
        "DATA of nothing",
    ],
)
def test_a_client_does_not_take_what_no_server_may_send(bad: bytes) -> None:
    peer = Peer(client=True)
    peer.side.open(GET)
    peer.read()
    assert peer.error(bad) == "PROTOCOL_ERROR"


@pytest.mark.parametrize(
    "answer",
    [
        [[("x", "y")]],
        [[(":status", "99")]],
        [[(":status", "101")]],
        [[(":status", "abc")]],
        [[(":status", "200"), (":status", "200")]],
        [[(":status", "200"), (":path", "/")]],
        [[(":status", "200"), ("connection", "close")]],
        [[(":status", "200"), ("content-length", "5")]],
        [[(":status", "200"), ("content-length", "5"), ("content-length", "6")]],
        [[(":status", "1000")]],
        [[(":status", "103")]],
        [[(":status", "200"), ("X", "y")]],
    ],
)
def test_a_malformed_response_ends_its_stream(answer: list[list[tuple[str, str]]]) -> None:
    peer = Peer(client=True)
    peer.side.open(GET)
    peer.read()
    for fields in answer:
        peer.send(peer.head(1, fields))
    assert peer.read() == ["1 RST_STREAM PROTOCOL_ERROR"]
    assert peer.side.heard() == ["1 reset PROTOCOL_ERROR"]


@pytest.mark.parametrize(
    ("status", "fields", "heard"),
    [
        ("103", [("content-length", "5")], "1 interim 103"),
        ("103", [("content-length", "x")], "1 interim 103"),
        ("204", [("content-length", "5")], "1 response 204 end"),
        ("304", [("content-length", "5")], "1 response 304 content-length=5 end"),
        ("200", [("content-length", "0"), ("content-length", "0")], "1 response 200 Content-Length=0 end"),
        ("200", [("content-length", "0, 0")], "1 response 200 Content-Length=0 end"),
        ("600", [], "1 response 600 end"),
        ("999", [], "1 response 999 end"),
    ],
)
def test_what_a_length_says_of_a_response_without_a_body_is_ignored(
    status: str, fields: list[tuple[str, str]], heard: str
) -> None:
    peer = Peer(client=True)
    peer.side.open(GET)
    peer.read()
    peer.send(peer.head(1, [(":status", status), *fields], end=status > "199"))
    assert peer.side.heard() == [heard]
    assert peer.read() == []


@pytest.mark.parametrize("status", ["204", "304"])
def test_a_response_that_cannot_have_a_body_has_none(status: str) -> None:
    peer = Peer(client=True)
    peer.side.open(GET)
    peer.read()
    peer.send(peer.head(1, [(":status", status), ("content-length", "1")], end=False))
    peer.side.lines.clear()
    peer.send(frame(DATA, 1, 1, b"x"))
    assert peer.read() == ["1 RST_STREAM PROTOCOL_ERROR"]


def test_data_before_a_response_ends_the_stream() -> None:
    peer = Peer(client=True)
    peer.side.open(GET)
    peer.read()
    peer.send(frame(DATA, 0, 1, b"x"))
    assert peer.read() == ["1 RST_STREAM PROTOCOL_ERROR"]


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200"), ("GET", "304")], ids=["an answer to HEAD", "not modified"]
)
def test_a_response_without_a_body_may_tell_its_length(method: str, status: str) -> None:
    peer = Peer(client=True)
    peer.side.open([(":method", method), *GET[1:]])
    peer.send(peer.head(1, [(":status", status), ("content-length", "5")]))
    assert peer.side.heard() == [f"1 response {status} content-length=5 end"]

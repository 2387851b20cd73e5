"""Our engine beside the `h2` library: random legal and illegal exchanges in both roles, and random bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import H2Error, frame
from llama.http._h2.wire.states import CLOSED
from tests.http.h2.wire.h2_pair import GET, OK, POST, Peer, Side

h2_connection = pytest.importorskip("h2.connection")
h2_config = pytest.importorskip("h2.config")
h2_events = pytest.importorskip("h2.events")
h2_errors = pytest.importorskip("h2.exceptions")

HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["x-a", "accept", "x-longer-name", "cookie", "authorization"]),
        st.text("abcdefgh0123456789/=;", min_size=1, max_size=30),
    ),
    max_size=5,
    unique_by=lambda pair: pair[0],
)
SMALL = st.binary(max_size=3000)
EXCHANGE = st.tuples(
    HEADERS,  # of the request
    st.lists(SMALL, max_size=3),  # its body
    st.none() | HEADERS.filter(bool),  # its trailers
    HEADERS,
    st.lists(SMALL, max_size=3),
    st.none() | HEADERS.filter(bool),
    st.sampled_from(["", "", "", "client resets", "server resets"]),
)


def their_side(*, client: bool) -> Any:
    side = h2_connection.H2Connection(
        h2_config.H2Configuration(
            client_side=client, header_encoding="latin-1", validate_inbound_headers=True
        )
    )
    side.initiate_connection()
    return side


class Theirs:
    """An `h2` connection that keeps what it is told, in the words of ours."""

    def __init__(self, *, client: bool) -> None:
        self.connection = their_side(client=client)
        self.told: dict[int, list[str]] = {}
        self.bodies: dict[int, bytes] = {}

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            self.note(event)

    def note(self, event: Any) -> None:
        kind = type(event).__name__
        id = getattr(event, "stream_id", 0) or 0
        lines = self.told.setdefault(id, [])
        if kind in ("RequestReceived", "ResponseReceived", "TrailersReceived"):
            fields = [(str(n), str(v)) for n, v in event.headers if not str(n).startswith(":")]
            lines.append(f"{kind} {sorted(fields)}")  # its encoder puts them in another order
        elif kind == "DataReceived":
            self.bodies[id] = self.bodies.get(id, b"") + event.data
            if event.flow_controlled_length:
                self.connection.acknowledge_received_data(event.flow_controlled_length, id)
        elif kind == "StreamReset":
            lines.append("reset")
        elif kind == "StreamEnded":
            lines.append("end")


def carry(ours: Side, theirs: Theirs) -> None:
    while True:
        there, back = ours.engine.take(), theirs.connection.data_to_send()
        if not there and not back:
            return
        theirs.receive(there)
        ours.engine.receive(back)


@settings(max_examples=30, deadline=None)
@given(st.lists(EXCHANGE, min_size=1, max_size=4))
def test_our_client_and_their_server_agree(exchanges: list[Any]) -> None:
    ours, theirs = Side(client=True), Theirs(client=False)
    carry(ours, theirs)
    for request, body, trailers, answer, answer_body, answer_trailers, accident in exchanges:
        parts = [*body]
        ended = not parts and trailers is None
        stream = ours.open([*POST, *request], end=ended)
        for index, part in enumerate(parts):
            ours.engine.send_data(stream, part, end=index == len(parts) - 1 and trailers is None)
        if trailers is not None:
            ours.engine.send_head(stream, trailers, end=True)
        carry(ours, theirs)
        assert theirs.bodies.get(stream.id, b"") == b"".join(parts)
        lines = theirs.told[stream.id]
        assert lines[0] == f"RequestReceived {sorted(request)}"
        assert lines[-1] == "end"
        if trailers is not None:
            assert f"TrailersReceived {sorted(trailers)}" in lines
        if accident == "client resets":
            ours.engine.reset(stream, frames.CANCEL)
            carry(ours, theirs)
            assert theirs.told[stream.id][-1] == "reset"
            continue
        if accident == "server resets":
            theirs.connection.reset_stream(stream.id)
            carry(ours, theirs)
            assert ours.heard()[-1] == f"{stream.id} reset NO_ERROR by peer"
            continue
        send_theirs(theirs, stream.id, [*OK, *answer], answer_body, answer_trailers)
        carry(ours, theirs)
        assert ours.bodies.pop(stream.id, b"") == b"".join(answer_body)
        assert stream.state == CLOSED
        check_answer(ours, stream.id, answer, answer_trailers)


def send_theirs(
    theirs: Theirs,
    id: int,
    head: list[tuple[str, str]],
    parts: list[bytes],
    trailers: list[tuple[str, str]] | None,
) -> None:
    theirs.connection.send_headers(id, head, end_stream=not parts and trailers is None)
    for index, part in enumerate(parts):
        theirs.connection.send_data(id, part, end_stream=index == len(parts) - 1 and trailers is None)
    if trailers is not None:
        theirs.connection.send_headers(id, trailers, end_stream=True)


def words(line: str, fields: list[tuple[str, str]] | None = None) -> list[str]:
    return sorted([*line.removesuffix(" end").split(), *(f"{name}={value}" for name, value in fields or ())])


def check_answer(
    ours: Side, id: int, fields: list[tuple[str, str]], trailers: list[tuple[str, str]] | None
) -> None:
    lines = [line for line in ours.heard() if line.startswith(f"{id} ")]
    assert words(lines[0]) == words(f"{id} response 200", fields)
    if trailers is not None:
        assert words(lines[-1]) == words(f"{id} trailers", trailers)
    else:
        assert lines[-1].endswith(" end")


@settings(max_examples=30, deadline=None)
@given(st.lists(EXCHANGE, min_size=1, max_size=4))
def test_their_client_and_our_server_agree(exchanges: list[Any]) -> None:
    ours, theirs = Side(), Theirs(client=True)
    carry(ours, theirs)
    for request, parts, trailers, answer, answer_body, answer_trailers, accident in exchanges:
        id = theirs.connection.get_next_available_stream_id()
        send_theirs(theirs, id, [*POST, *request], parts, trailers)
        carry(ours, theirs)
        lines = [line for line in ours.heard() if line.startswith(f"{id} ")]
        assert words(lines[0]) == words(f"{id} POST http://a/", request)
        assert ours.bodies.pop(id, b"") == b"".join(parts)
        stream = ours.streams[id]
        if accident == "client resets":
            theirs.connection.reset_stream(id)
            carry(ours, theirs)
            assert ours.heard()[-1] == f"{id} reset NO_ERROR by peer"
            continue
        if accident == "server resets":
            ours.engine.reset(stream, frames.CANCEL)
            carry(ours, theirs)
            assert theirs.told[id][-1] == "reset"
            continue
        ours.engine.send_head(stream, [*OK, *answer], end=not answer_body and answer_trailers is None)
        for index, part in enumerate(answer_body):
            last = index == len(answer_body) - 1 and answer_trailers is None
            ours.engine.send_data(stream, part, end=last)
        if answer_trailers is not None:
            ours.engine.send_head(stream, answer_trailers, end=True)
        carry(ours, theirs)
        assert theirs.bodies.get(id, b"") == b"".join(answer_body)
        assert theirs.told[id][0] == f"ResponseReceived {sorted(answer)}"
        assert theirs.told[id][-1] == "end"
        assert stream.state == CLOSED


# illegal ones: random frames, and where both judge they judge alike

ID = st.sampled_from([0, 1, 1, 3, 3, 5, 2])
FLAGS = st.sampled_from([0, 1, 4, 5, 5, 8, 0x20, 0x25])
GOOD_BLOCK = b"\x83\x86\x84\x41\x01a"
PAYLOAD = st.one_of(
    st.just(GOOD_BLOCK),
    st.just(b"\x88"),
    st.sampled_from(
        [b"", bytes(4), bytes(5), bytes(8), b"\0\0\0\x01", b"\0\3\0\0\0\x05", b"\x80", b"\0\4\0\1\0\0"]
    ),
    st.binary(max_size=20),
)
FRAME = st.builds(frame, st.integers(0, 9), FLAGS, ID, PAYLOAD)

# Where the two judge differently (kind of frame, our verdict, that of h2), and why ours is right or as good.
DIFFERENCES = {
    (frames.DATA, "connection", "stream"): "a stream that was passed over is closed (5.1.1)",
    (frames.DATA, "stream", "connection"): "padding that is wrong, on a stream that takes no DATA anyway",
    (frames.DATA, "fine", "stream"): "it was on its way when the stream was reset (5.4.2)",
    (frames.HEADERS, "fine", "stream"): "it was on its way when the stream was reset (5.4.2)",
    (frames.CONTINUATION, "fine", "stream"): "it was on its way when the stream was reset (5.4.2)",
    (frames.HEADERS, "stream", "connection"): "a malformed message is an error of its stream (8.1.1)",
    (
        frames.HEADERS,
        "fine",
        "connection",
    ): "a client that sent GOAWAY may go on: it is about the server's streams",
    (frames.CONTINUATION, "stream", "connection"): "a malformed message is an error of its stream (8.1.1)",
    (frames.CONTINUATION, "fine", "connection"): "a client that sent GOAWAY may go on",
    (frames.PRIORITY, "stream", "connection"): "of a wrong length is an error of the stream (6.3)",
    (frames.PRIORITY, "fine", "connection"): "the same, on a stream that is closed",
    (frames.RST_STREAM, "connection", "fine"): "of an idle stream is an error of the connection (6.4)",
    (frames.PUSH_PROMISE, "connection", "fine"): "no client may push (8.4)",
    (frames.WINDOW_UPDATE, "stream", "connection"): "by 0 is an error of the stream (6.9)",
    (frames.WINDOW_UPDATE, "fine", "connection"): "by 0, on a stream that is closed",
}


@settings(max_examples=150, deadline=None)
@given(st.lists(FRAME, max_size=8))
def test_ours_and_h2_judge_random_frames_alike_or_there_is_a_reason(parts: list[bytes]) -> None:
    ours, theirs = Side(), Theirs(client=False)
    begin = frames.PREFACE + frame(frames.SETTINGS, 0, 0)
    ours.engine.receive(begin)
    theirs.receive(begin)
    ours.engine.take()
    theirs.connection.data_to_send()
    for part in parts:
        verdict, their = verdict_of(ours, part), their_verdict(theirs, part)
        if verdict != their:
            assert (part[3], verdict, their) in DIFFERENCES
            return
        if verdict == "connection":
            return


RESET = bytes((0, 0, 4, frames.RST_STREAM, 0))


def verdict_of(side: Side, data: bytes) -> str:
    try:
        side.engine.receive(data)
    except H2Error:
        return "connection"
    return "stream" if RESET in side.engine.take() else "fine"


def their_verdict(side: Theirs, data: bytes) -> str:
    try:
        side.receive(data)
    except h2_errors.ProtocolError:
        return "connection"
    return "stream" if RESET in side.connection.data_to_send() else "fine"


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(st.one_of(FRAME, st.binary(max_size=40)), max_size=20))
def test_whatever_comes_there_is_no_other_error_and_little_is_kept(client: bool, parts: list[bytes]) -> None:
    peer = Peer(client=client)
    if client:
        peer.side.open(POST, end=False)
        peer.side.open(GET)
    for part in parts:
        try:
            peer.send(part)
        except H2Error:
            break
    engine = peer.side.engine
    assert len(engine._rest) < 16_384 + 9
    assert len(engine.streams) <= len(parts) + 2

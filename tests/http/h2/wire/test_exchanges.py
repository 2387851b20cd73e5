"""Whole exchanges between two engines, and what each side was told."""

from __future__ import annotations

import pytest

from llama.http._h2.wire import frames
from llama.http._h2.wire.fields import request_fields, response_fields, trailer_fields
from llama.http._h2.wire.frames import MAX_WINDOW, frame
from llama.http._h2.wire.priority import parse_priority
from llama.http._limits import H2Limits
from llama.http._messages.headers import Headers
from tests.http.h2.wire.h2_pair import GET, OK, POST, Peer, Side, exchange, pair, pieces


@pytest.mark.parametrize("piece", [0, 1, 7])
def test_a_request_and_its_answer(piece: int) -> None:
    client, server = pair()
    stream = client.open([*POST, ("content-length", "5")], end=False)
    client.engine.send_data(stream, b"hello", end=True)
    exchange(client, server, piece)
    assert server.heard() == ["1 POST http://a/ content-length=5", "1 data hello end"]
    server.engine.send_head(server.streams[1], [*OK, ("x", "y")], end=False)
    server.engine.send_data(server.streams[1], b"hi", end=False)
    server.engine.send_data(server.streams[1], b"", end=True)
    exchange(client, server, piece)
    assert client.heard() == ["1 response 200 x=y", "1 data hi", "1 data end"]
    assert not client.engine.streams and not server.engine.streams


def test_informational_responses_and_trailers_on_both_sides() -> None:
    client, server = pair()
    stream = client.open(POST, end=False)
    client.engine.send_data(stream, b"a", end=False)
    client.engine.send_head(stream, [("t", "1")], end=True)
    exchange(client, server)
    assert server.heard() == ["1 POST http://a/", "1 data a", "1 trailers t=1"]
    back = server.streams[1]
    server.engine.send_head(back, [(":status", "103"), ("link", "l")], end=False)
    server.engine.send_head(back, OK, end=False)
    server.engine.send_data(back, b"b", end=False)
    server.engine.send_head(back, [("grpc-status", "0")], end=True)
    exchange(client, server)
    assert client.heard() == [
        "1 interim 103 link=l",
        "1 response 200",
        "1 data b",
        "1 trailers grpc-status=0",
    ]


def test_many_streams_at_a_time() -> None:
    client, server = pair()
    for _ in range(50):
        client.open(GET)
    exchange(client, server)
    for stream in reversed(server.streams.values()):
        server.engine.send_head(stream, OK, end=True)
    exchange(client, server)
    assert client.heard() == [f"{id} response 200 end" for id in range(99, 0, -2)]


def test_a_head_larger_than_a_frame_is_continued() -> None:
    limits = H2Limits(max_header_list_size=200_000)
    client, server = pair(server_limits=limits)
    value = "ä" * 40_000
    client.open([*GET, ("x", value)])
    data = client.engine.take()
    kinds = []
    at = 0
    while at < len(data):
        kinds.append(data[at + 3])
        at += 9 + int.from_bytes(data[at : at + 3], "big")
    assert kinds == [frames.HEADERS, frames.CONTINUATION, frames.CONTINUATION]
    server.engine.receive(data)
    assert server.heard() == [f"1 GET http://a/ x={value} end"]


def test_a_connect_request_has_an_authority_alone() -> None:
    client, server = pair()
    client.open([(":method", "CONNECT"), (":authority", "b:443")], end=False)
    exchange(client, server)
    assert server.heard() == ["1 CONNECT b:443"]


def test_an_extended_connect_names_a_protocol() -> None:
    client, server = pair()
    assert client.engine.extended_connect
    client.open([(":method", "CONNECT"), *GET[1:], (":protocol", "websocket")], end=False)
    exchange(client, server)
    assert server.heard() == ["1 CONNECT http://a/ :websocket"]


def test_cookie_crumbs_are_joined_and_a_host_stands_for_the_authority() -> None:
    client, server = pair()
    fields = [*GET[:2], GET[3], ("host", "b"), ("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]
    client.open(fields)
    exchange(client, server)
    assert server.heard() == ["1 GET http://b/ cookie=a=b; c=d x=y end"]


def test_a_reset_is_told_once_and_frees_the_stream() -> None:
    client, server = pair()
    stream = client.open(GET)
    exchange(client, server)
    client.engine.reset(stream, frames.CANCEL)
    client.engine.reset(stream, frames.CANCEL)
    exchange(client, server)
    assert server.heard() == ["1 GET http://a/ end", "1 reset CANCEL by peer"]
    assert not client.engine.streams and not server.engine.streams


def test_what_is_on_its_way_to_a_stream_that_was_reset_is_ignored() -> None:
    client, server = pair()
    stream = client.open(POST, end=False)
    exchange(client, server)
    server.engine.reset(server.streams[1], frames.NO_ERROR)
    client.engine.send_data(stream, b"late", end=False)
    client.engine.send_head(stream, [("t", "1")], end=True)
    exchange(client, server)
    assert client.heard() == ["1 reset NO_ERROR by peer"]
    client.open(GET)
    exchange(client, server)
    assert server.heard()[1:] == ["3 GET http://a/ end"]


# flow control


def test_no_more_is_sent_than_the_peer_has_room_for() -> None:
    client, server = pair()
    stream = client.open(POST, end=False)
    assert client.engine.room(stream) == 65_535
    client.engine.send_data(stream, bytes(65_535), end=False)
    assert client.engine.room(stream) == 0
    with pytest.raises(ValueError, match="1 bytes on stream 1, which has room for 0"):
        client.engine.send_data(stream, b"x", end=False)
    client.engine.send_data(stream, b"", end=True)
    exchange(client, server)
    assert len(server.bodies[1]) == 65_535


def test_room_on_the_connection_is_given_back_on_receipt_and_that_of_a_stream_when_it_was_read() -> None:
    client, server = pair()
    client.engine.send_window = 65_535  # as if the server had given no more than every connection has
    server.engine._window = server.engine._size = 65_535
    first, second = client.open(POST, end=False), client.open(POST, end=False)
    client.engine.send_data(first, bytes(65_535), end=False)
    exchange(client, server)
    assert client.engine.room(first) == 0
    assert client.engine.room(second) == 65_535
    server.engine.consumed(server.streams[1], 65_535)
    exchange(client, server)
    assert client.engine.room(first) > 65_535


def test_a_window_doubles_with_use_up_to_its_most_and_no_further() -> None:
    limits = H2Limits(max_window=200_000)
    client, server = pair(server_limits=limits)
    stream = client.open(POST, end=False)
    for _ in range(20):
        room = min(16_384, client.engine.room(stream))
        client.engine.send_data(stream, bytes(room), end=False)
        exchange(client, server)
        server.engine.consumed(server.streams[1], room)
        exchange(client, server)
    assert server.streams[1].size == 200_000
    assert client.engine.room(stream) > 100_000


def test_the_windows_of_a_connection_grow_no_more_than_it_allows() -> None:
    client, server = pair(server_limits=H2Limits(window_budget=100_000))
    for _ in range(3):
        stream = client.open(POST, end=False)
        for _ in range(20):
            client.engine.send_data(stream, bytes(16_384), end=False)
            exchange(client, server)
            server.engine.consumed(server.streams[stream.id], 16_384)
            exchange(client, server)
    assert sum(stream.size - 65_535 for stream in server.streams.values()) == 100_000


def test_a_change_of_the_first_window_moves_open_streams_below_zero_if_need_be() -> None:
    peer = Peer()
    peer.send(peer.head(1))
    stream = peer.side.streams[1]
    peer.side.engine.send_head(stream, OK, end=False)
    peer.side.engine.send_data(stream, bytes(1000), end=False)
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 500}))
    assert peer.side.engine.room(stream) == -500
    peer.send(frames.window_update(1, 501))
    assert peer.side.engine.room(stream) == 1


def test_padding_counts_for_the_window_and_is_given_back() -> None:
    peer = Peer()
    peer.send(peer.head(1, POST, end=False))
    stream = peer.side.streams[1]
    for _ in range(300):
        peer.send(frame(frames.DATA, frames.PADDED, 1, b"\xff" + b"a" + bytes(255)))
        peer.side.engine.consumed(stream, 1)
    assert peer.side.bodies[1] == b"a" * 300
    assert stream.window > 0


def test_larger_frames_are_sent_where_the_peer_takes_them() -> None:
    peer = Peer()
    peer.send(peer.head(1), frames.settings({frames.MAX_FRAME_SIZE: 40_000}))
    peer.read()
    stream = peer.side.streams[1]
    peer.side.engine.send_head(stream, OK, end=False)
    peer.side.engine.send_data(stream, bytes(50_000), end=True)
    assert peer.read() == ["1 HEADERS :status=200", "1 DATA 40000", "1 DATA 10000 end"]


# the connection


def test_settings_and_pings_are_answered() -> None:
    peer = Peer()
    peer.send(frames.settings({frames.MAX_CONCURRENT_STREAMS: 7}), frame(frames.PING, 0, 0, b"12345678"))
    assert peer.read() == ["SETTINGS ack", "PING ack"]
    assert peer.side.heard() == ["settings"]
    assert peer.side.engine.max_streams == 7


def test_a_ping_of_ours_comes_back() -> None:
    client, server = pair()
    client.engine.ping(b"12345678")
    exchange(client, server)
    assert client.heard() == ["pong b'12345678'"]


def test_a_server_says_twice_that_it_leaves_and_takes_what_was_on_its_way() -> None:
    client, server = pair()
    client.open(GET)
    exchange(client, server)
    server.engine.drain()
    late = client.open(GET)
    exchange(client, server)
    assert client.heard() == [f"goaway {MAX_WINDOW} NO_ERROR", f"goaway {late.id} NO_ERROR"]
    assert [line for line in server.heard() if "GET" in line] == [
        "1 GET http://a/ end",
        "3 GET http://a/ end",
    ]
    client.open(GET)
    exchange(client, server)
    assert server.heard() == []
    server.engine.send_head(server.streams[1], OK, end=True)
    exchange(client, server)
    assert client.heard() == ["1 response 200 end"]


def test_streams_that_a_leaving_server_did_not_take_are_refused() -> None:
    client, server = pair()
    for _ in range(3):
        client.open(GET)
    client.engine.take()
    client.engine.receive(frames.goaway(3, frames.NO_ERROR))
    assert client.heard() == ["5 reset REFUSED_STREAM by peer", "goaway 3 NO_ERROR"]
    assert list(client.engine.streams) == [1, 3]
    assert server.heard() == []


def test_streams_beyond_the_limit_are_refused_and_handlers_that_linger_count() -> None:
    client, server = pair(server_limits=H2Limits(max_concurrent_streams=2))
    assert client.engine.max_streams == 2
    for _ in range(3):
        client.open(GET)
    exchange(client, server)
    assert client.heard() == ["5 reset REFUSED_STREAM by peer"]
    server.engine.send_head(server.streams[1], OK, end=True)
    server.engine.lingering = 1
    client.open(GET)
    exchange(client, server)
    assert client.heard() == ["1 response 200 end", "7 reset REFUSED_STREAM by peer"]


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("u=1", (1, False)), ("u=7, i", (7, True)), ("i", (3, True)), ("i=?0, u=2", (2, False)), ("", (3, False)),
        ("u=9", (3, False)), ("x=1,u=0;a=b", (0, False)), ("u=1,u=2", (2, False)),
    ],
)  # fmt: skip
def test_priorities_are_understood_as_far_as_they_are_known(field: str, meant: tuple[int, bool]) -> None:
    assert parse_priority(field) == meant
    peer = Peer()
    peer.send(peer.head(1, [*GET, ("priority", field)]))
    assert (peer.side.streams[1].urgency, peer.side.streams[1].incremental) == meant
    peer.send(frame(frames.PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=6"))
    assert peer.side.streams[1].urgency == 6


# messages


def test_what_is_for_one_connection_stays_there() -> None:
    headers = Headers(
        [("Host", "b"), ("Connection", "close, X-A"), ("X-A", "1"), ("Keep-Alive", "5"), ("TE", "gzip, trailers"),
         ("Transfer-Encoding", "chunked"), ("Upgrade", "x"), ("Accept", "*/*")]
    )  # fmt: skip
    assert request_fields("GET", "https", "b", "/", "", headers)[4:] == [
        ("accept", "*/*"),
        ("te", "trailers"),
    ]
    assert response_fields(200, Headers([("Connection", "close"), ("Host", "h")])) == [
        (":status", "200"),
        ("host", "h"),
    ]
    assert trailer_fields(Headers([("A", "b"), ("Content-Length", "5")])) == [("a", "b")]


def test_the_same_head_again_is_told_anew() -> None:
    peer = Peer()
    fields = [*GET, ("x", "y")]
    for id in (1, 3, 5, 7):
        peer.send(peer.head(id, fields))
    assert peer.side.heard() == [f"{id} GET http://a/ x=y end" for id in (1, 3, 5, 7)]


def test_a_head_that_means_another_after_the_table_changed_is_not_taken_for_the_old_one() -> None:
    peer = Peer()
    rest = b"\x82\x86\x84\x41\x01a"
    peer.send(frame(frames.HEADERS, 5, 1, rest + b"\x40\x01x\x011"))
    peer.send(frame(frames.HEADERS, 5, 3, b"\x82\x86\x84\xbf\xbe"))
    peer.send(frame(frames.HEADERS, 5, 5, b"\x82\x86\x84\xbf\xbe"))
    peer.send(frame(frames.HEADERS, 5, 7, b"\x82\x86\x84\xbf\x40\x01x\x012"))
    peer.send(frame(frames.HEADERS, 5, 9, b"\x82\x86\x84\x01\x01a\xbe"))
    assert [line.partition("/ ")[2] for line in peer.side.heard()] == [
        "x=1 end", "x=1 end", "x=1 end", "x=2 end", "x=2 end",
    ]  # fmt: skip


def test_pieces_of_one_byte_are_as_good_as_any() -> None:
    side = Side()
    peer = Peer()
    data = frames.PREFACE + frame(frames.SETTINGS, 0, 0) + peer.head(1) + frame(frames.PING, 0, 0, bytes(8))
    for part in pieces(data, 1):
        side.engine.receive(part)
    assert side.heard() == ["settings", "1 GET http://a/ end"]

"""What an engine does to who asks too much: each limit, just below and just above."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from llama._core.errors import ConfigError
from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    frame,
)
from llama.http._limits import H2Limits
from tests.http.h2.wire.h2_pair import GET, OK, POST, SETTINGS_FRAME, Peer

CALM = "ENHANCE_YOUR_CALM"
LIMITS = H2Limits(
    max_resets=10,
    max_control_frames=20,
    max_pending_replies=30,
    max_continuations=3,
    max_header_block=20_000,
    max_concurrent_streams=5,
)


def opened(peer: Peer, id: int) -> bytes:
    return peer.head(id, POST, end=False)


def rapid_reset(peer: Peer, at: int) -> bytes:
    id = 1 + 2 * at
    return opened(peer, id) + frames.rst_stream(id, frames.CANCEL)


def made_you_reset(peer: Peer, at: int) -> bytes:
    id = 1 + 2 * at
    return opened(peer, id) + frames.window_update(id, 0)


def malformed(peer: Peer, at: int) -> bytes:
    return peer.head(1 + 2 * at, GET[1:])


@pytest.mark.parametrize("attack", [rapid_reset, made_you_reset, malformed])
def test_streams_are_cancelled_so_often_and_no_more(attack: Callable[[Peer, int], bytes]) -> None:
    peer = Peer(LIMITS)
    for at in range(10):
        peer.send(attack(peer, at))
        peer.read()
    assert peer.error(attack(peer, 10)) == CALM


def test_time_makes_cancelled_streams_good() -> None:
    peer = Peer(LIMITS)
    for at in range(100):
        peer.side.now += 0.05  # twenty a second
        peer.send(rapid_reset(peer, at))


def test_streams_that_were_answered_may_be_reset_as_often_as_one_likes() -> None:
    peer = Peer(LIMITS)
    for at in range(100):
        id = 1 + 2 * at
        peer.send(opened(peer, id))
        peer.side.engine.send_head(peer.side.streams[id], OK, end=True)
        peer.send(frames.rst_stream(id, frames.CANCEL))
        peer.read()


def test_streams_beyond_the_limit_count_too() -> None:
    peer = Peer(LIMITS)
    for at in range(5):
        peer.send(opened(peer, 1 + 2 * at))
    for at in range(5, 15):
        peer.send(opened(peer, 1 + 2 * at))
        assert peer.read() == [f"{1 + 2 * at} RST_STREAM REFUSED_STREAM"]
    assert peer.error(opened(peer, 31)) == CALM


NOISE = {
    "PING": frame(PING, 0, 0, bytes(8)),
    "PING acknowledged": frame(PING, 1, 0, bytes(8)),
    "SETTINGS": SETTINGS_FRAME,
    "SETTINGS acknowledged": frame(frames.SETTINGS, 1, 0),
    "PRIORITY": frame(PRIORITY, 0, 1, b"\0\0\0\x03\0"),
    "PRIORITY_UPDATE": frame(frames.PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"),
    "empty DATA": frame(DATA, 0, 1),
    "padding alone": frame(DATA, frames.PADDED, 1, b"\x03\0\0\0"),
    "WINDOW_UPDATE": frames.window_update(0, 1),
    "WINDOW_UPDATE of a stream": frames.window_update(1, 1),
    "an unknown type": frame(0xFA, 0, 0, b"x"),
    "RST_STREAM of what is closed": frame(RST_STREAM, 0, 3, bytes(4)),
    "GOAWAY": frame(frames.GOAWAY, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("flood", NOISE.values(), ids=NOISE)
def test_frames_that_carry_nothing_come_so_often_and_no_more(flood: bytes) -> None:
    peer = Peer(H2Limits(max_control_frames=20))
    peer.send(opened(peer, 1), opened(peer, 3), frames.rst_stream(3, 8))
    start = peer.side.engine._control_frames.count
    for _ in range(20 - start):
        peer.send(flood)
        peer.read()
    assert peer.error(flood) == CALM


@pytest.mark.parametrize("flood", [NOISE["PING"], NOISE["SETTINGS"]], ids=["PING", "SETTINGS"])
def test_frames_that_carry_something_and_time_make_good_those_that_do_not(flood: bytes) -> None:
    peer = Peer(H2Limits(max_control_frames=20))
    peer.send(opened(peer, 1))
    for _ in range(200):
        peer.send(flood, frame(DATA, 0, 1, b"x"))
        peer.read()
    for _ in range(200):
        peer.side.now += 0.005
        peer.send(flood)
        peer.read()


def test_answers_that_are_not_read_do_not_pile_up() -> None:
    peer = Peer(H2Limits(max_control_frames=10_000, max_pending_replies=30))
    peer.send(NOISE["PING"] * 30)
    assert peer.side.engine.pending == 30 * 17
    assert peer.error(NOISE["PING"]) == CALM


def test_a_header_block_ends_in_time() -> None:
    for filler, most in ((bytes(100), 3), (b"", 3), (bytes(8_000), 2)):
        peer = Peer(LIMITS)
        peer.send(frame(HEADERS, 0, 1, b"\x82"))
        for _ in range(most):
            peer.send(frame(CONTINUATION, 0, 1, filler))
        assert peer.error(frame(CONTINUATION, 0, 1, filler)) == CALM


def test_a_head_that_is_too_large_is_answered_and_the_connection_lives() -> None:
    peer = Peer(H2Limits(max_header_list_size=1000, max_headers=20, max_path=50))
    peer.send(peer.head(1, [*GET, ("a", "b" * 1000)]))
    peer.send(peer.head(3, [*GET, *[("a", "b")] * 23]))
    peer.send(peer.head(5, [*GET[:3], (":path", "/" * 51)]))
    peer.send(peer.head(7))
    assert peer.side.heard() == ["1 refused 431", "3 refused 431", "5 refused 414", "7 GET http://a/ end"]


def test_a_bomb_of_indices_costs_little() -> None:
    peer = Peer()
    peer.send(peer.head(1, [*GET, ("x", "y" * 900)]))
    bomb = b"\xbe" * 16_384
    tracemalloc.start()
    try:
        peer.send(
            frame(HEADERS, 0, 3, b"\x82"), frame(CONTINUATION, 0, 3, bomb), frame(CONTINUATION, 4, 3, bomb)
        )
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # it stands for 30 MB
    finally:
        tracemalloc.stop()
    assert peer.side.heard()[1:] == ["3 refused 431"]


def test_streams_that_were_closed_are_not_remembered_for_ever() -> None:
    peer = Peer()
    for at in range(5000):
        id = 1 + 2 * at
        peer.send(peer.head(id))
        peer.side.engine.send_head(peer.side.streams.pop(id), OK, end=True)
        peer.side.engine.take()
    assert len(peer.side.engine._closed_streams) <= 2048
    assert not peer.side.engine.streams


def test_different_heads_are_not_remembered_for_ever() -> None:
    peer = Peer()
    for at in range(500):
        peer.send(peer.head(1 + 2 * at, [*GET[:3], (":path", f"/{at}")]))
        peer.side.engine.reset(peer.side.streams.pop(1 + 2 * at), frames.CANCEL)
        peer.read()
    assert len(peer.side.engine._heads) <= 32


@pytest.mark.parametrize(
    "name", ["max_concurrent_streams", "initial_window", "control_frames_per_second", "stall_timeout"]
)
def test_a_limit_is_more_than_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0"):
        H2Limits(**{name: 0})


def test_a_first_window_is_not_above_the_most() -> None:
    with pytest.raises(ConfigError, match="max_window=70000"):
        H2Limits(initial_window=80_000, max_window=70_000)

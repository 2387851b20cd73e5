"""Where heads end, whatever the pieces they come in."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import ProtocolError
from llama.http._h1.wire.fields import HeadBuffer
from llama.http._limits import Limits

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


def feed(buffer: HeadBuffer, *pieces: bytes) -> tuple[bytes, bytes] | None:
    """Feed pieces until the head is there; what is left of the pieces follows the rest."""
    for index, piece in enumerate(pieces):
        if (found := buffer.feed(piece)) is not None:
            return found[0], found[1] + b"".join(pieces[index + 1 :])
    return None


def single(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def test_a_head_and_what_follows_are_parted() -> None:
    assert HeadBuffer().feed(HEAD + b"\r\nabc") == (HEAD, b"abc")


def test_a_head_that_comes_byte_by_byte_is_the_same() -> None:
    assert feed(HeadBuffer(), *single(HEAD + b"\r\nabc")) == (HEAD, b"abc")


def test_one_empty_line_before_the_head_is_skipped() -> None:
    assert HeadBuffer().feed(b"\r\n" + HEAD + b"\r\n") == (HEAD, b"")
    assert feed(HeadBuffer(), *single(b"\r\n" + HEAD + b"\r\n")) == (HEAD, b"")


def test_a_buffer_serves_one_head_after_another() -> None:
    buffer = HeadBuffer()
    for _ in range(2):
        assert feed(buffer, *single(b"\r\n" + HEAD + b"\r\n")) == (HEAD, b"")
    assert len(buffer) == 0


@given(st.lists(st.integers(0, len(HEAD) + 4), max_size=5))
def test_any_split_gives_the_same_head(cuts: list[int]) -> None:
    data = b"\r\n" + HEAD + b"\r\n"
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges) if a < b]
    assert feed(HeadBuffer(), *pieces) == (HEAD, b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"\r\r", 400),
        (b"\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n", 400),
        (b"GET / HTTP/1.1\rHost", 400),
        (b"GET /\x00", 400),
        (b"GET /" + b"a" * 20_000, 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 11_000, 431),
    ],
)
def test_what_can_become_no_head_is_refused_before_its_end(data: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        HeadBuffer().feed(data)
    assert caught.value.status == status
    with pytest.raises(ProtocolError) as caught:
        feed(HeadBuffer(), *single(data))
    assert caught.value.status == status


def test_a_cr_at_the_end_of_a_piece_may_begin_a_line_end() -> None:
    buffer = HeadBuffer()
    assert buffer.feed(b"GET / HTTP/1.1\r") is None
    assert buffer.feed(b"\n") is None
    assert buffer.feed(b"\r") is None
    assert buffer.feed(b"\nabc") == (b"GET / HTTP/1.1\r\n", b"abc")


def test_a_cr_alone_at_the_end_of_a_piece_is_refused_with_the_next() -> None:
    buffer = HeadBuffer()
    assert buffer.feed(b"GET / HTTP/1.1\r") is None
    with pytest.raises(ProtocolError):
        buffer.feed(b"Host")


def test_a_whole_head_is_held_to_the_limit_too() -> None:
    assert HeadBuffer(Limits(max_head=len(HEAD))).feed(HEAD + b"\r\n") is not None
    with pytest.raises(ProtocolError) as caught:
        HeadBuffer(Limits(max_head=len(HEAD) - 3)).feed(HEAD + b"\r\n")
    assert caught.value.status == 431

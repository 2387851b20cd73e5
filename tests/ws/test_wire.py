"""Frames as transcripts: what bytes say, and in which bytes it is said."""

import itertools
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from llama.ws._wire import Close, Event, Failure, Frames, Ping, Pong

KEY = b"\x01\x02\x03\x04"


def deflate(*, remote_takeover: bool = True, local_takeover: bool = True) -> PerMessageDeflate:
    return PerMessageDeflate(not remote_takeover, not local_takeover, 15, 15)


def at_server(max_size: int = 100, *, compressed: bool = False) -> Frames:
    return Frames(is_client=False, deflate=deflate() if compressed else None, max_size=max_size)


def at_client(max_size: int = 100, *, compressed: bool = False) -> Frames:
    return Frames(is_client=True, deflate=deflate() if compressed else None, max_size=max_size)


def masked(frame: bytes) -> bytes:
    """A short frame as a client sends it."""
    payload = bytes(byte ^ KEY[i % 4] for i, byte in enumerate(frame[2:]))
    return bytes((frame[0], frame[1] | 0x80)) + KEY + payload


def hear(frames: Frames, *parts: bytes) -> list[Event]:
    return [event for part in parts for event in frames.feed(part)]


SAID: list[tuple[bytes, list[Event]]] = [
    (b"\x81\x05hello", ["hello"]),
    (b"\x82\x05hello", [b"hello"]),
    (b"\x81\x00", [""]),
    (b"\x82\x00", [b""]),
    (b"\x01\x03hel\x80\x02lo", ["hello"]),
    (b"\x01\x00\x00\x00\x80\x00", [""]),
    (b"\x01\x01\xc3\x80\x01\xa4", ["\xe4"]),
    (b"\x01\x03hel\x89\x01p\x80\x02lo", [Ping(b"p"), "hello"]),
    (b"\x89\x00\x8a\x01a", [Ping(b""), Pong(b"a")]),
    (b"\x82\x7e\x00\x05hello", [b"hello"]),
    (b"\x88\x00", [Close(1005, "")]),
    (b"\x88\x02\x03\xe8", [Close(1000, "")]),
    (b"\x88\x05\x0f\xa0bye", [Close(4000, "bye")]),
    (b"\x88\x02\x03\xe9\x81\x05hello", [Close(1001, "")]),
]


@pytest.mark.parametrize(("said", "meant"), SAID)
def test_a_server_is_understood(said: bytes, meant: list[Event]) -> None:
    assert hear(at_client(), said) == meant


@pytest.mark.parametrize(("said", "meant"), SAID)
def test_one_byte_at_a_time_is_the_same(said: bytes, meant: list[Event]) -> None:
    assert hear(at_client(), *(said[i : i + 1] for i in range(len(said)))) == meant


def test_a_client_masks() -> None:
    assert hear(at_server(), masked(b"\x81\x05hello")) == ["hello"]
    assert hear(at_server(), at_client().message("hello"), at_client().ping(b"x")) == ["hello", Ping(b"x")]


BAD = [
    (b"\xc1\x01a", 1002),  # compressed, which was not agreed on
    (b"\xa1\x01a", 1002),
    (b"\x91\x01a", 1002),
    (b"\x83\x00", 1002),
    (b"\x8b\x00", 1002),
    (b"\x8f\x00", 1002),
    (b"\x09\x00", 1002),
    (b"\x89\x7e\x00\x7e" + b"a" * 126, 1002),
    (b"\x80\x01a", 1002),
    (b"\x01\x01a\x81\x01b", 1002),
    (b"\x88\x01\x03", 1002),
    (b"\x88\x02\x03\xe7", 1002),  # 999
    (b"\x88\x02\x03\xec", 1002),  # 1004
    (b"\x88\x02\x03\xed", 1002),  # 1005
    (b"\x88\x02\x03\xee", 1002),  # 1006
    (b"\x88\x02\x03\xf7", 1002),  # 1015
    (b"\x88\x02\x0b\xb7", 1002),  # 2999
    (b"\x88\x02\x13\x88", 1002),  # 5000
    (b"\x88\x03\x03\xe8\xff", 1007),
    (b"\x81\x01\xff", 1007),
    (b"\x01\x01\xc3\x80\x01a", 1007),
    (b"\x81\x02\xed\xa0", 1007),
    (b"\x82\x65" + b"a" * 101, 1009),
    (b"\x82\x7e\x00\xff", 1009),
    (b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x00", 1009),
    (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
    (b"\x02\x64" + b"a" * 100 + b"\x80\x01a", 1009),
    (b"\x81\x81\x01\x02\x03\x04a", 1002),  # masked, by a server
]


@pytest.mark.parametrize(("said", "code"), BAD)
@pytest.mark.parametrize("piece", [1, 1000])
def test_protocol_errors_have_a_close_code(said: bytes, code: int, piece: int) -> None:
    frames = at_client()
    pieces = [said[i : i + piece] for i in range(0, len(said), piece)]
    (failure,) = hear(frames, b"\x81\x02ok", *pieces)[1:]
    assert isinstance(failure, Failure) and failure.code == code
    assert failure.reason and len(failure.reason) < 120
    assert frames.over and frames.feed(b"\x81\x02ok") == []


def test_a_client_that_does_not_mask_is_refused() -> None:
    (failure,) = hear(at_server(), b"\x81\x05hello")
    assert failure == Failure(1002, "an unmasked frame")


def test_a_ping_within_a_message_is_not_counted_to_it() -> None:
    frames = at_client(10)
    assert hear(frames, b"\x02\x0a0123456789", b"\x89\x0bhello, here", b"\x80\x00") == [
        Ping(b"hello, here"),
        b"0123456789",
    ]


def test_fragments_without_end_hold_no_more_than_the_limit() -> None:
    frames = at_client(1000)
    assert hear(frames, b"\x02\x00", b"\x00\x00" * 100_000, b"\x00\x01a" * 1000) == []
    assert hear(frames, b"\x00\x01a") == [Failure(1009, "a message of more than 1000 bytes")]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_length_arrives(size: int, compressed: bool) -> None:
    data = bytes(i * i % 251 for i in range(size))
    here = at_server(100_000, compressed=compressed)
    there = at_client(100_000, compressed=compressed)
    assert hear(there, here.message(data), here.message(data)) == [data, data]
    assert hear(here, there.message(data), there.message("ä" * (size // 2))) == [data, "ä" * (size // 2)]


def test_incompressible_messages_may_have_the_full_size() -> None:
    data = bytes(range(256)) * 40
    here, there = at_client(len(data), compressed=True), at_server(len(data), compressed=True)
    assert hear(here, there.message(data)) == [data]
    assert hear(here, there.message(data + b"a")) == [
        Failure(1009, f"a message of more than {len(data)} bytes")
    ]


@pytest.mark.parametrize("parts", [1, 3])
def test_a_message_that_inflates_beyond_the_limit_is_too_large(parts: int) -> None:
    here = at_client(10_000, compressed=True)
    compress = zlib.compressobj(wbits=-15)
    bomb = compress.compress(b"\0" * 10_000_000) + compress.flush(zlib.Z_SYNC_FLUSH)
    step = len(bomb) // parts + 1
    pieces = [bomb[i : i + step] for i in range(0, len(bomb), step)]
    raw = b""
    for number, piece in enumerate(pieces):
        first = (0x42 if not number else 0) | (0x80 if number == len(pieces) - 1 else 0)
        raw += bytes((first, 126)) + len(piece).to_bytes(2, "big") + piece
    assert hear(here, raw) == [Failure(1009, "a message of more than 10000 bytes")]


def test_invalid_deflate_data_is_refused() -> None:
    (failure,) = hear(at_client(compressed=True), b"\xc1\x04\xff\xff\xff\xff")
    assert isinstance(failure, Failure) and failure.code == 1002


def test_a_continuation_has_no_compression_bit() -> None:
    (failure,) = hear(at_client(compressed=True), b"\x41\x01a\xc0\x01b")
    assert isinstance(failure, Failure) and failure.code == 1002


def test_a_message_may_be_plain_though_compression_was_agreed_on() -> None:
    assert hear(at_client(compressed=True), b"\x81\x05hello", b"\x01\x03hel\x80\x02lo") == ["hello"] * 2


@pytest.mark.parametrize(
    ("code", "reason"), [(1006, ""), (999, ""), (5000, ""), (1005, "x"), (1000, "ä" * 62)]
)
def test_an_invalid_close_code_or_reason_is_an_error(code: int, reason: str) -> None:
    with pytest.raises(ValueError, match=r"close code|too many"):
        at_server().close(code, reason)


def test_a_close_frame_has_its_code() -> None:
    assert at_server().close(1000, "bye") == b"\x88\x05\x03\xe8bye"
    assert at_server().close(1005) == b"\x88\x00"


messages = st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=6)


def fragments(draw: Any, data: bytes, opcode: int, codec: PerMessageDeflate | None) -> bytes:
    """A message in frames as somebody else's program encodes it, with pings in between."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    edges = [0, *cuts, len(data)]
    raw = b""
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        kind = Opcode(opcode) if not number else Opcode.CONT
        frame = Frame(kind, data[start:end], fin=number == len(edges) - 2)
        raw += frame.serialize(mask=True, extensions=[codec] if codec else [])
        if draw(st.booleans()):
            raw += Frame(Opcode.PING, b"p").serialize(mask=True)
    return raw


@settings(deadline=None)
@given(st.data(), messages, st.booleans(), st.booleans())
def test_any_fragments_of_another_engine_are_put_together(
    data: Any, said: list[str | bytes], compressed: bool, takeover: bool
) -> None:
    theirs = deflate(local_takeover=takeover) if compressed else None
    ours = deflate(remote_takeover=takeover) if compressed else None
    frames = Frames(is_client=False, deflate=ours, max_size=2000)
    raw = b"".join(
        fragments(data.draw, each.encode(), 1, theirs)
        if isinstance(each, str)
        else fragments(data.draw, each, 2, theirs)
        for each in said
    )
    step = data.draw(st.integers(1, 500))
    heard = hear(frames, *(raw[i : i + step] for i in range(0, len(raw), step)))
    assert [event for event in heard if not isinstance(event, Ping)] == said


@settings(deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.booleans(), st.integers(1, 50))
def test_any_bytes_parse_to_events(raw: bytes, compressed: bool, is_client: bool, step: int) -> None:
    frames = Frames(is_client=is_client, deflate=deflate() if compressed else None, max_size=50)
    for start in range(0, len(raw), step):
        for event in frames.feed(raw[start : start + step]):
            assert not isinstance(event, str | bytes) or len(event) <= 50

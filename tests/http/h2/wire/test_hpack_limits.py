"""Header blocks that decode to more than a limit: how much is built, and what the dynamic table holds after them."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import ProtocolError
from llama.http._h2.wire import hpack_decode
from llama.http._h2.wire.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    H2Error,
    code_name,
    frame,
)
from llama.http._h2.wire.hpack_decode import Decoder
from llama.http._h2.wire.hpack_encode import Encoder
from llama.http._h2.wire.hpack_huffman import huffman_decode, huffman_encode
from llama.http._h2.wire.hpack_table import STATIC, encode_integer
from llama.http._limits import H2Limits
from tests.http.h2.wire.h2_pair import GET, OK, Peer

CALM = "ENHANCE_YOUR_CALM"
LIST, FIELDS = 10_000, 40


def string(text: str, *, huffman: bool = False) -> bytes:
    raw = huffman_encode(text) if huffman else text.encode("latin-1")
    return encode_integer(len(raw), 0x80 if huffman else 0, 0x7F) + raw


def literal(name: str, value: str, *, first: int = 0, huffman: bool = False) -> bytes:
    return bytes([first]) + string(name, huffman=huffman) + string(value, huffman=huffman)


LARGE = literal("bomb", "a" * 3900, first=0x40)
MANY = b"".join(literal(f"{at:02x}", "", first=0x40) for at in range(120))
BOMBS: dict[str, tuple[bytes, bytes, int]] = {
    # what goes into the table first, the block, and its size when it is decoded
    "one large entry": (LARGE, b"\xbe" * 12_000, 12_000 * 3936),
    "static entries": (b"", b"\x82\x90" * 6_000, 6_000 * (42 + 60)),
    "entries beyond index 127": (MANY, b"\xff\x01" * 6_000, 6_000 * 34),
    "entries before and beyond": (MANY, b"\xbe\xff\x01" * 4_000, 4_000 * 68),
    "entries with an index of three bytes": (MANY, b"\xff\x81\x00" * 4_000, 4_000 * 34),
    "names alone": (b"", b"\x01\x00" * 6_000, 6_000 * 42),
    "the name of a large entry": (
        literal("n" * 3900, "", first=0x40), b"\x0f\x2f\x00" * 4_000, 4_000 * 3932,
    ),
    "empty literals": (b"", literal("a", "") * 4_000, 4_000 * 33),
    "literals, never indexed": (b"", literal("a", "b" * 1000, first=0x10) * 90, 90 * 1033),
    "insertions": (b"", literal("a", "b" * 100, first=0x40) * 800, 800 * 133),
    "insertions larger than the table": (b"", literal("a", "b" * 4100, first=0x40) * 20, 20 * 4133),
    "one large literal": (b"", literal("a", "b" * 90_000), 90_033),
}  # fmt: skip


@pytest.mark.parametrize(("before", "block", "size"), BOMBS.values(), ids=BOMBS)
def test_a_decoder_builds_nothing_beyond_its_limits(before: bytes, block: bytes, size: int) -> None:
    decoder = Decoder(header_list=LIST, fields=FIELDS)
    decoder.decode(before)
    tracemalloc.start()
    try:
        fields = decoder.decode(block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoder.is_truncated
    assert decoder.list_size == size
    assert len(fields) <= FIELDS
    assert sum(len(name) + len(value) + 32 for name, value in fields) <= LIST
    assert peak < 100_000


@pytest.mark.parametrize(
    ("first", "decoded"), [(0x00, 0), (0x10, 0), (0x40, 20)], ids=["not indexed", "never indexed", "indexed"]
)
def test_beyond_the_limits_only_what_the_table_keeps_is_huffman_decoded(
    first: int, decoded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    def recorded(data: bytes) -> str:
        seen.append(data)
        return huffman_decode(data)

    decoder = Decoder(header_list=LIST, fields=FIELDS)
    monkeypatch.setattr(hpack_decode, "huffman_decode", recorded)
    decoder.decode(b"\x82" * 41 + literal("cookie", "a" * 200, first=first, huffman=True) * 10)
    assert len(seen) == decoded
    seen.clear()
    decoder.decode(b"\x82" * 41 + literal("cookie", "a" * 40_000, first=first, huffman=True))
    assert not seen


@pytest.mark.parametrize("length", [9_962, 9_963])
@pytest.mark.parametrize("huffman", [False, True])
def test_a_field_list_may_be_as_large_as_the_limit(length: int, huffman: bool) -> None:
    decoder = Decoder(header_list=LIST, fields=1)
    assert len(decoder.decode(literal("cookie", "a" * length, huffman=huffman))) == (length == 9_962)
    assert decoder.is_truncated == (length > 9_962)
    assert decoder.decode(b"\x82") == [STATIC[2]]
    assert not decoder.is_truncated


@pytest.mark.parametrize(
    "end", [b"\x80", b"\xbe", b"\xff\x00", b"\xff\xff", b"\x7f\x00\x00", b"\x0f\x2f\x00", b"\x20", b"\x00\x05a",
            b"\x01", b"\x00\x01a\x82", b"\x40\x01a\x81\x00", b"\xff\xff\xff\xff\xff\x01", b"\x3f"]
)  # fmt: skip
def test_what_is_not_hpack_is_an_error_beyond_the_limits_too(end: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder(fields=2).decode(b"\x82" * 10 + end)


NAMES, VALUES = (
    st.sampled_from(["a", "cookie", "x-name"]),
    st.sampled_from(["", "v", "w" * 90, "z" * 1300, "~" * 4100]),
)
INDEXED = st.tuples(st.just("indexed"), st.integers(1, 200), st.just(""), st.booleans())
LITERAL = st.tuples(st.just("literal"), st.sampled_from([0, 0x10, 0x40]), VALUES, st.booleans())
NAMED = st.tuples(st.just("named"), st.sampled_from([0, 0x10, 0x40]), VALUES, st.booleans())
FIELD = st.one_of(INDEXED, LITERAL, NAMED)


def block_of(items: list[tuple[str, int, str, bool]], name: str, size: int | None, probe: Decoder) -> bytes:
    """A block in which each index is one that the table has by then; `probe` reads it field by field."""
    parts = [] if size is None else [encode_integer(size, 0x20, 0x1F)]
    probe.decode(b"".join(parts))
    for kind, first, value, huffman in items:
        index = (len(parts) * 7 + first) % (61 + len(probe._entries)) + 1
        if kind == "indexed":
            part = encode_integer(index, 0x80, 0x7F)
        elif kind == "literal":
            part = literal(name, value, first=first, huffman=huffman)
        else:
            part = encode_integer(index, first, 0x3F if first == 0x40 else 0x0F)
            part += string(value, huffman=huffman)
        parts.append(part)
        probe.decode(part)
    return b"".join(parts)


@given(
    st.lists(
        st.tuples(st.lists(FIELD, max_size=25), NAMES, st.sampled_from([None, 0, 100, 4096])),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 400),
    st.integers(0, 8),
)
def test_the_dynamic_table_equals_that_of_a_decoder_without_limits(
    messages: list[tuple[list[tuple[str, int, str, bool]], str, int | None]], header_list: int, fields: int
) -> None:
    hpack = pytest.importorskip("hpack")
    limited = Decoder(header_list=header_list, fields=fields)
    unlimited, oracle = Decoder(), hpack.Decoder(max_header_list_size=1 << 30)
    probe = Decoder()
    for items, name, size in messages:
        block = block_of(items, name, size, probe)
        whole = unlimited.decode(block)
        built = limited.decode(block)
        oracle.decode(block, raw=True)
        assert built == whole[: len(built)]
        assert limited.is_truncated == (unlimited.list_size > header_list or len(whole) > fields)
        raw = [(bytes(name), bytes(value)) for name, value in oracle.header_table.dynamic_entries]
        kept = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in reversed(limited._entries)
        ]
        assert kept == raw
        assert limited._entries == unlimited._entries
        assert (limited._sizes, limited.size) == (unlimited._sizes, unlimited.size)
        assert limited.changes == unlimited.changes


def headers(id: int, block: bytes) -> bytes:
    """HEADERS, and CONTINUATION frames where one is too small for the block."""
    parts = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    first, last = END_STREAM | (END_HEADERS if len(parts) == 1 else 0), len(parts) - 1
    frames = [frame(HEADERS, first, id, parts[0])]
    frames += [frame(CONTINUATION, END_HEADERS * (at == last), id, parts[at]) for at in range(1, len(parts))]
    return b"".join(frames)


@pytest.mark.parametrize(("before", "block", "size"), BOMBS.values(), ids=BOMBS)
def test_a_client_that_sends_bombs_loses_its_connection(before: bytes, block: bytes, size: int) -> None:
    peer = Peer(H2Limits(oversized=50, max_headers=60))
    peer.send(headers(1, Encoder().encode(GET) + before))
    for at in range(1, 60):
        count = peer.side.engine._oversized.count
        try:
            peer.send(headers(1 + 2 * at, block))
        except H2Error:
            break
        assert peer.side.heard()[-1] == f"{1 + 2 * at} refused 431"
        assert 1 <= peer.side.engine._oversized.count - count <= 5
    assert peer.read()[-1].endswith(CALM)


ONE_BY_ONE: dict[str, tuple[bytes, bytes]] = {
    # what goes into the table first, and the block
    "names alone": (b"", b"\x01\x00" * 8_000),
    "empty literals": (b"", literal("a", "") * 4_000),
    "literals, never indexed": (b"", literal("a", "b", first=0x10) * 3_000),
    "insertions of a static name": (b"", b"\x41\x00" * 8_000),
    "insertions of a new name": (b"", literal("a", "", first=0x40) * 4_000),
    "Huffman insertions": (b"", literal("a", "b" * 10, first=0x40, huffman=True) * 1_500),
    "references and literals in turn": (b"", b"\x82\x01\x00" * 5_000),
    "references and insertions in turn": (b"", b"\x82\x41\x00" * 5_000),
    "short and long indexes in turn": (MANY, b"\x82\xff\x01" * 5_000),
    "indexes of three bytes": (MANY, b"\xff\x81\x00" * 5_000),
    "one large entry and literals in turn": (LARGE, b"\xbe\x01\x00" * 5_000),
}


def calls_of(decode: Callable[[bytes], object], block: bytes) -> int:
    """Calls of functions, those in C too, while a block is decoded."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        decode(block)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize(("before", "block"), ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_a_decoder_abandons_a_block_of_far_too_many_fields(before: bytes, block: bytes) -> None:
    Decoder().decode(before + block)  # computes the transitions of the Huffman code
    decoder = Decoder(header_list=LIST, fields=FIELDS, excess=100)
    decoder.decode(before)
    assert calls_of(decoder.decode, block) < 8000
    assert decoder.is_abandoned
    assert decoder.excess == 101


@pytest.mark.parametrize(("before", "block"), ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_one_block_of_far_too_many_fields_ends_the_connection(before: bytes, block: bytes) -> None:
    peer = Peer()
    peer.send(headers(1, Encoder().encode(GET) + before))
    assert peer.error(headers(3, block)) == CALM


@pytest.mark.parametrize(
    "field", [b"\x01\x00", b"\x41\x00", literal("a", "b" * 10, first=0x40, huffman=True), b"\xff\x01\x01\x00"],
    ids=["literals", "insertions", "Huffman insertions", "in turn"],
)  # fmt: skip
@pytest.mark.parametrize("fields", [135 + 31, 135 + 300, 135 + 1000])
def test_blocks_with_too_many_fields_cost_the_connection_by_their_work(field: bytes, fields: int) -> None:
    peer = Peer()
    peer.send(headers(1, Encoder().encode(GET) + MANY))
    block = field * (fields // (2 if field[0] == 0xFF else 1))
    work = 0
    with pytest.raises(H2Error) as raised:
        for at in range(1, 1000):
            peer.send(headers(1 + 2 * at, block))
            work += peer.side.engine._decoder.excess
    assert code_name(raised.value.code) == CALM
    assert work <= 200 * 64


def test_a_request_with_three_hundred_fields_on_thirty_streams_gets_thirty_refusals() -> None:
    peer = Peer()
    encoder = Encoder()
    request = [*GET, *(("cookie", f"{at}={'c' * 200}") for at in range(300))]
    for at in range(30):
        peer.send(headers(1 + 2 * at, encoder.encode(request)))
    assert peer.side.heard() == [f"{1 + 2 * at} refused 431" for at in range(30)]


@pytest.mark.parametrize(
    ("sizes", "is_allowed"), [([0], True), ([0, 4096], True), ([4096, 0, 4096], False), ([0] * 10_000, False)],
    ids=["one", "two", "three", "ten thousand"],
)  # fmt: skip
def test_a_block_changes_the_table_size_at_most_twice(sizes: list[int], *, is_allowed: bool) -> None:
    peer = Peer()
    block = b"".join(encode_integer(size, 0x20, 0x1F) for size in sizes) + Encoder().encode(GET)
    if is_allowed:
        peer.send(headers(1, block))
        assert peer.side.heard() == ["1 GET http://a/ end"]
        return
    changes = peer.side.engine._decoder.changes
    assert peer.error(headers(1, block)) == "COMPRESSION_ERROR"
    assert peer.side.engine._decoder.changes - changes == 2


def test_a_bomb_counts_as_often_as_it_is_larger_than_a_block() -> None:
    peer = Peer(H2Limits(oversized=100))
    peer.send(headers(1, Encoder().encode(GET) + LARGE))
    for at in range(1, 11):
        peer.send(headers(1 + 2 * at, b"\xbe" * 12_000))
    assert peer.error(headers(23, b"\xbe" * 12_000)) == CALM


def test_an_upstream_that_sends_bombs_loses_its_connection() -> None:
    peer = Peer(H2Limits(oversized=100), client=True)
    peer.side.open(GET)
    peer.send(headers(1, Encoder().encode(OK) + LARGE))
    for at in range(1, 11):
        peer.side.open(GET)
        peer.send(headers(1 + 2 * at, b"\xbe" * 12_000))
        assert peer.side.heard()[-1] == f"{1 + 2 * at} reset PROTOCOL_ERROR"
    peer.side.open(GET)
    assert peer.error(headers(23, b"\xbe" * 12_000)) == CALM


def test_bombs_on_streams_that_are_closed_count_too() -> None:
    peer = Peer(H2Limits(oversized=10))
    peer.send(headers(1, Encoder().encode(GET) + LARGE))
    peer.side.engine.reset(peer.side.streams.pop(1), 8)
    for _ in range(10):
        peer.send(headers(1, b"\xbe" * 12_000))
    assert peer.error(headers(1, b"\xbe" * 12_000)) == CALM


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize(
    "limits", [H2Limits(), H2Limits(max_header_list_size=1000)], ids=["default", "small"]
)
def test_an_oversized_cookie_on_thirty_streams_gets_thirty_refusals(limits: H2Limits, huffman: bool) -> None:
    peer = Peer(limits)
    request = Encoder().encode(GET) + literal("cookie", "a" * 90_000, first=0x10, huffman=huffman)
    for at in range(30):
        peer.send(headers(1 + 2 * at, request))
    peer.send(peer.head(61))
    assert peer.side.heard() == [*(f"{1 + 2 * at} refused 431" for at in range(30)), "61 GET http://a/ end"]


def test_oversized_header_blocks_are_allowed_again_with_time() -> None:
    peer = Peer(H2Limits(oversized=10, oversized_per_second=20, max_concurrent_streams=1000))
    for at in range(200):
        peer.side.now += 0.05
        peer.send(headers(1 + 2 * at, literal("a", "b" * 70_000)))

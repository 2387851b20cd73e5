"""HPACK: the vectors of RFC 7541, appendix C, and what is no HPACK."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import ProtocolError
from llama.http._h2.wire.hpack_decode import Decoder
from llama.http._h2.wire.hpack_encode import Encoder
from llama.http._h2.wire.hpack_huffman import huffman_decode, huffman_encode
from llama.http._h2.wire.hpack_table import STATIC, NeverIndexed, encode_integer

Fields = list[tuple[str, str]]

REQUESTS: list[Fields] = [
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
]
FIRST: Fields = [
    (":status", "302"),
    ("cache-control", "private"),
    ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
    ("location", "https://www.example.com"),
]
RESPONSES: list[Fields] = [
    FIRST,
    [(":status", "307"), *FIRST[1:]],
    [
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]
C3 = ["828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865",
      "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"]  # fmt: skip
C4 = ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf",
      "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"]  # fmt: skip
C5 = [
    (
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f"
        "7777772e6578616d706c652e636f6d"
    ),
    "4803333037c1c0bf",
    (
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b42"
        "5a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31"
    ),
]
C6 = [
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    (
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f"
        "3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    ),
]


@pytest.mark.parametrize(
    ("size", "messages", "blocks", "sizes"),
    [
        (4096, REQUESTS, C3, [57, 110, 164]),
        (4096, REQUESTS, C4, [57, 110, 164]),
        (256, RESPONSES, C5, [222, 222, 215]),
        (256, RESPONSES, C6, [222, 222, 215]),
    ],
    ids=["C.3 requests", "C.4 requests, Huffman", "C.5 responses", "C.6 responses, Huffman"],
)
def test_the_vectors_of_the_rfc_are_decoded(
    size: int, messages: list[Fields], blocks: list[str], sizes: list[int]
) -> None:
    decoder = Decoder(size)
    for fields, block, counted in zip(messages, blocks, sizes, strict=True):
        assert decoder.decode(bytes.fromhex(block)) == fields
        assert decoder.size == counted


@pytest.mark.parametrize(
    ("block", "field", "size"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", ("custom-key", "custom-header"), 55),
        ("040c2f73616d706c652f70617468", (":path", "/sample/path"), 0),
        ("100870617373776f726406736563726574", ("password", "secret"), 0),
        ("82", (":method", "GET"), 0),
    ],
    ids=["C.2.1 indexed", "C.2.2 not indexed", "C.2.3 never indexed", "C.2.4 an index"],
)
def test_each_representation_of_a_field_is_decoded(block: str, field: tuple[str, str], size: int) -> None:
    decoder = Decoder()
    assert decoder.decode(bytes.fromhex(block)) == [field]
    assert decoder.size == size


@pytest.mark.parametrize(
    ("value", "most", "raw"), [(10, 31, b"\x0a"), (1337, 31, b"\x1f\x9a\x0a"), (42, 255, b"\x2a")]
)
def test_the_integers_of_the_rfc_are_encoded(value: int, most: int, raw: bytes) -> None:
    assert encode_integer(value, 0, most) == raw


def test_the_first_request_of_the_rfc_is_encoded_as_there() -> None:
    assert Encoder().encode(REQUESTS[0]).hex() == C4[0]


@given(st.binary(max_size=200))
def test_any_text_survives_the_huffman_code(data: bytes) -> None:
    text = data.decode("latin-1")
    assert huffman_decode(huffman_encode(text)) == text


NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
VALUE = st.text([chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100))], max_size=40)
FIELD = st.one_of(st.sampled_from(STATIC[1:]), st.tuples(NAME, VALUE), st.tuples(st.just("cookie"), VALUE))


@given(
    st.lists(st.tuples(st.lists(FIELD, max_size=12), st.sampled_from([None, 0, 64, 300, 4096])), max_size=8)
)
def test_what_one_side_encodes_the_other_decodes(messages: list[tuple[Fields, int | None]]) -> None:
    encoder, decoder = Encoder(), Decoder()
    for fields, size in messages:
        if size is not None:
            encoder.resize(size)
        assert decoder.decode(encoder.encode(fields)) == fields
        assert encoder.size == decoder.size <= 4096


@given(st.lists(st.lists(FIELD, max_size=12), max_size=8))
def test_another_implementation_reads_ours_and_is_read(messages: list[Fields]) -> None:
    hpack = pytest.importorskip("hpack")
    encoder, decoder = Encoder(), Decoder()
    their_encoder, their_decoder = hpack.Encoder(), hpack.Decoder()
    for fields in messages:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        assert [tuple(each) for each in their_decoder.decode(encoder.encode(fields), raw=True)] == raw
        assert decoder.decode(their_encoder.encode(raw)) == fields


def test_secrets_never_go_into_the_table() -> None:
    encoder, decoder = Encoder(), Decoder()
    fields = [("authorization", "Basic YTpi"), ("cookie", "a=b"), ("x-secret", NeverIndexed("c"))]
    for _ in range(2):
        decoded = decoder.decode(encoder.encode(fields))
        assert decoded == fields
        assert all(type(value) is NeverIndexed for _, value in decoded)
    assert encoder.size == decoder.size == 0


def test_a_field_that_came_as_never_indexed_goes_on_like_that() -> None:
    decoded = Decoder().decode(b"\x10\x01x\x01y")
    assert Encoder().encode(decoded) == b"\x10\x01x\x01y"


@pytest.mark.parametrize("size", [0, 100])
def test_a_smaller_table_is_announced_before_the_next_field(size: int) -> None:
    encoder = Encoder()
    encoder.encode([("a", "b")])
    encoder.resize(size)
    encoder.resize(200)
    block = encoder.encode([("a", "b")])
    assert block.startswith(encode_integer(size, 0x20, 0x1F) + encode_integer(200, 0x20, 0x1F))


@pytest.mark.parametrize(
    "block",
    [
        "80",  # index 0
        "be",  # an index beyond the tables
        "ff80808080808001",  # an integer without end
        "7f80808080808001",
        "41",  # a literal without a value
        "4181",  # cut off
        "4003616263",
        "400561",
        "418361",
        "820 23f".replace(" ", ""),  # a change of size after a field
        "3fe21f",  # a table larger than allowed
        "00017883f1e3ff".replace("83", "84"),  # EOS padding of more than seven bits
        "00017881f0",  # padding with zeros... of a code that is not complete
        "00017884ffffffff",  # EOS itself
    ],
)
def test_what_is_no_hpack_is_refused(block: str) -> None:
    with pytest.raises(ProtocolError):
        Decoder().decode(bytes.fromhex(block))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A", ""), ("", "x"), ("a b", ""), ("a:", ""), (":other", "x"), ("a\r\n", ""), ("ä", ""),
        ("a", "\r\nb"), ("a", "b\0"), ("a", " b"), ("a", "b\t"), ("a", "\x7f"), ("a", "\x01"),
    ],
)  # fmt: skip
def test_a_field_that_no_message_may_have_is_marked_and_the_table_stays_in_step(
    name: str, value: str
) -> None:
    block = b"\x40" + b"".join(bytes([len(each)]) + each.encode("latin-1") for each in (name, value))
    decoder = Decoder()
    for raw in (block, b"\xbe"):
        (marked,) = decoder.decode(raw)
        assert marked[0] == ""
    assert decoder.size == 32 + len(name) + len(value)


@given(st.binary(max_size=300))
def test_whatever_comes_there_is_no_other_error(data: bytes) -> None:
    try:
        Decoder().decode(data)
    except ProtocolError:
        pass


def test_a_table_holds_no_more_than_its_size() -> None:
    decoder = Decoder()
    for index in range(2000):
        decoder.decode(b"\x40\x02ab\x04" + f"{index:04}".encode())
        assert decoder.size <= 4096
    assert decoder.decode(b"\xbe") == [("ab", "1999")]

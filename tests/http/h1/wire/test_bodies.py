"""Bodies out of their framing, whatever the pieces they come in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import ProtocolError, TruncatedError
from llama.http._h1.wire.body import ChunkedDecoder, Decoder, decoder
from llama.http._h1.wire.encode import encode_chunk, encode_last_chunk
from llama.http._h1.wire.framing import CHUNKED, UNTIL_CLOSE
from llama.http._limits import Limits
from llama.http._messages.headers import Headers


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def drain(body: Decoder, data: bytes, size: int = 1 << 20) -> bytes:
    """The whole body; what follows it is in `rest`."""
    found: list[bytes] = []
    while data and not body.done:
        found.append(body.feed(data[:size]))
        data = data[size:]
    body.rest += data
    return b"".join(found)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_body_of_known_length_ends_there(size: int) -> None:
    body = decoder(5)
    assert drain(body, b"helloGET /", size) == b"hello"
    assert body.done
    assert body.rest == b"GET /"


def test_a_body_of_no_length_is_over_at_once() -> None:
    assert decoder(0).done


def test_a_body_cut_short_is_truncated() -> None:
    body = decoder(5)
    assert body.feed(b"hel") == b"hel"
    with pytest.raises(TruncatedError, match="2 bytes before"):
        body.feed_eof()


def test_a_body_until_the_end_of_the_connection() -> None:
    body = decoder(UNTIL_CLOSE)
    assert body.feed(b"abc") == b"abc"
    assert not body.done
    body.feed_eof()
    assert body.done


CHUNKED_BODIES: list[tuple[str, bytes, bytes, list[tuple[str, str]]]] = [
    ("nothing", b"0\r\n\r\n", b"", []),
    ("one chunk", b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
    ("two chunks", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world", []),
    ("hex in both cases", b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, []),
    ("leading zeros", b"0005\r\nhello\r\n000\r\n\r\n", b"hello", []),
    ("line ends in the data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", []),
    ("extensions", b'5;a;b=c;d="e \\"; f"\r\nhello\r\n0;x\r\n\r\n', b"hello", []),
    ("spaces around an extension", b"5 ; a = b\r\nhello\r\n0\r\n\r\n", b"hello", []),
    ("trailers", b"1\r\na\r\n0\r\nA: b\r\nC:  d \r\n\r\n", b"a", [("A", "b"), ("C", "d")]),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(
    ("raw", "data", "trailers"), [pytest.param(b, c, d, id=a) for a, b, c, d in CHUNKED_BODIES]
)
def test_chunks_are_joined(raw: bytes, data: bytes, trailers: list[tuple[str, str]], size: int) -> None:
    body = decoder(CHUNKED)
    assert drain(body, raw + b"next", size) == data
    assert body.done
    assert body.rest == b"next"
    assert list(body.trailers or ()) == trailers


BAD_CHUNKS: list[tuple[str, bytes]] = [
    ("no size", b"\r\nhello\r\n0\r\n\r\n"),
    ("a word", b"five\r\nhello\r\n"),
    ("a prefix", b"0x5\r\nhello\r\n"),
    ("a sign", b"+5\r\nhello\r\n"),
    ("a minus", b"-5\r\nhello\r\n"),
    ("an underscore", b"0_5\r\nhello\r\n"),
    ("a space before", b" 5\r\nhello\r\n"),
    ("a space after", b"5 \r\nhello\r\n"),
    ("a tab after", b"5\t\r\nhello\r\n"),
    ("a bare LF", b"5\nhello\r\n0\r\n\r\n"),
    ("a bare CR", b"5\rhello\r\n0\r\n\r\n"),
    ("a bare LF in an extension", b"5;a\nb\r\nhello\r\n"),
    ("a bare CR in an extension", b"5;a\rb\r\nhello\r\n"),
    ("a line end in a quoted extension", b'5;a="\r\n"\r\nhello\r\n'),
    ("NUL in an extension", b"5;a\x00\r\nhello\r\n"),
    ("an extension without a name", b"5;\r\nhello\r\n"),
    ("16 digits", b"0000000000000005\r\nhello\r\n"),
    ("too many bytes", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("too few bytes", b"5\r\nhell\r\n0\r\n\r\n"),
    ("no line end after the data", b"5\r\nhello0\r\n\r\n"),
    ("LF after the data", b"5\r\nhello\n0\r\n\r\n"),
    ("a long line", b"5;" + b"a" * 300 + b"\r\nhello\r\n"),
    ("a long line that has not ended", b"5;" + b"a" * 300),
    ("a folded trailer", b"0\r\nA: b\r\n c\r\n\r\n"),
    ("LF in the trailers", b"0\r\nA: b\n\n"),
    ("LF at the end", b"0\r\n\n"),
    ("a space before the colon", b"0\r\nA : b\r\n\r\n"),
    ("a length in the trailers", b"0\r\nContent-Length: 5\r\n\r\n"),
    ("a coding in the trailers", b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("a host in the trailers", b"0\r\nHost: a\r\n\r\n"),
    ("large trailers", b"0\r\n" + b"A: b\r\n" * 4000 + b"\r\n"),
    ("large trailers that have not ended", b"0\r\n" + b"A: b\r\n" * 4000),
    ("many trailers", b"0\r\n" + b"A: b\r\n" * 200 + b"\r\n"),
]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("raw", [pytest.param(b, id=a) for a, b in BAD_CHUNKS])
def test_a_malformed_chunk_is_refused(raw: bytes, size: int) -> None:
    with pytest.raises(ProtocolError):
        drain(ChunkedDecoder(), raw, size)


@pytest.mark.parametrize("cut", range(1, 22))
def test_a_chunked_body_cut_short_is_truncated(cut: int) -> None:
    raw = b"5\r\nhello\r\n0\r\nA: b\r\n\r\n"
    body = decoder(CHUNKED)
    drain(body, raw[:-cut] if cut < len(raw) else b"")
    with pytest.raises(TruncatedError):
        body.feed_eof()


def test_the_limits_can_be_set() -> None:
    body = ChunkedDecoder(Limits(max_chunk_line=4))
    assert body.feed(b"5;a\r\n"[:3]) == b""
    with pytest.raises(ProtocolError, match="longer than 4"):
        body.feed(b"\r\n")


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 50), st.booleans())
def test_what_is_encoded_comes_back(chunks: list[bytes], size: int, with_trailers: bool) -> None:
    trailers = Headers({"A": "b", "C": ""}) if with_trailers else None
    raw = b"".join(map(encode_chunk, chunks)) + encode_last_chunk(trailers)
    body = decoder(CHUNKED)
    assert drain(body, raw + b"rest", size) == b"".join(chunks)
    assert body.trailers == trailers
    assert body.rest == b"rest"


@given(st.binary(max_size=60), st.integers(1, 10))
def test_garbage_is_read_or_refused_alike_whatever_its_pieces(data: bytes, size: int) -> None:
    outcomes: list[object] = []
    for step in (size, 1 << 20):
        body = ChunkedDecoder()
        try:
            outcomes.append((drain(body, data, step), body.done))
        except ProtocolError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1] or "refused" in outcomes

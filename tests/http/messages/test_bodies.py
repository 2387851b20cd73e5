"""Bodies: whole or in chunks, read, mapped, searched and decoded."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import ProtocolError, TooLargeError, TruncatedError
from llama.http._messages.body import EMPTY, Body, Content, StreamBody, to_body
from llama.http._messages.headers import Headers
from llama.http._messages.message import Message, Request, Response


async def chunks_of(body: Body) -> list[bytes]:
    return [chunk async for chunk in body]


def read(content: Content, limit: int = 1 << 20) -> bytes:
    return asyncio.run(to_body(content).read(limit))


def encoded(data: list[bytes], coding: str) -> Body:
    return Response(200, {"Content-Encoding": coding}, data).body


async def aiter_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize(
    "content", [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc", [b"a", b"", b"bc"], iter([b"abc"])]
)
def test_a_body_is_made_from_each_content_type(content: Content) -> None:
    assert read(content) == b"abc"


def test_a_body_is_made_from_an_async_iterator() -> None:
    assert read(aiter_of(b"a", b"", b"bc")) == b"abc"


def test_the_length_of_bytes_is_known_and_that_of_an_iterator_is_not() -> None:
    assert to_body("\xe4").length == 2
    assert to_body([b"a"]).length is None
    assert to_body(b"") is EMPTY


def test_body_of_returns_a_body_unchanged() -> None:
    body = to_body(b"a")
    assert to_body(body) is body


def test_bytes_can_be_read_again() -> None:
    async def main() -> None:
        body = to_body(b"abc")
        assert body.buffered == b"abc"
        for _ in range(2):
            assert await body.read() == b"abc"
            assert await chunks_of(body) == [b"abc"]

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"abcd", [b"ab", b"cd"]])
def test_reading_stops_at_a_limit(content: Content) -> None:
    body = to_body(content)
    with pytest.raises(TooLargeError, match="at most 3 bytes"):
        asyncio.run(body.read(3))


def test_a_new_loop_continues_after_an_early_exit() -> None:
    async def main() -> None:
        body = to_body([b"a", b"b", b"c"])
        async for chunk in body:
            assert chunk == b"a"
            break
        assert await body.read() == b"bc"
        assert await body.read_chunk() == b""

    asyncio.run(main())


def test_closing_a_body_closes_its_source() -> None:
    closed: list[str] = []

    def parts() -> Iterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append("sync")

    async def async_parts() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append("async")

    async def main() -> None:
        for source in (parts(), async_parts()):
            body = to_body(source).map(bytes.upper).replace(b"x", b"y")
            assert await body.read_chunk() == b"A"
            await body.aclose()
            assert await body.read_chunk() == b""
            await body.aclose()

    asyncio.run(main())
    assert closed == ["sync", "async"]


def test_map_skips_chunks_that_become_empty() -> None:
    body = to_body([b"a", b"b", b"c"]).map(lambda chunk: b"" if chunk == b"b" else chunk.upper())
    assert asyncio.run(chunks_of(body)) == [b"A", b"C"]
    assert body.length is None


@pytest.mark.parametrize(
    ("parts", "chunks"),
    [
        ([b"a cloud b"], [b"a llama b"]),
        ([b"a clo", b"ud b"], [b"a ", b"llama b"]),
        ([b"c", b"l", b"o", b"u", b"d"], [b"llama"]),
        ([b"clocloud"], [b"clollama"]),
        ([b"clou", b"x"], [b"cloux"]),
        ([b"clou"], [b"clou"]),
        ([b"cloudcloud", b"cloud"], [b"llamallama", b"llama"]),
    ],
)
def test_text_is_replaced_across_chunks(parts: list[bytes], chunks: list[bytes]) -> None:
    assert asyncio.run(chunks_of(to_body(parts).replace(b"cloud", b"llama"))) == chunks


@given(
    st.lists(st.binary(max_size=6).map(lambda b: bytes(97 + x % 2 for x in b)), max_size=8),
    st.text("ab", min_size=1, max_size=4),
    st.text("abc", max_size=3),
)
def test_replacing_in_a_stream_is_replacing_in_the_whole(parts: list[bytes], old: str, new: str) -> None:
    got = read(to_body(parts).replace(old.encode(), new.encode()))
    assert got == b"".join(parts).replace(old.encode(), new.encode())


def test_replacing_an_empty_string_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one byte"):
        to_body(b"a").replace(b"", b"b")


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", gzip.compress(b"a cloud " * 100, mtime=0)),
        ("x-gzip", gzip.compress(b"a cloud " * 50, mtime=0) + gzip.compress(b"a cloud " * 50, mtime=0)),
        ("deflate", zlib.compress(b"a cloud " * 100)),
        ("Deflate", raw_deflate(b"a cloud " * 100)),
        ("identity", b"a cloud " * 100),
        ("deflate, gzip", gzip.compress(zlib.compress(b"a cloud " * 100), mtime=0)),
    ],
)
def test_a_body_is_decoded_before_it_is_changed(coding: str, data: bytes) -> None:
    singles = [data[i : i + 1] for i in range(len(data))]
    for parts in ([data], singles):
        assert read(encoded(parts, coding).decoded()) == b"a cloud " * 100
        assert read(encoded(parts, coding).replace(b"cloud", b"llama")) == b"a llama " * 100


def test_a_decompression_bomb_is_decoded_in_small_pieces() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    chunks = asyncio.run(chunks_of(encoded([bomb], "gzip").decoded()))
    assert sum(map(len, chunks)) == 10_000_000
    assert max(map(len, chunks)) <= 1 << 18


def test_an_unsupported_coding_is_rejected() -> None:
    with pytest.raises(ProtocolError, match="'lzma' cannot be taken off"):
        encoded([b"x"], "lzma").decoded()
    with pytest.raises(ProtocolError, match="'lzma' cannot be taken off"):
        read(encoded([b"x"], "lzma").replace(b"a", b"b"))
    with pytest.raises(ProtocolError, match="invalid gzip body"):
        read(encoded([b"not gzip at all"], "gzip").decoded())
    with pytest.raises(TruncatedError):
        read(encoded([gzip.compress(b"a" * 1000)[:-9]], "gzip").decoded())


def test_a_transformed_body_has_the_trailers_of_its_source() -> None:
    class Trailed(StreamBody):
        @property
        def trailers(self) -> Headers:
            return Headers({"A": "b"})

    assert Trailed([b"a"]).map(bytes.upper).trailers == Headers({"A": "b"})
    assert to_body(b"a").trailers is None


def assigned(parts: Content, coding: str = "gzip") -> Response:
    """A response with an edited body."""
    response = Response(200, {"Content-Encoding": coding}, parts)
    response.body = response.body.replace(b"cloud", b"llama")
    return response


def test_an_edited_body_is_encoded_as_it_comes() -> None:
    packer, unpacker = zlib.compressobj(wbits=31), zlib.decompressobj(31)

    async def main() -> None:
        body = assigned(packer.compress(b"a cloud ") + packer.flush(zlib.Z_SYNC_FLUSH) for _ in range(3)).body
        for _ in range(3):
            assert unpacker.decompress(await body.read_chunk()) == b"a llama "

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_a_body_that_cannot_be_decoded_is_the_same_in_any_pieces(size: int) -> None:
    data = b"a cloud " * 10000
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    assert asyncio.run(assigned(parts).body.read()) == data
    assert asyncio.run(assigned([]).body.read()) == b""


@pytest.mark.parametrize(("size", "passes"), [(60_000, True), (70_000, False)])
def test_a_body_is_held_within_a_bound_until_it_is_decoded(size: int, passes: bool) -> None:
    data = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * size + b"\0" + b"\xff"  # a long name, then no deflate
    body = assigned([data[:30_000], data[30_000:-1], data[-1:]]).body
    if passes:
        assert asyncio.run(body.read()) == data
    else:
        with pytest.raises(ProtocolError, match="invalid gzip body") as raised:
            asyncio.run(body.read())
        assert raised.value.status == 502


def test_an_edited_bomb_is_encoded_in_small_pieces() -> None:
    body = assigned([gzip.compress(gzip.compress(bytes(10_000_000)))], "gzip, gzip").body
    chunks = asyncio.run(chunks_of(body))
    assert gzip.decompress(gzip.decompress(b"".join(chunks))) == bytes(10_000_000)
    assert max(map(len, chunks)) <= 1 << 18


@pytest.mark.parametrize(("message", "status"), [(Response(200), 502), (Request("POST", "/"), 400)])
def test_the_status_of_a_truncated_coding_names_the_side_at_fault(message: Message, status: int) -> None:
    message.headers["Content-Encoding"] = "gzip"
    message.body = [gzip.compress(b"a cloud " * 100_000)[:-4]]
    message.body = message.body.map(bytes.upper)
    with pytest.raises(TruncatedError) as raised:
        asyncio.run(message.body.read())
    assert raised.value.status == status

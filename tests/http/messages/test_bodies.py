"""Bodies: whole or in chunks, read, mapped, searched and decoded."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama._core.errors import ProtocolError, TooLarge, Truncated
from llama.http._messages.body import EMPTY, Body, Content, IteratedBody, body_of
from llama.http._messages.headers import Headers
from llama.http._messages.message import Response


async def chunks_of(body: Body) -> list[bytes]:
    return [chunk async for chunk in body]


def read(content: Content, limit: int = 1 << 20) -> bytes:
    return asyncio.run(body_of(content).read(limit))


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
    assert body_of("\xe4").length == 2
    assert body_of([b"a"]).length is None
    assert body_of(b"") is EMPTY


def test_body_of_returns_a_body_unchanged() -> None:
    body = body_of(b"a")
    assert body_of(body) is body


def test_bytes_can_be_read_again() -> None:
    async def main() -> None:
        body = body_of(b"abc")
        assert body.data == b"abc"
        for _ in range(2):
            assert await body.read() == b"abc"
            assert await chunks_of(body) == [b"abc"]

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"abcd", [b"ab", b"cd"]])
def test_reading_stops_at_a_limit(content: Content) -> None:
    body = body_of(content)
    with pytest.raises(TooLarge, match="at most 3 bytes"):
        asyncio.run(body.read(3))


def test_a_new_loop_continues_after_an_early_exit() -> None:
    async def main() -> None:
        body = body_of([b"a", b"b", b"c"])
        async for chunk in body:
            assert chunk == b"a"
            break
        assert await body.read() == b"bc"
        assert await body.chunk() == b""

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
            body = body_of(source).map(bytes.upper).replace(b"x", b"y")
            assert await body.chunk() == b"A"
            await body.aclose()
            assert await body.chunk() == b""
            await body.aclose()

    asyncio.run(main())
    assert closed == ["sync", "async"]


def test_map_skips_chunks_that_become_empty() -> None:
    body = body_of([b"a", b"b", b"c"]).map(lambda chunk: b"" if chunk == b"b" else chunk.upper())
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
    assert asyncio.run(chunks_of(body_of(parts).replace(b"cloud", b"llama"))) == chunks


@given(
    st.lists(st.binary(max_size=6).map(lambda b: bytes(97 + x % 2 for x in b)), max_size=8),
    st.text("ab", min_size=1, max_size=4),
    st.text("abc", max_size=3),
)
def test_replacing_in_a_stream_is_replacing_in_the_whole(parts: list[bytes], old: str, new: str) -> None:
    got = read(body_of(parts).replace(old.encode(), new.encode()))
    assert got == b"".join(parts).replace(old.encode(), new.encode())


def test_replacing_an_empty_string_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one byte"):
        body_of(b"a").replace(b"", b"b")


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
        encoded([b"x"], "lzma").replace(b"a", b"b")
    with pytest.raises(ProtocolError, match="invalid gzip body"):
        read(encoded([b"not gzip at all"], "gzip").decoded())
    with pytest.raises(Truncated):
        read(encoded([gzip.compress(b"a" * 1000)[:-9]], "gzip").decoded())


def test_a_transformed_body_has_the_trailers_of_its_source() -> None:
    class Trailed(IteratedBody):
        @property
        def trailers(self) -> Headers:
            return Headers({"A": "b"})

    assert Trailed([b"a"]).map(bytes.upper).trailers == Headers({"A": "b"})
    assert body_of(b"a").trailers is None

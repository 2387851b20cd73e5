"""The codings br and zstd with each library, and the error without one."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from llama import ConfigError, ProtocolError, TooLargeError, TruncatedError, http, stack
from llama.http import Request, RequestHandler, Response
from llama.http._codings.brotli import brotli
from llama.http._codings.transform import decoders, known_codings
from llama.http._codings.zstd import _standard, _zstandard, zstd
from tests.http.layers.test_compress import JS, TEXT, ask, compressed, sent
from tests.http.serving import exchange_of

Pack = Callable[[bytes], bytes]


def zstandard_pack(data: bytes) -> bytes:
    module = pytest.importorskip("zstandard")
    return bytes(module.ZstdCompressor().compress(data))


def brotli_pack(data: bytes) -> bytes:
    return bytes(pytest.importorskip("brotli").compress(data))


@pytest.fixture(params=["br", "zstd"])
def coding(request: pytest.FixtureRequest) -> str:
    if request.param not in known_codings():
        pytest.skip(f"no library for {request.param}")
    return str(request.param)


@pytest.fixture
def pack(coding: str) -> Pack:
    return brotli_pack if coding == "br" else zstandard_pack


def take_off(coding: str, data: bytes, step: int = 1 << 20) -> bytes:
    (transform,) = decoders([coding])
    out = b""
    for start in range(0, len(data), step):
        part = transform.update(data[start : start + step])
        while part:
            out += part
            part = transform.pending()
    return out + transform.flush()


# responses


def test_the_response_uses_the_coding_that_the_client_prefers(coding: str) -> None:
    response, body = compressed(Response(200, JS, TEXT), f"gzip;q=0.9, {coding}")
    assert response.headers["content-encoding"] == coding
    assert len(body) < len(TEXT) / 10
    assert take_off(coding, body) == TEXT


def test_the_server_order_decides_between_codings_of_equal_weight(coding: str) -> None:
    liked = "gzip, deflate, br, zstd"
    for codings in ((coding, "gzip"), ("gzip", coding)):
        layer = http.compress(codings=codings)
        response, _ = ask(
            stack(layer, exchange_of(Response(200, JS, TEXT))),
            Request("GET", "/", {"Accept-Encoding": liked}),
        )
        assert response.headers["content-encoding"] == codings[0]
    response, _ = compressed(Response(200, JS, TEXT), liked)
    assert response.headers["content-encoding"] == known_codings()[0]


@pytest.mark.parametrize("level", [1, 9])
def test_every_compression_level_works(coding: str, level: int) -> None:
    layer = http.compress(codings=(coding,), level=level)
    _, body = ask(
        stack(layer, exchange_of(Response(200, JS, TEXT))), Request("GET", "/", {"Accept-Encoding": "*"})
    )
    assert take_off(coding, body) == TEXT


def test_a_compressed_stream_can_be_decoded_as_it_arrives(coding: str) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def events() -> AsyncIterator[bytes]:
            yield b"data: 1\n\n"
            await go.wait()
            yield b"data: 2\n\n"

        exchange: RequestHandler = exchange_of(Response(200, {"Content-Type": "text/event-stream"}, events()))
        response = await stack(http.compress(), exchange)(Request("GET", "/", {"Accept-Encoding": coding}))
        (transform,) = decoders([coding])
        async with asyncio.timeout(5):
            assert transform.update(await response.body.read_chunk()) == b"data: 1\n\n"
            go.set()
            assert transform.update(await response.body.read()) == b"data: 2\n\n"
        assert transform.flush() == b""
        await response.aclose()

    asyncio.run(main())


def test_an_encoded_response_is_not_encoded_again(coding: str) -> None:
    response, body = compressed(Response(200, {**JS, "Content-Encoding": coding}, TEXT), f"{coding}, gzip")
    assert (response.headers["content-encoding"], body) == (coding, TEXT)


# bodies that come


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_a_coding_is_decoded_from_chunks_of_any_size(coding: str, pack: Pack, step: int) -> None:
    data = TEXT + bytes(range(256)) * 50
    assert take_off(coding, pack(data), step) == data


def test_an_edited_body_keeps_it(coding: str, pack: Pack) -> None:
    async def main() -> bytes:
        response = Response(200, {"Content-Encoding": coding}, pack(TEXT))
        response.body = response.body.replace(b"work", b"fun!")
        assert response.headers["content-encoding"] == coding
        return take_off(coding, await response.body.read())

    assert asyncio.run(main()) == TEXT.replace(b"work", b"fun!")


def test_a_decompression_bomb_yields_bounded_chunks(coding: str, pack: Pack) -> None:
    packed = pack(bytes(1 << 24))
    (transform,) = decoders([coding])
    largest = size = 0
    part = transform.update(packed)
    while part:
        largest, size = max(largest, len(part)), size + len(part)
        part = transform.pending()
    assert size == 1 << 24
    assert largest <= 1 << 22
    with pytest.raises(TooLargeError, match="limit of 10000"):
        sent(packed, coding)


def test_invalid_or_truncated_data_raises_an_error(coding: str, pack: Pack) -> None:
    with pytest.raises(ProtocolError, match=f"invalid {coding} body"):
        sent(b"\xff\xff\xff\xffhello", coding)
    with pytest.raises(TruncatedError, match=f"the {coding} body is truncated"):
        sent(pack(TEXT)[:-2], coding)
    with pytest.raises(ProtocolError, match=f"invalid {coding} body"):
        sent(pack(TEXT) + b"more, which is none", coding)
    assert sent(b"", coding)[1] == b""


def test_zstd_accepts_several_frames_and_rejects_huge_windows() -> None:
    if "zstd" not in known_codings():
        pytest.skip("no library")
    module = pytest.importorskip("zstandard")
    assert (
        take_off("zstd", zstandard_pack(b"a") + b"\x50\x2a\x4d\x18\x01\0\0\0x" + zstandard_pack(b"b"))
        == b"ab"
    )
    parameters = module.ZstdCompressionParameters(window_log=27, compression_level=1)
    packed = module.ZstdCompressor(compression_params=parameters).compressobj()
    wide = packed.compress(bytes(100)) + packed.flush()
    with pytest.raises(ProtocolError, match="invalid zstd body"):
        take_off("zstd", wide)


@pytest.mark.parametrize(
    ("name", "library"),
    [("compression.zstd", _standard), ("backports.zstd", _standard), ("zstandard", _zstandard)],
)
def test_each_zstd_library_works(name: str, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = library(pytest.importorskip(name))
    monkeypatch.setattr("llama.http._codings.transform.zstd", lambda: found)
    response, body = compressed(Response(200, JS, TEXT), "zstd")
    assert response.headers["content-encoding"] == "zstd"
    assert take_off("zstd", body, 3) == TEXT
    with pytest.raises(TruncatedError):
        take_off("zstd", body[:-1])
    with pytest.raises(ProtocolError):
        take_off("zstd", b"hello, this is none")


# where no library is


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> ModuleType:
        if name in ("brotli", "zstandard", "compression.zstd"):
            raise ImportError(name)
        return real(name, package)

    for module in ("brotli", "zstd"):
        monkeypatch.setattr(f"llama.http._codings.{module}.import_module", without)
    brotli.cache_clear()
    zstd.cache_clear()
    yield
    brotli.cache_clear()
    zstd.cache_clear()


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(("coding", "extra"), [("br", "brotli"), ("zstd", "zstd")])
def test_a_missing_extra_is_named_in_the_error(coding: str, extra: str) -> None:
    assert known_codings() == ("gzip", "deflate")
    response, _ = compressed(Response(200, JS, TEXT), f"{coding}, gzip;q=0.5")
    assert response.headers["content-encoding"] == "gzip"
    with pytest.raises(
        ConfigError, match=rf"for {coding} it takes the extra {extra}, proxy-llama\[{extra}\]"
    ):
        http.compress(codings=(coding, "gzip"))
    with pytest.raises(ProtocolError, match=f"the extra {extra}") as raised:
        sent(b"hello", coding)
    assert raised.value.status == 415


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("asked", "told"),
    [("gzip, br;q=0.5, zstd, deflate;q=0.1", "gzip, deflate;q=0.1"), ("br", "identity"), ("*", "identity")],
)
def test_map_body_requests_only_codings_that_it_can_decode(asked: str, told: str) -> None:
    heard: list[str] = []

    async def note(request: Request) -> Response:
        heard.extend(request.headers.get_all("accept-encoding"))
        return Response(200, body=b"hello")

    _, body = ask(stack(http.map_body(bytes.upper), note), Request("GET", "/", {"Accept-Encoding": asked}))
    assert (heard, body) == ([told], b"HELLO")

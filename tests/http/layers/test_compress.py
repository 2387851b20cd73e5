"""Compression of responses and decompression of requests."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import pytest

from llama import ConfigError, ProtocolError, TooLargeError, TruncatedError, http, stack
from llama.http import Request, RequestHandler, Response
from llama.http._layers.bodies.compress import is_compressible_type, preferred
from tests.http.serving import echo, exchange_of, last, talk

TEXT = b"all work and no play " * 200
JS = {"Content-Type": "application/json; charset=utf-8"}


def ask(exchange: RequestHandler, request: Request) -> tuple[Response, bytes]:
    async def main() -> tuple[Response, bytes]:
        response = await exchange(request)
        return response, await response.body.read()

    return asyncio.run(main())


def compressed(response: Response, accepted: str = "gzip", method: str = "GET") -> tuple[Response, bytes]:
    request = Request(method, "/", {"Accept-Encoding": accepted})
    return ask(stack(http.compress(), exchange_of(response)), request)


def test_text_is_compressed_with_the_coding_that_the_client_prefers() -> None:
    for accepted, coding, wbits in (("gzip, deflate", "gzip", 31), ("gzip;q=0.5, deflate", "deflate", 15)):
        response, body = compressed(Response(200, JS, TEXT), accepted)
        assert response.headers["content-encoding"] == coding
        assert zlib.decompress(body, wbits) == TEXT
        assert len(body) < len(TEXT) / 10


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("br", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=0", None),
        ("gzip; q=0.0, *", "deflate"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("gzip;q=2", None),
        ("gzip;q=nan", None),
        ("gzip;level=9", None),
        (",, deflate ;q=1.000,", "deflate"),
    ],
)
def test_the_coding_follows_the_weights_in_accept_encoding(accepted: str, coding: str | None) -> None:
    assert preferred(accepted, ("gzip", "deflate")) == coding


def test_small_encoded_partial_and_no_transform_responses_are_not_compressed() -> None:
    for response in (
        Response(200, JS, b"small"),
        Response(200, {**JS, "Content-Encoding": "br"}, TEXT),
        Response(200, {**JS, "Content-Range": "bytes 0-1/2"}, TEXT),
        Response(206, JS, TEXT),
        Response(204),
        Response(304, {"ETag": '"x"'}),
        Response(200, {**JS, "Cache-Control": "public, No-Transform"}, TEXT),
        Response(200, {"Content-Type": "image/png"}, TEXT),
        Response(200, {}, TEXT),
        Response(101, upgrade=None),
    ):
        before = response.headers.copy()
        compressed(response)
        assert response.headers == before


def test_a_client_without_a_common_coding_gets_an_uncompressed_body_and_vary() -> None:
    response, body = compressed(Response(200, JS, TEXT), "identity")
    assert (body, response.headers["vary"]) == (TEXT, "Accept-Encoding")
    response, _ = compressed(Response(200, {**JS, "Vary": "Origin"}, TEXT))
    assert response.headers.get_all("vary") == ["Origin", "Accept-Encoding"]
    for known in ("*", "origin, accept-encoding"):
        response, _ = compressed(Response(200, {**JS, "Vary": known}, TEXT))
        assert response.headers.get_all("vary") == [known]


def test_compression_removes_digests_and_weakens_the_etag() -> None:
    response, _ = compressed(
        Response(200, {**JS, "ETag": '"x"', "Accept-Ranges": "bytes", "Content-Length": str(len(TEXT))}, TEXT)
    )
    assert response.headers["etag"] == 'W/"x"'
    assert "accept-ranges" not in response.headers and "content-length" not in response.headers
    response, _ = compressed(Response(200, {**JS, "ETag": 'W/"x"'}, TEXT))
    assert response.headers["etag"] == 'W/"x"'


def test_head_has_the_fields_of_get_and_no_body() -> None:
    response, body = compressed(Response(200, {**JS, "Content-Length": "5000", "ETag": '"x"'}), method="HEAD")
    assert (response.headers["content-encoding"], response.headers["etag"], body) == ("gzip", 'W/"x"', b"")
    assert "content-length" not in response.headers
    response, _ = compressed(Response(200, {**JS, "Content-Length": "5"}), method="HEAD")
    assert response.headers["content-length"] == "5"
    full = stack(http.server(), http.compress(), exchange_of(Response(200, JS, TEXT)))
    answer = talk(full, last("/", "Accept-Encoding: gzip", method="HEAD"))
    assert answer.endswith(b"\r\n\r\n") and b"Content-Length" not in answer


def test_a_compressed_stream_arrives_chunk_by_chunk_and_is_closed() -> None:
    closed: list[bool] = []

    async def main() -> None:
        go = asyncio.Event()

        async def events() -> AsyncIterator[bytes]:
            try:
                yield b"data: 1\n\n"
                await go.wait()
                yield b"data: 2\n\n"
            finally:
                closed.append(True)

        exchange = stack(
            http.compress(), exchange_of(Response(200, {"Content-Type": "text/event-stream"}, events()))
        )
        response = await exchange(Request("GET", "/", {"Accept-Encoding": "gzip"}))
        inflate = zlib.decompressobj(31)
        async with asyncio.timeout(5):
            assert inflate.decompress(await response.body.read_chunk()) == b"data: 1\n\n"
            go.set()
            rest = await response.body.read()
        assert inflate.decompress(rest) == b"data: 2\n\n" and inflate.eof
        await response.aclose()

    asyncio.run(main())
    assert closed == [True]


def test_the_media_types_to_compress_are_configurable() -> None:
    media = ("text/html", "application/ld+json", "image/png", "", "video/mp4")
    assert [is_compressible_type(each) for each in media] == [
        True, True, False, False, False,
    ]  # fmt: skip
    layer = http.compress(minimum=0, types=lambda media: media == "", codings=("deflate",), level=9)
    response, body = ask(
        stack(layer, exchange_of(Response(200, {}, b"x"))), Request("GET", "/", {"Accept-Encoding": "*"})
    )
    assert response.headers["content-encoding"] == "deflate" and zlib.decompress(body) == b"x"
    for level in (0, 10):
        with pytest.raises(ConfigError, match="level"):
            http.compress(level=level)
    with pytest.raises(ConfigError, match="minimum"):
        http.compress(minimum=-1)
    for codings in ((), ("lzma",), ("gzip", "identity")):
        with pytest.raises(ConfigError, match="codings"):
            http.compress(codings=codings)


# requests


def test_a_compressed_upload_is_decompressed() -> None:
    packed = gzip.compress(TEXT)
    handler = stack(http.server(), http.decompress(), echo)
    answer = talk(
        handler,
        last("/", f"Content-Length: {len(packed)}", "Content-Encoding: gzip", method="POST") + packed,
    )
    assert TEXT[:500] in answer


def sent(body: bytes, codings: str, limit: int = 10_000) -> tuple[list[str], bytes]:
    async def main() -> tuple[list[str], bytes]:
        seen: list[str] = []

        async def look(request: Request) -> Response:
            seen.extend(request.headers.names)
            return Response(200, body=await request.body.read())

        request = Request("POST", "/", {"Content-Encoding": codings, "Content-Length": str(len(body))}, body)
        response = await stack(http.decompress(limit), look)(request)
        return seen, await response.body.read()

    return asyncio.run(main())


def test_several_codings_are_decoded_in_reverse_order() -> None:
    assert sent(gzip.compress(zlib.compress(TEXT)), "deflate, gzip") == ([], TEXT)
    assert sent(b"", "gzip")[1] == b""


def test_a_decompression_bomb_is_rejected_at_the_limit() -> None:
    assert sent(gzip.compress(b"x" * 5), "gzip", limit=5)[1] == b"xxxxx"
    with pytest.raises(TooLargeError, match="limit of 5"):
        sent(gzip.compress(b"x" * 6), "gzip", limit=5)
    with pytest.raises(TooLargeError, match="at most 3 content codings"):
        sent(b"x", "gzip, gzip, gzip, gzip")
    with pytest.raises(ConfigError):
        http.decompress(-1)


def test_a_body_that_does_not_match_its_coding_is_rejected() -> None:
    with pytest.raises(ProtocolError, match="invalid gzip body"):
        sent(b"hello", "gzip")
    with pytest.raises(ProtocolError, match="'lzma' cannot be taken off"):
        sent(b"hello", "lzma")
    with pytest.raises(TruncatedError):
        sent(gzip.compress(TEXT)[:-9], "gzip")

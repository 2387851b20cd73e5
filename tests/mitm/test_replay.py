"""Replay: the responses are those that were recorded, as often as they were recorded."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from llama import LlamaError, RefusedError, mitm, stack, testing
from llama.http import Headers, Request, RequestHandler, Response
from llama.mitm import Recorded

URL = "https://a.example"
USED_UP = f"502 GET {URL}/ was recorded 2 times and replayed as often already"
TEXT = b"<p>hello " * 1000
UNDECODABLE = [b"not gzip", gzip.compress(TEXT)[:-9], gzip.compress(TEXT)[:40] + b"x" * 40]


async def recorded(path: Path, handler: RequestHandler, *requests: Request, **options: Any) -> None:
    async with testing.client(stack(mitm.record(path, **options), handler)) as client:
        for request in requests:
            try:
                response = await client.send(request)
            except LlamaError:
                continue
            async for _ in response.body:
                pass
            await response.aclose()


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate, gzip", gzip.compress(zlib.compress(TEXT))),
        *(("gzip", each) for each in UNDECODABLE),
        ("unknown", UNDECODABLE[0]),
    ],
    ids=["gzip", "x-gzip", "deflate", "two", "mislabelled", "short", "broken", "unknown"],
)
@pytest.mark.parametrize("memory_limit", [1 << 20, 4096])
async def test_a_body_is_replayed_with_its_content_coding(
    tmp_path: Path, coding: str, encoded: bytes, memory_limit: int
) -> None:
    async def site(request: Request) -> Response:
        headers = {"Content-Encoding": coding, "Content-Length": str(len(encoded))}
        return Response(200, headers, b"" if request.method == "HEAD" else [encoded])

    path = tmp_path / "out.har"
    await recorded(path, site, Request("GET", URL), Request("HEAD", URL), memory_limit=memory_limit)
    async with testing.client(mitm.replay_server(path)) as client:
        head, response = await client.request("HEAD", URL), await client.get(URL)
        body = await response.body.read()
        assert head.headers.get("content-encoding") == response.headers.get("content-encoding") == coding
        length = None if response.body.length is None else str(response.body.length)
        assert head.headers.get("content-length") == length
    if encoded in UNDECODABLE:
        assert body == encoded
    else:
        for name in reversed(coding.split(", ")):
            body = zlib.decompress(body) if name == "deflate" else gzip.decompress(body)
        assert body == TEXT


async def test_a_part_of_an_encoded_body_is_replayed_as_it_was(tmp_path: Path) -> None:
    part = gzip.compress(TEXT)[:20]

    async def site(request: Request) -> Response:
        return Response(206, {"Content-Encoding": "gzip", "Content-Range": "bytes 0-19/50"}, part)

    await recorded(tmp_path / "out.har", site, Request("GET", URL))
    async with testing.client(mitm.replay_server(tmp_path / "out.har")) as client:
        assert await (await client.get(URL)).body.read() == part


async def test_an_encoded_request_matches_the_recorded_one(tmp_path: Path) -> None:
    async def site(request: Request) -> Response:
        return Response(200, body=str(len(await request.body.read())))

    def post(level: int) -> Request:
        return Request("POST", URL, {"Content-Encoding": "gzip"}, gzip.compress(TEXT, level))

    await recorded(tmp_path / "out.har", site, post(9))
    async with testing.client(mitm.replay_server(tmp_path / "out.har")) as client:
        for level in (9, 1):
            assert (await client.send(post(level))).status == 200


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_failed_exchange_fails_again_with_its_status(tmp_path: Path, status: int) -> None:
    async def site(request: Request) -> Response:
        raise LlamaError("the upstream failed", status=status)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"never read"

    path = tmp_path / "out.har"
    await recorded(path, site, Request("GET", URL), Request("POST", URL, {}, pieces()))
    assert [each.status for each in mitm.read_har(path)] == [status, status]
    async with testing.client(mitm.replay_server(path)) as client:
        for request in (Request("GET", URL), Request("POST", URL, {}, pieces())):
            with pytest.raises(LlamaError, match="the upstream failed") as failed:
                await client.send(request)
            assert failed.value.status == status


@pytest.mark.parametrize(
    ("options", "replayed"),
    [
        ({"strict": True}, ["1", "2", USED_UP, USED_UP]),
        ({"strict": True, "repeat": True}, ["1", "2", "2", "2"]),
        ({"repeat": False}, ["1", "2", "3", "4"]),
        ({}, ["1", "2", "2", "2"]),
    ],
)
async def test_repeats_are_bounded(options: dict[str, bool], replayed: list[str]) -> None:
    found: list[Recorded] = []
    count = 0

    async def counting(request: Request) -> Response:
        nonlocal count
        count += 1
        return Response(200, body=str(count))

    async with testing.client(stack(mitm.record(found.append), counting)) as client:
        for _ in range(2):
            await (await client.get(URL)).body.read()
    got: list[str] = []
    async with testing.client(stack(mitm.replay_layer(found, **options), counting)) as client:
        for _ in range(4):
            try:
                got.append((await (await client.get(URL)).body.read()).decode())
            except RefusedError as error:
                got.append(f"{error.status} {error}")
    assert got == replayed


@pytest.mark.parametrize(("limit", "whole"), [(3, False), (1000, True)])
async def test_a_truncated_response_is_not_replayed(tmp_path: Path, limit: int, whole: bool) -> None:
    async def site(request: Request) -> Response:
        return Response(200, body=[b"hello"])

    path = tmp_path / "out.har"
    await recorded(path, site, Request("GET", URL), max_body=limit)
    async with testing.client(mitm.replay_server(path)) as client:
        if whole:
            assert await (await client.get(URL)).body.read() == b"hello"
        else:
            with pytest.raises(RefusedError, match="is incomplete") as refused:
                await client.get(URL)
            assert refused.value.status == 502


@pytest.mark.parametrize("body", [b"hello", [b"hello", b" you"], b""])
async def test_trailers_are_replayed(tmp_path: Path, body: bytes | list[bytes]) -> None:
    async def site(request: Request) -> Response:
        response = Response(200, {"Trailer": "X-Sum"}, body)
        response.trailers = Headers({"X-Sum": "5"})
        return response

    path = tmp_path / "out.har"
    await recorded(path, site, Request("GET", URL))
    async with testing.client(mitm.replay_server(path)) as client:
        response = await client.get(URL)
        assert await response.body.read() == (body if isinstance(body, bytes) else b"".join(body))
        assert response.trailers == Headers({"X-Sum": "5"})


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_a_response_goes_on_as_its_request_does(tmp_path: Path, order: str) -> None:
    async def site(request: Request) -> Response:
        async def shout() -> AsyncIterator[bytes]:
            async for chunk in request.body:
                yield chunk.upper()

        return Response(200, {}, shout())

    async def talk(client: testing.TestClient, name: str) -> bytes:
        answered, told = asyncio.Event(), b""

        async def pieces() -> AsyncGenerator[bytes]:
            for number in range(3):
                yield f"{name}{number}".encode()
                await answered.wait()
                answered.clear()

        async with aclosing(pieces()) as source:
            response = await client.request("POST", URL, (), source)
            async for chunk in response.body:
                told += chunk
                answered.set()
            await response.aclose()
        return told

    path = tmp_path / "out.har"
    async with asyncio.timeout(20):
        async with testing.client(stack(mitm.record(path), site)) as client:
            assert [await talk(client, name) for name in "ab"] == [b"A0A1A2", b"B0B1B2"]
        async with testing.client(mitm.replay_server(path, repeat=False)) as client:
            assert [await talk(client, each) for each in order] == [
                b"".join(b"%c%d" % (ord(each.upper()), number) for number in range(3)) for each in order
            ]
            with pytest.raises(RefusedError, match="as often already"):
                await talk(client, "a")
            with pytest.raises(RefusedError, match="nothing was recorded"):
                await talk(client, "c")

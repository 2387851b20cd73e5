"""Hooks that edit encoded bodies: through mitm.proxy and http.map_body, over HTTP/1 and HTTP/2."""

import gzip
import logging
import random
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llama import TruncatedError, http, layer, serve, stack, tls
from llama.http import Request, RequestHandler, Response
from llama.http._codings.transform import decoders, encoder, known_codings
from tests.mitm.worlds import HOST, To, World, fronted

TEXT = b"a cloud " * 50
EDITED = TEXT.replace(b"cloud", b"llama")
GZIP = gzip.compress(TEXT)
KINDS = [("mitm", "1.1"), ("mitm", "2"), ("map_body", "1.1"), ("map_body", "2")]


def packed(coding: str) -> bytes:
    made = encoder(coding, 6, flushes=False)
    return made.update(TEXT) + made.flush()


READABLE: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", GZIP),
    "gzip in members": ("x-gzip", gzip.compress(TEXT[:80]) + gzip.compress(TEXT[80:])),
    "zlib": ("deflate", zlib.compress(TEXT)),
    "raw deflate": ("deflate", zlib.compress(TEXT)[2:-4]),
    "gzip twice": ("gzip, gzip", gzip.compress(GZIP)),
    "identity": ("identity", TEXT),
    "none": ("", TEXT),
    **{coding: (coding, packed(coding)) for coding in ("br", "zstd") if coding in known_codings()},
}
UNREADABLE: dict[str, tuple[str, bytes]] = {
    "lying gzip": ("gzip", TEXT),
    "lying deflate": ("deflate", TEXT),
    **{f"lying {coding}": (coding, TEXT) for coding in ("br", "zstd") if coding in known_codings()},
    "lying list": ("gzip, gzip", GZIP),
    "truncated": ("gzip", GZIP[:-9]),
    "one byte": ("gzip", GZIP[:1]),
    "trailing bytes": ("gzip", GZIP + b"cloud"),
    "unknown": ("x-foo", TEXT),
    "list with an unknown one": ("gzip, x-foo", TEXT),
    "too many": ("gzip, gzip, gzip, gzip", TEXT),
}


async def upstream(request: Request) -> Response:
    if request.method == "POST":
        fields = [("Got", ", ".join(request.headers.get_all("content-encoding")))]
        return Response(200, fields, (await request.body.read()).hex())
    if request.path in ("/204", "/304"):
        return Response(int(request.path[1:]), {"Content-Encoding": "gzip", "ETag": '"x"'})
    if request.path == "/empty":
        return Response(200, {"Content-Encoding": "gzip"})
    if request.path == "/late":
        return Response(200, {"Content-Encoding": "gzip"}, broken_late())
    coding, data = (READABLE | UNREADABLE)[request.path[1:].replace("%20", " ")]
    return Response(200, [("Content-Encoding", coding)] if coding else [], data)


async def broken_late() -> AsyncIterator[bytes]:
    made = encoder("gzip", 6, flushes=True)
    yield made.update(random.Random(0).randbytes(1 << 20))  # too much to be held
    yield b"\xff" * 100


@layer
async def edit(request: Request, inner: RequestHandler) -> Response:
    request.body = request.body.replace(b"cloud", b"llama")
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"camel")
    response.body = response.body.replace(b"camel", b"llama")
    return response


def replaced(data: bytes) -> bytes:
    return data.replace(b"cloud", b"llama")


@asynccontextmanager
async def editing(world: World, kind: str, version: str) -> AsyncGenerator[RequestHandler]:
    """A client whose messages are edited on their way."""
    if kind == "mitm":
        served = world.https(upstream) if version == "2" else stack(http.server(), upstream)
        async with fronted(world, served, edit) as front:
            yield front.client
        return
    edited: RequestHandler = stack(http.map_body(replaced), http.map_body(replaced, on="request"), upstream)
    served = world.https(edited) if version == "2" else stack(http.server(), edited)
    async with serve(served, listen="127.0.0.1:0") as server:
        to = To(server.port)
        async with http.client(to, tls=tls.connect(to, ca=world.site_pem)) as client:
            yield client


def url_of(version: str, path: str) -> str:
    return f"{'https' if version == '2' else 'http'}://{HOST}/{path.replace(' ', '%20')}"


async def echoed(response: Response) -> bytes:
    """The bytes of the request's body that the upstream received."""
    return bytes.fromhex((await response.body.read()).decode())


def unpacked(coding: str, data: bytes) -> bytes:
    for transform in decoders([each.strip() for each in coding.split(",") if coding]):
        parts = [transform.update(data)]
        while parts[-1]:
            parts.append(transform.pending())
        data = b"".join(parts) + transform.flush()
    return data


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    caplog.clear()
    return found


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_an_edited_body_keeps_its_coding(
    world: World, kind: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with editing(world, kind, version) as client:
        for name, (coding, data) in READABLE.items():
            response = await client(Request("GET", url_of(version, name)))
            assert response.version == version
            assert response.headers.get("content-encoding", "") == coding, name
            assert unpacked(coding, await response.body.read()) == EDITED, name
            fields = {"Content-Encoding": coding} if coding else {}
            response = await client(Request("POST", url_of(version, name), fields, data))
            assert response.headers["got"] == coding, name
            assert unpacked(coding, await echoed(response)) == EDITED, name
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_a_body_that_cannot_be_decoded_passes_unchanged(
    world: World, kind: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with editing(world, kind, version) as client:
        for name, (coding, data) in UNREADABLE.items():
            url = url_of(version, name)
            response = await client(Request("GET", url))
            got = (response.status, response.headers["content-encoding"], await response.body.read())
            assert got == (200, coding, data), name
            (warning,) = warnings_of(caplog)
            assert warning.startswith(f"response to GET {url} from 127.0.0.1:"), name
            assert "the body passes unchanged: " in warning
            response = await client(Request("POST", url, {"Content-Encoding": coding}, data))
            assert (response.status, response.headers["got"]) == (200, coding), name
            assert await echoed(response) == data, name
            (warning,) = warnings_of(caplog)
            assert warning.startswith(f"request POST {url} from 127.0.0.1:"), name


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_messages_without_a_body_keep_their_coding(
    world: World, kind: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with editing(world, kind, version) as client:
        for method, path in (("GET", "204"), ("GET", "304"), ("GET", "empty"), ("HEAD", "gzip")):
            response = await client(Request(method, url_of(version, path)))
            assert response.headers["content-encoding"] == "gzip", path
            assert await response.body.read() == b"", path
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(("kind", "version"), KINDS)
@pytest.mark.parametrize(
    ("accepted", "kept"), [("deflate, gzip", True), ("deflate", False), ("gzip;q=0", False)]
)
async def test_a_coding_that_the_client_does_not_accept_is_dropped(
    world: World, kind: str, version: str, accepted: str, kept: bool
) -> None:
    async with editing(world, kind, version) as client:
        response = await client(Request("GET", url_of(version, "gzip"), {"Accept-Encoding": accepted}))
        assert response.headers.get("content-encoding", "") == ("gzip" if kept else "")
        data = await response.body.read()
        assert (gzip.decompress(data) if kept else data) == EDITED


@pytest.mark.parametrize(("kind", "version"), KINDS)
async def test_a_wrong_coding_after_the_first_output_ends_that_exchange_alone(
    world: World, kind: str, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with editing(world, kind, version) as client:
        response = await client(Request("GET", url_of(version, "late")))
        assert response.status == 200
        with pytest.raises((TruncatedError, OSError)):
            await response.body.read(1 << 22)
        await response.aclose()
        assert "the exchange ends within the body: invalid gzip body" in "\n".join(warnings_of(caplog))
        response = await client(Request("GET", url_of(version, "gzip")))
        assert gzip.decompress(await response.body.read()) == EDITED


@pytest.mark.parametrize("path", ["lying gzip", "unknown", "truncated"])
async def test_a_hook_that_reads_a_wrong_coding_of_the_upstream_is_a_502(world: World, path: str) -> None:
    @layer
    async def read(request: Request, inner: RequestHandler) -> Response:
        response = await inner(request)
        try:
            return Response(200, body=await response.body.decoded().read())
        finally:
            await response.aclose()

    async with fronted(world, world.https(upstream), read) as front:
        assert (await front.get(url_of("2", path)))[0] == 502

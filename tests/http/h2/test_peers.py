"""Other people's HTTP/2 clients against `http.server`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import http, serve, stack, tcp, tls
from llama.http import Request, RequestHandler, Response
from tests.http.peers import program
from tests.http.serving import echo, hello
from tests.tls.sessions import pair_files

pytestmark = pytest.mark.peer
CURL = ("-sS", "--noproxy", "*", "-k")


@asynccontextmanager
async def served(exchange: RequestHandler) -> AsyncGenerator[tuple[str, str]]:
    """Where an exchange is served in the clear and over TLS."""
    handler = stack(http.server(), exchange)
    async with serve(
        tcp.server("127.0.0.1:0", handler),
        tcp.server("127.0.0.1:0", stack(tls.server(*pair_files("localhost")), handler)),
    ) as server:
        clear, secure = server.addresses
        yield f"http://{clear}", f"https://{secure}"


async def digest(request: Request) -> Response:
    """What came: method, version, length and a hash of the body."""
    total = hashlib.sha256()
    async for chunk in request.body:
        total.update(chunk)
    length = request.headers.get("content-length")
    return Response(200, body=f"{request.method} {request.version} {length} {total.hexdigest()}")


@pytest.mark.parametrize("how", ["prior knowledge", "TLS"])
async def test_curl_uploads_and_is_answered(how: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 2_000
    upload = tmp_path / "upload"
    upload.write_bytes(data)
    async with served(digest) as (clear, secure):
        url, option = (clear, "--http2-prior-knowledge") if how == "prior knowledge" else (secure, "--http2")
        done = await program("curl", *CURL, option, "--data-binary", f"@{upload}", f"{url}/")
    assert done.out.decode() == f"POST 2 {len(data)} {hashlib.sha256(data).hexdigest()}", done.err


async def test_curl_gets_a_large_body_back_whole(tmp_path: Path) -> None:
    upload, download = tmp_path / "upload", tmp_path / "download"
    upload.write_bytes(bytes(range(256)) * 40_000)
    async with served(echo) as (_, secure):
        done = await program("curl", *CURL, "--data-binary", f"@{upload}", "-o", download, f"{secure}/")
    assert done.code == 0, done.err
    assert download.read_bytes() == upload.read_bytes()


async def test_nghttp_hears_an_answer_that_comes_before_its_upload_has_ended(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(5_000_000))
    async with served(hello) as (clear, _):
        done = await program("nghttp", "-v", "-H", ":method: PUT", "-d", upload, f"{clear}/")
    assert b":status: 200" in done.out and b"error_code=NO_ERROR" in done.out, done.out[-1000:]


async def test_curl_does_many_at_a_time() -> None:
    async with served(digest) as (_, secure):
        done = await program("curl", *CURL, "-Z", "--parallel-max", "20", f"{secure}/[1-100]")
    assert done.out.count(b"GET 2 ") == 100, done.err


async def test_curl_that_asks_for_an_upgrade_is_answered_over_http_1() -> None:
    async with served(digest) as (clear, _):
        done = await program("curl", *CURL, "--http2", f"{clear}/")
    assert done.out.startswith(b"GET 1.1 "), done.err


async def test_nghttp_sees_trailers_and_waits_for_continue() -> None:
    async def app(request: Request) -> Response:
        body = await request.body.read()
        response = Response(200, body=[b"%d" % len(body)])
        response.trailers = http.Headers({"x-sum": "7"})
        return response

    async with served(app) as (clear, _):
        done = await program(
            "nghttp",
            "-v",
            "--expect-continue",
            "-H",
            ":method: POST",
            "-d",
            __file__,
            "--trailer",
            "t: 1",
            f"{clear}/",
        )
    assert b"x-sum: 7" in done.out, done.out + done.err
    assert b":status: 100" in done.out


@pytest.mark.parametrize("path", ["/", "/large"])
async def test_h2load_loses_nothing(path: str) -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=bytes(200_000 if request.path == "/large" else 10))

    async with served(app) as (clear, secure):
        for url in (clear, secure):
            done = await program("h2load", "-n", "500", "-c", "5", "-m", "30", url + path)
            assert b"500 succeeded, 0 failed, 0 errored" in done.out, done.out
            assert b"h2" in done.out.split(b"Application protocol:")[1].split(b"\n")[0]


async def test_httpx_speaks_http_2() -> None:
    httpx = pytest.importorskip("httpx2")
    pytest.importorskip("h2")
    async with (
        served(digest) as (_, secure),
        httpx.AsyncClient(http2=True, verify=False, trust_env=False) as client,
    ):
        answers = await asyncio.gather(
            *[client.post(f"{secure}/", content=bytes(size * 1000)) for size in range(50)]
        )
        assert [answer.text.split()[2] for answer in answers] == [str(size * 1000) for size in range(50)]
        assert {answer.http_version for answer in answers} == {"HTTP/2"}

"""Other people's clients against `http.server`."""

import asyncio
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from llama import http, serve, stack, testing
from llama.http import Request, RequestHandler, Response
from tests.http.serving import CLOSING, HELLO, echo, get, hello, last, plain

pytestmark = pytest.mark.peer
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_wget = pytest.mark.skipif(shutil.which("wget") is None, reason="wget is not installed")


def run(exchange: RequestHandler, *command: str, **options: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with URL replaced by where the exchange is served."""

    async def main() -> subprocess.CompletedProcess[bytes]:
        handler = stack(http.server(), exchange)
        async with serve(handler, listen="127.0.0.1:0") as serving:
            filled = [part.replace("URL", f"http://{serving.address}") for part in command]
            return await asyncio.to_thread(subprocess.run, filled, capture_output=True, timeout=30)

    return asyncio.run(main())


async def digest(request: Request) -> Response:
    """What came: method, version, how it was framed, and a hash of the body."""
    total = hashlib.sha256()
    async for chunk in request.body:
        total.update(chunk)
    framing = "chunked" if "transfer-encoding" in request.headers else request.headers.get("content-length")
    return Response(200, body=f"{request.method} {request.version} {framing} {total.hexdigest()}")


CURL = ("curl", "-sS", "--noproxy", "*")


@needs_curl
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_curl_uploads_a_body(version: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    upload = tmp_path / "upload"
    upload.write_bytes(data)
    expected = f"POST {version} {len(data)} {hashlib.sha256(data).hexdigest()}"
    done = run(digest, *CURL, f"--http{version}", "--data-binary", f"@{upload}", "URL/")
    assert done.stdout.decode() == expected, done.stderr


@needs_curl
def test_curl_waits_for_continue_and_sends_chunks(tmp_path: Path) -> None:
    data = bytes(3_000_000)
    upload = tmp_path / "upload"
    upload.write_bytes(data)
    headers = "-H", "Expect: 100-continue", "-H", "Transfer-Encoding: chunked"
    done = run(digest, *CURL, "-v", "--expect100-timeout", "20", *headers, "-T", str(upload), "URL/x")
    assert done.stdout.decode() == f"PUT 1.1 chunked {hashlib.sha256(data).hexdigest()}"
    assert b"< HTTP/1.1 100 Continue" in done.stderr


@needs_curl
def test_curl_receives_a_large_body(tmp_path: Path) -> None:
    upload, download = tmp_path / "upload", tmp_path / "download"
    upload.write_bytes(bytes(range(256)) * 40_000)
    done = run(echo, *CURL, "--data-binary", f"@{upload}", "-o", str(download), "URL/")
    assert done.returncode == 0, done.stderr
    assert download.read_bytes() == upload.read_bytes()


@needs_curl
def test_curl_reuses_its_connection() -> None:
    done = run(hello, *CURL, "-v", "URL/1", "URL/2", "-I", "URL/3")
    assert done.returncode == 0
    assert done.stderr.count(b"Re-using existing") + done.stderr.count(b"Reusing existing") == 2


@needs_curl
def test_curl_sees_early_hints() -> None:
    async def hints(request: Request) -> Response:
        await request.send_informational(103, {"Link": "</a>"})
        return Response(200, body=b"hello")

    done = run(hints, *CURL, "-i", "URL/")
    assert done.stdout.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")


@needs_curl
def test_curl_detects_a_truncated_body() -> None:
    async def broken(request: Request) -> Response:
        return Response(200, {"Content-Length": "10"}, [b"hello"])

    assert run(broken, *CURL, "URL/").returncode in (18, 56)  # partial file, or failure in receiving


@needs_wget
def test_wget_receives_a_response() -> None:
    done = run(hello, "wget", "--no-proxy", "-q", "-O", "-", "URL/")
    assert done.stdout == b"hello", done.stderr


@pytest.mark.parametrize("piece", [1, 3, None])
async def test_client_and_server_never_deadlock_in_lockstep(piece: int | None) -> None:
    said = get("/", "Content-Length: 3", method="POST") + b"abc" + get() + last()

    async def answer(request: Request) -> Response:
        return Response(200, body=await request.body.read() or b"hello")

    def pair() -> tuple[testing.MemoryStream, testing.MemoryStream]:
        return testing.lockstep_pair(piece=piece)

    async with (
        testing.connect(stack(http.server(), answer), pair=pair) as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(client.write(said))
        heard = b""
        while data := await client.read():
            heard += data
    assert plain(heard) == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + HELLO + CLOSING

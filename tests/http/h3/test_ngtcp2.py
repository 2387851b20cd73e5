"""HTTP/3 with ngtcp2's programs, which can lose packets, move, and change keys."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("qh3")

from llama.http import Request, Response
from tests.http.h3.fixtures import client, h3
from tests.http.peers import program
from tests.socks5.programs import installed
from tests.tls.sessions import pair_files

pytestmark = pytest.mark.peer
DATA = os.urandom(1_000_000)
LOSSY = ("--tx-loss=0.1", "--rx-loss=0.1")


async def echo(request: Request) -> Response:
    """Answers with what it was sent; with a lot, when that was nothing."""
    return Response(200, {"content-type": "text/plain"}, await request.body.read(1 << 24) or DATA)


@pytest.mark.parametrize(
    "options",
    [
        (),
        LOSSY,
        ("--key-update=1ms",),
        ("--change-local-addr=1ms",),
        ("--change-local-addr=1ms", "--delay-stream=100ms"),
        ("--change-local-addr=1ms", "--delay-stream=100ms", "--nat-rebinding"),
        ("--scid=0102030405060708090a0b0c0d0e0f101112",),
        ("--dcid=0102030405060708090a0b0c",),
        ("--scid=",),
        ("--scid=", *LOSSY),
        ("--scid=", "--dcid=0102030405060708090a0b0c"),
        ("--scid=", "--change-local-addr=1ms", "--delay-stream=100ms"),
        ("--scid=", "--change-local-addr=1ms", "--delay-stream=100ms", "--nat-rebinding"),
        ("--scid=", "--key-update=1ms"),
        ("--groups=-GROUP-ALL:+GROUP-SECP256R1",),
    ],
    ids=" ".join,
)
async def test_a_client_gets_all_of_its_answers(options: tuple[str, ...], tmp_path: Path) -> None:
    async with h3(echo) as port:
        urls = [f"https://localhost:{port}/{name}" for name in "abc"]
        told = ("-q", "--exit-on-all-streams-close", "--sni=localhost", f"--download={tmp_path}", *options)
        done = await program("gtlsclient", *told, "127.0.0.1", str(port), *urls)
        assert done.code == 0, done
    assert {path.name: path.read_bytes() == DATA for path in tmp_path.iterdir()} == dict.fromkeys("abc", True)


@pytest.mark.parametrize("options", [(), LOSSY], ids=" ".join)
async def test_a_client_uploads(options: tuple[str, ...], tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(DATA[:300_000])
    got = tmp_path / "got"
    got.mkdir()
    async with h3(echo) as port:
        told = (
            "-q",
            "-m",
            "POST",
            f"--data={sent}",
            "--exit-on-all-streams-close",
            f"--download={got}",
            *options,
        )
        done = await program("gtlsclient", *told, "127.0.0.1", str(port), f"https://localhost:{port}/file")
        assert done.code == 0, done
    assert (got / "file").read_bytes() == sent.read_bytes()


async def listening(port: int) -> None:
    """Return when somebody takes packets; the kernel tells at once while nobody does."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        probe.connect(("127.0.0.1", port))
        while True:
            try:
                probe.send(b"\0")
                probe.recv(1)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            except BlockingIOError:
                return


@asynccontextmanager
async def gtlsserver(folder: Path, *options: str) -> AsyncGenerator[int]:
    """The port at which ngtcp2's server gives out the files of a folder."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cert, key = pair_files("localhost")
    command = [
        installed("gtlsserver"),
        "-q",
        *options,
        f"--htdocs={folder}",
        "127.0.0.1",
        str(port),
        key,
        cert,
    ]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        await listening(port)
        yield port
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    "options", [(), ("--validate-addr",), LOSSY, ("--send-trailers",), ("--early-response",)], ids=" ".join
)
async def test_a_server_is_asked(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(DATA)
    (tmp_path / "index.html").write_bytes(b"hello")
    async with gtlsserver(tmp_path, *options) as port, client() as ask:
        url = f"https://localhost:{port}"

        async def fetch(request: Request) -> bytes:
            response = await ask(request)
            assert response.status == 200
            body: bytes = await response.body.read(1 << 24)
            return body

        assert await fetch(Request("GET", url + "/big")) == DATA
        assert await fetch(Request("HEAD", url + "/big")) == b""
        assert await fetch(Request("POST", url + "/", body=bytes(100_000))) == b"hello"
        together = await asyncio.gather(*(fetch(Request("GET", url + "/big")) for _ in range(3)))
        assert together == [DATA] * 3

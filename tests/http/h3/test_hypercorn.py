"""hypercorn, which speaks HTTP/3 by aioquic, behind `h3://` URLs."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("qh3")
pytest.importorskip("aioquic")
pytest.importorskip("hypercorn")

from llama import http, tls
from llama.http import Request
from tests.http.peers import CLEAN, started
from tests.pango.process import free_port
from tests.tls.sessions import ca_file, pair_files

pytestmark = pytest.mark.peer
APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    headers = [(b"x-version", scope["http_version"].encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(3):
        await send({"type": "http.response.body", "body": str(size).encode() + b"\\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"x" * 100_000})
"""


@asynccontextmanager
async def hypercorn(folder: Path) -> AsyncGenerator[int]:
    """The UDP port at which an application tells how much it was sent."""
    (folder / "told.py").write_text(APP)
    cert, key = pair_files("localhost")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "--quic-bind", f"127.0.0.1:{port}",
        "--certfile", str(cert), "--keyfile", str(key), "told:app",
        cwd=folder, env=CLEAN, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with started(process, process.stdout, b"(QUIC)"):
        yield port


async def post(exchange: Any, url: str, size: int) -> tuple[int, str | None, bytes]:
    response = await exchange(Request("POST", url, body=bytes(size)))
    body: bytes = await response.body.read()
    return response.status, response.headers.get("x-version"), body


async def test_it_is_asked_by_the_client_and_the_reverse_proxy(tmp_path: Path) -> None:
    async with hypercorn(tmp_path) as port, http.client(tls=tls.connect(ca=ca_file())) as client:
        url = f"h3://localhost:{port}"
        proxy = http.reverse_proxy(url, client=client)
        for size in (0, 10, 400_000):
            told = (200, "3", b"%d\n" % size * 3 + b"x" * 100_000)
            assert await post(client, f"{url}/", size) == told
            assert await post(proxy, "http://site.example/", size) == told
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(post(client, f"{url}/", 100)) for _ in range(10)]
        assert {each.result()[0] for each in tasks} == {200}

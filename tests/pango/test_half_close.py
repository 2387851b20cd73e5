"""One side ends, the other goes on: through plain TCP and through TLS."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from pathlib import Path

import pytest

from llama import Stream, Target, serve, tls
from tests.pango.conftest import Start, needs


async def digest(stream: Stream) -> None:
    """Answer with the hash of everything, once the other side has ended."""
    seen = hashlib.sha256()
    while data := await stream.read():
        seen.update(data)
    await stream.write(seen.hexdigest().encode())


@pytest.mark.peer
@needs("nc")
async def test_nc_hears_the_answer_after_it_has_ended(proxy: Start) -> None:
    async with serve(digest, listen="127.0.0.1:0") as target:
        server = proxy("--plain", "--to", target.address)
        done = await asyncio.to_thread(
            subprocess.run,
            ["nc", "-N", "127.0.0.1", str(server.port)],
            input=b"all of it",
            capture_output=True,
            timeout=20,
            check=True,
        )
        assert done.stdout == hashlib.sha256(b"all of it").hexdigest().encode()
        server.stop()
        assert server.complaints() == []


async def test_a_tls_client_hears_the_answer_after_its_close_notify(proxy: Start, files: Path) -> None:
    async with serve(digest, listen="127.0.0.1:0") as target:
        server = proxy("--to", target.address)
        client = await tls.connect(ca=files / "ca.pem")(Target("localhost", server.port))
        content = bytes(range(256)) * 4096
        await client.write(content)
        await client.write_eof()
        assert await client.read() == hashlib.sha256(content).hexdigest().encode()
        assert await client.read() == b""
        await client.aclose()
        server.stop()
        assert server.complaints() == []


async def test_the_target_may_end_first(proxy: Start, files: Path) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def speak_then_listen(stream: Stream) -> None:
        await stream.write(b"that is all from here")
        await stream.write_eof()
        while data := await stream.read():
            got.put_nowait(data)

    async with serve(speak_then_listen, listen="127.0.0.1:0") as target:
        server = proxy("--to", target.address)
        client = await tls.connect(ca=files / "ca.pem")(Target("localhost", server.port))
        assert await client.read() == b"that is all from here"
        assert await client.read() == b""
        await client.write(b"still talking")
        async with asyncio.timeout(20):
            assert await got.get() == b"still talking"
        await client.aclose()
        server.stop()
        assert server.complaints() == []

"""Two gigabytes each way through pango: they arrive whole, and its memory stays flat."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.pango.conftest import Start, needs
from tests.pango.nginx import Nginx
from tests.pango.process import Proxy

pytestmark = [
    pytest.mark.soak,
    pytest.mark.peer,
    needs("curl", "nginx"),
    pytest.mark.filterwarnings("default"),
]
SIZE = 2 << 30
BLOCK = 1 << 20
GROWTH = 8 << 20  # bytes that pango's memory may grow by after the first blocks


def blocks() -> Iterator[bytes]:
    """Content of which no two blocks are the same."""
    filling = os.urandom(BLOCK - 8)
    for number in range(SIZE // BLOCK):
        yield number.to_bytes(8, "big") + filling


def curl(server: Proxy, path: str, *options: str) -> list[str]:
    return ["curl", "-sS", "--noproxy", "*", "--fail", "--cacert", "ca.pem", *options, server.url + path]


class Watch:
    """A server's memory while blocks pass: what it grew by since the first hundred."""

    def __init__(self, server: Proxy) -> None:
        self._server = server
        self._seen = 0
        self._first = 0
        self.growth = 0

    def __call__(self) -> None:
        self._seen += 1
        if self._seen == 100:
            self._first = self._server.memory
        elif self._seen > 100 and self._seen % 20 == 0:
            self.growth = max(self.growth, self._server.memory - self._first)


def pipe(source: Iterator[bytes], sink: Callable[[bytes], object], watch: Watch) -> str:
    """Hash what passes from a source to a sink."""
    seen = hashlib.sha256()
    for block in source:
        seen.update(block)
        sink(block)
        watch()
    return seen.hexdigest()


def read(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(BLOCK), b"")


def test_two_gigabytes_each_way_by_curl_and_nginx(proxy: Start, nginx: Nginx, files: Path) -> None:
    server = proxy("--to", nginx.web)
    stored = nginx.www / "stored"
    up, down = Watch(server), Watch(server)
    try:
        with subprocess.Popen(curl(server, "/stored", "-T", "-"), cwd=files, stdin=subprocess.PIPE) as upload:
            assert upload.stdin is not None
            sent = pipe(blocks(), upload.stdin.write, up)
            upload.stdin.close()
            assert upload.wait() == 0
        with stored.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == sent
        with subprocess.Popen(curl(server, "/stored"), cwd=files, stdout=subprocess.PIPE) as download:
            assert download.stdout is not None
            assert pipe(read(download.stdout), len, down) == sent
            assert download.wait() == 0
    finally:
        stored.unlink(missing_ok=True)
    server.stop()
    assert server.complaints() == []
    assert up.growth < GROWTH, f"memory grew by {up.growth} bytes"
    assert down.growth < GROWTH, f"memory grew by {down.growth} bytes"

"""Chromium without a window, and what its pages have in common."""

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.http.peers import CLEAN
from tests.socks5.programs import installed

FETCHES = """
const text = async (path, options) => (await fetch(path, options)).text()
const events = () => new Promise(done => {
  const got = [], source = new EventSource("/events")
  source.onmessage = event => {
    got.push(event.data)
    text("/heard")
    if (got.length == 3) { source.close(); done(got) }
  }
})
const echo = () => new Promise((done, failed) => {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/echo`)
  socket.onopen = () => socket.send("hi")
  socket.onmessage = event => { done(event.data); socket.close() }
  socket.onerror = failed
})
"""
"""Functions of a page: `text` of a URL, the first three `events`, and what a WebSocket says to "hi"."""
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",  # without it, headless Chromium leaves once the page is loaded
)


def fingerprint(file: str) -> str:
    """The hash of a certificate's key, by which Chromium is told to trust it."""
    key = x509.load_pem_x509_certificate(Path(file).read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


@asynccontextmanager
async def chromium(
    url: str, profile: Path, *options: str, variables: Mapping[str, str] | None = None
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Chromium at a page, for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *(installed("chromium"), *QUIET, f"--user-data-dir={profile}", *options, url),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**CLEAN, **(variables or {})},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

"""Chromium through pango to nginx."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.pango.conftest import Start, needs
from tests.pango.nginx import Nginx

pytestmark = [pytest.mark.peer, needs("chromium", "nginx")]
PARTS = 8
PAGE = """<!doctype html><title>page</title><p id="sum">not loaded</p><script>
Promise.all([...Array(%d).keys()].map(n => fetch(`/part${n}`).then(part => part.text())))
  .then(parts => { document.querySelector("#sum").textContent = "loaded " + parts.join("").length })
</script>"""
QUIET = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage "
    "--no-proxy-server --virtual-time-budget=20000"
)


def fingerprint(file: Path) -> str:
    """The hash of a certificate's key, by which Chromium is told to trust it."""
    key = x509.load_pem_x509_certificate(file.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def dump(files: Path, url: str) -> str:
    """The page at a URL after its scripts have run."""
    trust = f"--ignore-certificate-errors-spki-list={fingerprint(files / 'c.pem')}"
    command = ["chromium", *QUIET.split(), trust, f"--user-data-dir={files / 'profile'}", "--dump-dom", url]
    done = subprocess.run(command, cwd=files, capture_output=True, timeout=120, check=False)
    return done.stdout.decode()


def test_a_page_with_parts_is_loaded(proxy: Start, nginx: Nginx, files: Path) -> None:
    (nginx.www / "index.html").write_text(PAGE % PARTS)
    for number in range(PARTS):
        (nginx.www / f"part{number}").write_bytes(b"x" * 100_000)
    server = proxy("--to", nginx.web)
    assert f"loaded {PARTS * 100_000}" in dump(files, f"{server.url}/")
    server.stop()
    assert server.complaints() == []

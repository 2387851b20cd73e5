"""curl through each proxy."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Start
from tests.pango.conftest import needs

pytestmark = [pytest.mark.peer, needs("curl")]


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = ["curl", "-sS", "--max-time", "20", *arguments]
    return subprocess.run(command, capture_output=True, timeout=30, check=False, env=clean)


def test_socks5_with_a_user(start: Start, web: str) -> None:
    server = start("socks5", "--user", "john:secret")
    page = f"http://{web}/a"
    assert curl("-x", f"socks5h://john:secret@{server.address}", page).stdout == b"page /a via nothing\n"
    assert curl("-x", f"socks5h://john:wrong@{server.address}", page).returncode == 97
    assert curl("-x", f"socks5h://{server.address}", page).returncode == 97


def test_http_proxy_with_a_user_and_an_access_log(start: Start, web: str) -> None:
    server = start("http-proxy", "--user", "john:secret", "--access-log", "common")
    proxy, page = f"http://john:secret@{server.address}", f"http://{web}/a"
    assert curl("-x", proxy, page).stdout == b"page /a via 1.1 llama\n"
    assert curl("-p", "-x", proxy, page).stdout == b"page /a via nothing\n"
    refused = curl("-o", os.devnull, "-w", "%{http_code}", "-x", f"http://{server.address}", page)
    assert refused.stdout == b"407"
    server.expect(rf'^127\.0\.0\.1 - john \[.*\] "GET http://{web}/a HTTP/1\.1" 200 \d+$')
    server.expect(rf'^127\.0\.0\.1 - john \[.*\] "CONNECT {web} HTTP/1\.1" 200 ')
    server.expect(r'^127\.0\.0\.1 - - \[.*\] "GET .*/a HTTP/1\.1" 407 \d+$')


def test_http_proxy_over_tls(start: Start, web: str, files: Path) -> None:
    server = start("http-proxy", "--cert", "c.pem", "--key", "k.pem")
    done = curl("--proxy-cacert", "ca.pem", "-x", f"https://localhost:{server.port}", f"http://{web}/a")
    assert done.stdout == b"page /a via 1.1 llama\n"


def test_reverse_over_tls_by_two_workers(start: Start, web: str, files: Path) -> None:
    to = ["--to", f"http://{web}/b", "--to", f"http://{web}/c"]
    server = start("reverse", "--cert", "c.pem", "--key", "k.pem", "--workers", "2", *to)
    page = f"https://localhost:{server.port}/a"
    for protocol, version in (("--http1.1", b"1.1"), ("--http2", b"2")):
        done = curl("--cacert", "ca.pem", protocol, page, page)
        told = [b"page /%b/a via %b llama" % (each, version) for each in (b"b", b"c")]
        assert sorted(done.stdout.splitlines()) == told
    server.stop()


def test_via_env(start: Start, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start("http-proxy", "--access-log", "common")
    monkeypatch.setenv("ALL_PROXY", f"http://{first.address}")
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = start("socks5", "--via", "env")
    assert curl("-x", f"socks5h://{server.address}", f"http://{web}/a").stdout == b"page /a via nothing\n"
    first.expect(rf'"CONNECT {web} HTTP/1\.1" 200 ')

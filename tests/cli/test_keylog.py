"""The key log of the commands: `--keylog`, and SSLKEYLOGFILE, which alone has no effect."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama import http, serve, stack, tls
from llama.http import Request, Response
from tests.cli.conftest import Call
from tests.pango.process import Pango, free_port
from tests.tls.sessions import ca_file, pair_files
from tests.tls.test_keylog import secrets

COMMANDS = {
    "reverse": [
        "reverse",
        "--cert",
        *pair_files("localhost")[:1],
        "--key",
        *pair_files("localhost")[1:],
        "--to",
    ],
    "pango": ["serve", "--cert", *pair_files("localhost")[:1], "--key", *pair_files("localhost")[1:], "--to"],
    "mitm": ["mitm", "--ca", "ca", "--no-console", "--upstream-ca"],
}


class LlamaProcess(Pango):
    module = "llama"


async def greet(request: Request) -> Response:
    return Response(200, body=b"hello")


@contextmanager
def started(folder: Path, kind: str, last: str, *options: str) -> Generator[int]:
    """The port of a command in a process of its own."""
    port = free_port()
    command = [*COMMANDS[kind], last, "--listen", f"127.0.0.1:{port}", *options]
    process = (Pango if kind == "pango" else LlamaProcess)(folder, *command)
    try:
        process.expect(rf"listening on .*127\.0\.0\.1:{port}")
        yield port
    finally:
        process.discard()


async def fetch(folder: Path, kind: str, *options: str) -> None:
    """One request by a command over TLS on both sides; the client and the upstream write key logs too."""
    layer = tls.server(*pair_files("localhost"), keylog=folder / "upstream")
    async with serve(stack(layer, http.server(), greet), listen="127.0.0.1:0") as site:
        upstream = f"https://localhost:{site.port}"
        command = started(folder, kind, ca_file() if kind == "mitm" else upstream, *options)
        port = await asyncio.to_thread(command.__enter__)
        try:
            through, url = None, f"https://localhost:{port}/"
            if kind == "mitm":
                through, url = http.connect(f"127.0.0.1:{port}"), f"{upstream}/"
            connect = tls.connect(through, insecure=True, keylog=folder / "client")
            async with http.client(tls=connect) as ask:
                response = await ask(Request("GET", url))
                assert (response.status, await response.body.read()) == (200, b"hello")
        finally:
            await asyncio.to_thread(command.__exit__, None, None, None)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("reverse", ["--keylog"]),
        ("pango", ["--keylog", "env"]),
        *((kind, options) for kind in COMMANDS for options in (["--keylog", "keys"], [])),
    ],
)
async def test_the_key_log_holds_the_secrets_of_both_sides(
    tmp_path: Path, kind: str, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file())
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "environment"))
    await fetch(tmp_path, kind, *options)
    written = {name for name in ("keys", "environment") if (tmp_path / name).exists()}
    if not options:
        assert written == set()
        return
    assert written == {"keys" if "keys" in options else "environment"}
    path = tmp_path / written.pop()
    assert secrets(path) == secrets(tmp_path / "client") | secrets(tmp_path / "upstream")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["reverse", "pango"])
async def test_the_key_log_holds_the_secrets_of_http3(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qh3")
    monkeypatch.setenv("SSL_CERT_FILE", ca_file())
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "environment"))
    site = http.h3_server("127.0.0.1:0", greet, *pair_files("localhost"), keylog=tmp_path / "upstream")
    async with serve(site) as serving:
        upstream = f"h3://localhost:{serving.addresses[0].rpartition(':')[2]}"
        command = started(tmp_path, kind, upstream, "--http3", "--keylog", "keys")
        port = await asyncio.to_thread(command.__enter__)
        try:
            async with http.h3_client(ca=ca_file(), keylog=tmp_path / "client") as ask:
                response = await ask(Request("GET", f"https://localhost:{port}/"))
                assert (response.status, await response.body.read()) == (200, b"hello")
        finally:
            await asyncio.to_thread(command.__exit__, None, None, None)
    assert not (tmp_path / "environment").exists()
    assert secrets(tmp_path / "keys") == secrets(tmp_path / "client") | secrets(tmp_path / "upstream")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "reverse --to https://a.example --keylog missing/keys",
            "--keylog: missing/keys: cannot write the key log: No such file or directory\n",
        ),
        ("mitm --ca ca --keylog missing/keys", "--keylog: missing/keys: cannot write the key log: "),
        ("reverse --to https://a.example --keylog env", "--keylog env: SSLKEYLOGFILE is not set\n"),
        ("mitm --ca ca --keylog", "--keylog env: SSLKEYLOGFILE is not set\n"),
        ("reverse --to http://a.example --keylog keys", "--keylog: expected TLS: --cert, or --to https://"),
    ],
)
def test_a_key_log_that_cannot_be_written_names_the_option(
    llama: Call, line: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)
    done = llama(line)
    assert done.code == 78
    assert done.errors.startswith(f"llama: {error}")
    assert not (tmp_path / "keys").exists()

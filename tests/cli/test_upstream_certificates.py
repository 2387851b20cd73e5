"""Client certificates towards upstreams, over each version of HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llama import LlamaError, http, serve, stack, tls
from llama.http import Request, Response
from tests.cli.conftest import Call, Llama
from tests.http.h3.caddy import caddy
from tests.pango.process import Pango
from tests.tls.programs import needs, output_of
from tests.tls.sessions import ca_file, pair_files

COMMANDS = {
    "reverse": ["reverse", "--to-cert", "c.pem", "--to-key", "k.pem", "--to"],
    "pango": ["pango", "--plain", "--to-cert", "c.pem", "--to-key", "k.pem", "--to"],
    "mitm": ["mitm", "--ca", "ca", "--upstream-cert", "c.pem", "--upstream-key", "k.pem"],
}


async def name_client(request: Request) -> Response:
    info = request.extensions[tls.TLSInfo]
    peer = info.peer_certificate
    subject = dict(part[0] for part in peer["subject"])["commonName"] if peer else "no certificate"
    return Response(200, body=f"{subject} over {request.version}\n".encode())


def start(folder: Path, kind: str, upstream: str) -> tuple[Pango, int]:
    name, *options = COMMANDS[kind]
    if kind == "mitm":
        started = Llama(folder, name, *options, "--no-console")
        return started, started.port
    if kind == "pango":
        server = Pango(folder, "serve", "--listen", "127.0.0.1:0", *options, upstream)
        return server, int(server.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
    started = Llama(folder, name, *options, upstream)
    return started, started.port


@pytest.mark.peer
@needs("curl")
@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
@pytest.mark.parametrize("kind", COMMANDS)
async def test_the_upstream_verifies_the_client_certificate(
    tmp_path: Path, kind: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file())
    for source, name in zip(pair_files("john", client=True), ("c.pem", "k.pem"), strict=True):
        (tmp_path / name).write_bytes(Path(source).read_bytes())
    layer = tls.server(*pair_files("localhost"), client_ca=ca_file(), alpn=[protocol])
    async with serve(stack(layer, http.server(), name_client), listen="127.0.0.1:0", grace=5) as site:
        upstream = f"https://localhost:{site.port}"
        server, port = await asyncio.to_thread(start, tmp_path, kind, upstream)
        try:
            if kind == "mitm":
                options = ["--noproxy", "", "-k", "-x", f"http://127.0.0.1:{port}", upstream]
            else:
                options = [f"http://127.0.0.1:{port}/"]
            code, said = await output_of("curl", "-sS", *options)
        finally:
            await asyncio.to_thread(server.discard)
    assert (code, said) == (0, f"john over {'2' if protocol == 'h2' else '1.1'}\n")


@pytest.mark.peer
@needs("curl")
@pytest.mark.parametrize("kind", ["reverse", "pango"])
async def test_an_http3_upstream_verifies_the_client_certificate(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qh3")
    monkeypatch.setenv("SSL_CERT_FILE", ca_file())
    for source, name in zip(pair_files("john", client=True), ("c.pem", "k.pem"), strict=True):
        (tmp_path / name).write_bytes(Path(source).read_bytes())
    async with caddy(tmp_path, client_ca=ca_file()) as upstream:
        server, port = await asyncio.to_thread(start, tmp_path, kind, f"h3://localhost:{upstream}")
        try:
            code, said = await output_of(
                "curl", "-sS", "-H", f"Host: localhost:{upstream}", f"http://127.0.0.1:{port}/echo"
            )
        finally:
            await asyncio.to_thread(server.discard)
        async with http.h3_client(ca=ca_file()) as ask:
            with pytest.raises(LlamaError):  # without a certificate
                await ask(Request("GET", f"https://localhost:{upstream}/echo"))
    assert (code, said) == (0, "HTTP/3.0 GET ")


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("reverse --to https://a.example --to-key k.pem", "--to-key: "),
        ("reverse --to https://a.example --to-cert missing.pem", "--to-cert: "),
        ("mitm --ca ca --upstream-key k.pem", "--upstream-key: "),
        ("mitm --ca ca --upstream-cert missing.pem", "--upstream-cert: "),
    ],
)
def test_wrong_client_certificates_name_the_option(
    llama: Call, line: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = llama(line)
    assert done.code == 78
    assert done.errors.startswith(f"llama: {option}")

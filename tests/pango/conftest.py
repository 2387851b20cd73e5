"""Certificates, and a way to call pango's command in this process."""

import os
import shutil
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner

from llama.tls import CertificateAuthority
from pango._cli import main
from tests.pango.nginx import Nginx
from tests.pango.process import Proxy


@pytest.fixture(scope="session")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create(name="pango's tests")


@pytest.fixture
def files(authority: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a certificate for localhost and its authority: c.pem, k.pem, ca.pem."""
    monkeypatch.chdir(tmp_path)
    write_pair(authority, tmp_path, "c.pem", "k.pem", "localhost", "127.0.0.1")
    authority.write_pem(tmp_path / "ca.pem")
    return tmp_path


def write_pair(
    authority: CertificateAuthority, folder: Path, cert: str, key: str, *names: str, client: bool = False
) -> None:
    """Issue a certificate into two files, each replaced in one step."""
    pair = authority.issue(*names, client=client)
    for name, content in ((key, pair.key_pem), (cert, pair.cert_pem)):
        draft = folder / f"{name}.draft"
        draft.write_bytes(content)
        os.replace(draft, folder / name)


class Outcome:
    """How a command ended, and what it said."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code = code
        self.output = output
        self.errors = errors


class Call(Protocol):
    def __call__(self, line: str, /) -> Outcome: ...


@pytest.fixture
def pango() -> Call:
    """`pango("serve --check ...")`: the command in this process."""

    def call(line: str, /) -> Outcome:
        result = CliRunner().invoke(main, line.split(), prog_name="pango", catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


class Start(Protocol):
    def __call__(self, *options: str) -> Proxy: ...


@pytest.fixture
def proxy(files: Path) -> Iterator[Start]:
    """`proxy("--to", target)`: `pango serve` in a process of its own, with c.pem unless it is --plain."""
    running: list[Proxy] = []

    def start(*options: str) -> Proxy:
        pair = () if "--plain" in options or "--cert" in options else ("--cert", "c.pem", "--key", "k.pem")
        running.append(Proxy(files, *pair, *options))
        return running[-1]

    yield start
    for each in running:
        each.discard()


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that breaks is part of the tests."""


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """The address of a service that gives back what it gets."""
    with _EchoServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nginx(files: Path) -> Iterator[Nginx]:
    """nginx on two Unix sockets, one of which expects a PROXY header; its files are in `www`."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    peer = Nginx(files)
    yield peer
    peer.stop()


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program is missing."""
    missing = [each for each in programs if shutil.which(each) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

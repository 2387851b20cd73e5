"""The command `llama` in this process and in processes of its own, and what it is put in front of."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner

from llama._cli import logs, main
from llama.tls import CertificateAuthority
from tests.pango.process import Pango, free_port


class Outcome:
    """How a command ended, and what it said."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code = code
        self.output = output
        self.errors = errors


def _set_up_nothing(*, instead_of: bool = False) -> None:
    """Stands in for what sets up logging."""


class Call(Protocol):
    def __call__(self, line: str, /) -> Outcome: ...


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> Call:
    """`llama("socks5 --help")`: the command in this process, for what does not get as far as to run."""
    monkeypatch.setattr(logs, "set_up", _set_up_nothing)  # this process logs as the tests want it

    def call(line: str, /) -> Outcome:
        result = CliRunner().invoke(main, line.split(), prog_name="llama", catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


class Llama(Pango):
    """`python -m llama COMMAND ...` on a free port of 127.0.0.1."""

    module = "llama"

    def __init__(self, folder: Path, command: str, *options: str) -> None:
        super().__init__(folder, command, "--listen", "127.0.0.1:0", *options)
        self.port = int(self.expect(r"listening on 127\.0\.0\.1:(\d+)")[1])
        self.address = f"127.0.0.1:{self.port}"


class Start(Protocol):
    def __call__(self, command: str, *options: str) -> Llama: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("socks5", "--user", "john:secret")`: a proxy in a process of its own."""
    running: list[Llama] = []

    def start(command: str, *options: str) -> Llama:
        running.append(Llama(tmp_path, command, *options))
        return running[-1]

    yield start
    for each in running:
        each.discard()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a certificate for localhost and its authority: c.pem, k.pem, ca.pem."""
    monkeypatch.chdir(tmp_path)
    authority = CertificateAuthority.create(name="llama's tests")
    pair = authority.issue("localhost", "127.0.0.1")
    (tmp_path / "c.pem").write_bytes(pair.cert_pem)
    (tmp_path / "k.pem").write_bytes(pair.key_pem)
    authority.write_pem(tmp_path / "ca.pem")
    return tmp_path


class Site(Pango):
    """`python -m llama COMMAND ... --http3`, on a port that is known before."""

    module = "llama"

    def __init__(self, folder: Path, command: str, *options: str) -> None:
        self.port = free_port()
        super().__init__(folder, command, "--listen", f"127.0.0.1:{self.port}", *options)
        self.expect(rf"listening on .*127\.0\.0\.1:{self.port}")


@pytest.fixture
def site(files: Path) -> Iterator[Callable[..., Site]]:
    """`site("static", "public")`: a command with a certificate and HTTP/3, on a port of both kinds."""
    running: list[Site] = []

    def start(command: str, *options: str) -> Site:
        running.append(Site(files, command, "--cert", "c.pem", "--key", "k.pem", "--http3", *options))
        return running[-1]

    yield start
    for each in running:
        each.discard()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"page {self.path} via {self.headers['Via'] or 'nothing'}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what clients get."""


class _Web(ThreadingHTTPServer):
    daemon_threads = False


@pytest.fixture
def web() -> Iterator[str]:
    """The address of an HTTP server that tells the path it was asked for."""
    with _Web(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()

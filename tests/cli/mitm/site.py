"""A site behind TLS, and programs that are sent there through `llama mitm`."""

import os
import ssl
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CLEAN = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Web)
        self.server.asked.append(self.path)
        if self.path == "/half":
            self._half(self.server)
            return
        body = f"page {self.path} from the cloud\n".encode()
        self.send_response(404 if self.path.startswith("/missing") else 200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _half(self, server: "_Web") -> None:
        """Half of a page, and nothing more before the end."""
        self.send_response(200)
        self.send_header("Content-Length", "20")
        self.end_headers()
        self.wfile.write(b"half a page")
        self.wfile.flush()
        server.ending.wait()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what clients get."""


class _Web(ThreadingHTTPServer):
    asked: list[str]
    ending: threading.Event


@dataclass
class Site:
    """Where it is, and what it was asked for."""

    port: int
    asked: list[str]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@contextmanager
def site(cert: str = "c.pem", key: str = "k.pem") -> Generator[Site]:
    """An HTTPS server with this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    with _Web(("127.0.0.1", 0), _Page) as server:
        server.asked, server.ending = [], threading.Event()
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Site(server.server_address[1], server.asked)
        server.ending.set()
        server.shutdown()
        thread.join()


def run(
    *command: str | Path, variables: Mapping[str, str] = CLEAN, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    filled = [str(part) for part in command]
    return subprocess.run(
        filled, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        env=variables, cwd=cwd,
    )  # fmt: skip


def curl(*arguments: str | Path) -> str:
    """What curl is answered, which has to end well."""
    done = run("curl", "-qsS", "--max-time", "20", "--noproxy", "", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout

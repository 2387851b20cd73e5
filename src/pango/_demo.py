"""`pango demo`: TLS in front of a small web service, with nothing to prepare."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from llama import ConnectionHandler, asgi, http, layer, run, stack, tcp, tls
from pango._demo_app import TLS_HEADERS, hello
from pango._settings import HANDSHAKE_TIMEOUT

TRIES = 100
IDLE = 60.0


@layer
async def tell_tls(request: http.Request, inner: http.RequestHandler) -> http.Response:
    """Put the session's version and cipher into headers, where the service reads them."""
    info = request.extensions[tls.TLSInfo]
    for name, value in zip(TLS_HEADERS, (info.version, info.cipher), strict=True):
        request.headers[name] = value
    return await inner(request)


def demo(port: int) -> None:
    """Serve on this machine only until a signal, at this port or at the next one that is free."""
    with TemporaryDirectory(prefix="pango-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # another user's client may read ca.pem; the key's file is its owner's alone
        service = _service(folder)
        ports = range(port, min(port + TRIES, 65536))
        if not any(_serve(service, each, folder / "ca.pem") for each in ports):
            raise OSError(errno.EADDRINUSE, f"no port is free from {port} to {ports[-1]}")


def _service(folder: Path) -> ConnectionHandler:
    authority = tls.CertificateAuthority.create(name="pango demo, throw-away", days=30)
    authority.write_pem(folder / "ca.pem")
    cert, key = authority.issue("localhost", "127.0.0.1", "::1", days=30).write(folder)
    return stack(
        tls.server(cert, key, handshake_timeout=HANDSHAKE_TIMEOUT),
        http.server(first_byte_timeout=IDLE, head_timeout=IDLE, idle_timeout=IDLE),
        tell_tls,
        asgi(hello),
    )


def _serve(service: ConnectionHandler, port: int, ca: Path) -> bool:
    """False when the port is taken."""
    servers = [tcp.server(f"{host}:{port}", service) for host in _loopbacks()]
    try:
        run(*servers, on_ready=lambda _: _announce(port, ca))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def _loopbacks() -> list[str]:
    """What `localhost` may stand for here."""
    found = ["127.0.0.1"]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))
        found.append("[::1]")
    return found


def _end(number: int, frame: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _announce(port: int, ca: Path) -> None:
    if hasattr(signal, "SIGHUP"):  # there is nothing to read again, and the terminal is gone
        signal.signal(signal.SIGHUP, _end)
    url = f"https://localhost:{port}/"
    command = ["curl", "--cacert", str(ca), url]
    line = subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)
    click.echo(f"pango demo: TLS in front of a small web page, on {url}")
    click.echo(f"In another terminal:\n\n{line}\n\nCtrl-C ends it.")

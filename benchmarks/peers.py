"""The proxies that are compared: each peer turns a place into the command that starts it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer shall listen, what it shall reach, and what it may use."""

    port: int
    to: int
    cert: Path
    key: Path
    both: Path
    folder: Path


Peer = Callable[[Place], list[str]]
"""Gives the command that runs it in a place; raises Missing."""


class Missing(Exception):
    """The program of a peer is not installed."""


def program(name: str) -> str:
    """The path of a program, looked for where root's programs are too; raises Missing."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def module(name: str, *needed: str) -> list[str]:
    """The command that runs a module, beside llama or where its own command is; raises Missing."""
    command = shutil.which(name)
    pythons = [sys.executable, *([str(Path(command).parent / "python")] if command else [])]
    for python in pythons:
        if can_import(python, name, *needed):
            return [python, "-m", name]
    raise Missing(f"{' and '.join((name, *needed))} is not installed")


def can_import(python: str, *modules: str) -> bool:
    """Whether an interpreter has all of these modules."""
    looks = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
    try:
        return subprocess.run([python, "-c", looks, *modules], check=False).returncode == 0
    except OSError:
        return False


HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
    maxpipes 100
    no strict-limits
defaults
    mode {mode}
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    {defaults}
listen bench
    bind 127.0.0.1:{port} backlog 4096 {tls}
    {service}
"""


def haproxy(*, tls: bool = False, splice: bool = False, leaf: bool = False, connections: int = 9500) -> Peer:
    """HAProxy with one thread, `mode tcp`; `leaf` answers HTTP itself, without an origin."""

    def command(place: Place) -> list[str]:
        service = 'http-request return status 200 content-type text/plain string "hello"'
        configuration = HAPROXY.format(
            connections=connections,
            mode="http" if leaf else "tcp",
            defaults="option splice-auto" if splice else "",
            port=place.port,
            tls=f"ssl crt {place.both}" if tls else "",
            service=service if leaf else f"server origin 127.0.0.1:{place.to}",
        )
        path = place.folder / f"haproxy-{place.port}.cfg"
        path.write_text(configuration)
        return [program("haproxy"), "-f", str(path)]

    return command


def forward(*, tls: bool = False) -> Peer:
    """The program itself: `pango serve`, with a certificate or plain."""

    def command(place: Place) -> list[str]:
        ends = ["--listen", f"127.0.0.1:{place.port}", "--to", f"127.0.0.1:{place.to}"]
        keys = ["--cert", str(place.cert), "--key", str(place.key)] if tls else ["--plain"]
        return [sys.executable, "-m", "pango", "serve", *ends, *keys]

    return command


def leaf(*, tls: bool = False) -> Peer:
    """A llama server that answers itself: an echo handler."""

    def command(place: Place) -> list[str]:
        keys = [str(place.cert), str(place.key)] if tls else []
        return server("leaf", f"127.0.0.1:{place.port}", *keys)(place)

    return command


def hello() -> Peer:
    """A llama HTTP server that answers itself."""

    def command(place: Place) -> list[str]:
        return server("hello", f"127.0.0.1:{place.port}")(place)

    return command


def server(name: str, *arguments: str) -> Peer:
    """A program of benchmarks/servers."""

    def command(place: Place) -> list[str]:
        return [sys.executable, str(ROOT / "benchmarks" / "servers" / f"{name}.py"), *arguments]

    return command

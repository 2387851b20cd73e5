"""Other people's programs, as clients and as proxies."""

import asyncio
import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

PATIENCE = 20.0


class Result(NamedTuple):
    code: int
    out: str
    err: str


def installed(name: str) -> str:
    """The path of a program; skips the test without it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


async def program(name: str, *arguments: str | Path, stdin: str = "") -> Result:
    """Run a program to its end beside the loop."""
    return await asyncio.to_thread(_run, [installed(name), *map(str, arguments)], stdin)


def _run(command: list[str], stdin: str) -> Result:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(port: int, *command: str) -> Generator[None]:
    """A server that is listening on a port of loopback, for as long as the block lasts."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            _wait_for(port, process)
            yield
        finally:
            process.terminate()
            try:
                process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(port: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"{process.args!r} does not listen:\n{process.communicate()[0]}")
            time.sleep(0.02)
        else:
            return


@contextmanager
def microsocks(*arguments: str) -> Generator[str]:
    port = free_port()
    with running(port, installed("microsocks"), "-i", "127.0.0.1", "-p", str(port), *arguments):
        yield f"127.0.0.1:{port}"


DANTE = """
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
socksmethod: none
clientmethod: none
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{
    from: 127.0.0.0/8 to: 0.0.0.0/0
    command: connect bind bindreply udpassociate udpreply
}}
"""


@contextmanager
def dante(folder: Path) -> Generator[str]:
    port = free_port()
    config = folder / "danted.conf"
    config.write_text(DANTE.format(port=port))
    with running(port, installed("danted"), "-f", str(config), "-p", str(folder / "danted.pid")):
        yield f"127.0.0.1:{port}"


@contextmanager
def pproxy(*arguments: str) -> Generator[str]:
    if importlib.util.find_spec("pproxy") is None:
        pytest.skip("pproxy is not installed")
    port = free_port()
    listen = f"socks5://127.0.0.1:{port}" + "".join(arguments)
    with running(port, sys.executable, "-W", "ignore", "-m", "pproxy", "-l", listen):
        yield f"127.0.0.1:{port}"

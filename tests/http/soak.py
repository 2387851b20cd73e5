"""A reverse proxy in a process of its own, so that its memory can be looked at: `python -m tests.http.soak URL`."""

import asyncio
import os
import resource
import socket
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from llama import serve, stack, tcp
from llama.http import client, reverse_proxy, server

ROOT = Path(__file__).parents[2]
BUFFER = 16384  # of the kernel, for each connection: what waits there is not the proxy's


class Proxy:
    """A running proxy."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def memory(self) -> int:
        """What it has resident, in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    async def connect(self) -> socket.socket:
        """A new connection to it, with small buffers."""
        sock = small_socket()
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock


def small_socket() -> socket.socket:
    """A socket that keeps little in the kernel."""
    sock = socket.socket()
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    return sock


@asynccontextmanager
async def proxy_to(port: int, *, small: bool = False) -> AsyncGenerator[Proxy]:
    """Start one in front of an origin; leaving the block ends it."""
    command = [sys.executable, "-m", "tests.http.soak", f"http://127.0.0.1:{port}", *["small"] * small]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    process = await create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT, env=environment)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Proxy(process, int(await process.stdout.readline()))
    finally:
        process.stdin.close()
        await process.wait()


async def main(url: str, *, small: bool) -> None:
    """Serve until the standard input ends."""
    unbounded = client(max_connections=None, max_per_host=None)
    listener = small_socket() if small else socket.socket()
    with listener:
        listener.bind(("127.0.0.1", 0))
        handler = stack(server(), reverse_proxy(url, client=unbounded))
        async with serve(tcp.server(listener, handler)):
            print(listener.getsockname()[1], flush=True)
            await asyncio.to_thread(sys.stdin.read)
            os._exit(0)  # the connections that are left are not waited for


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], small="small" in sys.argv))

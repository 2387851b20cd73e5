"""The gRPC server of `grpc_peer`, for tests that block."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

PEER = Path(__file__).with_name("grpc_peer.py")
EXPECTED = """\
unary b'HELLO' i {'x-trailing': '1', 'x-trailing-bin': b'\\x00\\xff'}
error StatusCode.NOT_FOUND no such thing: ä
server 200 490000
client b'500000'
both [b'a0', b'a1', b'a2', b'a3', b'a4']
"""


@contextmanager
def grpc_server() -> Generator[int]:
    """Serve on a port of localhost until the block ends."""
    pytest.importorskip("grpc")
    command = (sys.executable, str(PEER), "serve")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()

"""Connections that the kernel led here: to the place that they wanted."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llama import Refused, serve, tcp, testing
from llama._target import Target
from llama.tcp._transparent import original_target


async def test_a_connection_that_came_of_itself_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(tcp.transparent(), listen="127.0.0.1:0") as server:
        stream = await tcp.connect()(Target("127.0.0.1", server.port))
        assert await stream.read() == b""
        stream.abort()
    assert "came here of itself" in caplog.text


async def test_a_stream_that_is_no_socket_is_refused() -> None:
    stream, other = testing.memory_pair()
    with pytest.raises(Refused, match="no TCP socket"):
        original_target(stream)
    stream.abort()
    other.abort()


def privileged() -> bool:
    """Whether a network of our own with rules of our own can be had."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    iptables = shutil.which("iptables", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if iptables is None:
        return False
    done = subprocess.run(
        ["unshare", "-n", iptables, "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "REDIRECT"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


PROGRAM = """
import asyncio, sys
from llama import serve, tcp
from llama._target import Target

async def main():
    seen = []
    async def relay(bridge):
        seen.append(str(bridge.target))
        await bridge.client.write(b"here")
    async with serve(tcp.transparent(relay=relay), listen=sys.argv[1]):
        for target in sys.argv[2:]:
            stream = await tcp.connect(timeout=10)(Target.parse(target))
            assert await stream.read() == b"here"
            await stream.aclose()
    print(*seen)

asyncio.run(main())
"""


@pytest.mark.peer
@pytest.mark.skipif(not privileged(), reason="needs iptables and a network of our own")
@pytest.mark.parametrize(
    ("command", "listen", "targets"),
    [
        ("iptables", "0.0.0.0:9999", ["192.0.2.1:443", "192.0.2.7:80"]),
        ("ip6tables", "[::]:9999", ["[2001:db8::1]:443"]),
    ],
)
def test_the_kernels_rule_leads_here_and_the_target_is_known(
    command: str, listen: str, targets: list[str], tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    script = (
        "ip link set lo up && ip addr add 198.51.100.1/24 dev lo && "
        "ip route add default dev lo src 198.51.100.1 && ip -6 route add default dev lo && "
        f"{command} -t nat -A OUTPUT -p tcp ! --dport 9999 -j REDIRECT --to-ports 9999 && "
        f"{sys.executable} {program} {listen} {' '.join(targets)}"
    )
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.stdout.split() == targets, done.stderr

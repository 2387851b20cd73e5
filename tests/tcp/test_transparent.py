"""Connections that the kernel led here: to the place that they wanted."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llama import ConfigError, RefusedError, serve, tcp, testing
from llama._core.target import Target
from llama.tcp._transparent import original_target


async def test_a_connection_that_was_not_redirected_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(tcp.transparent(), listen="127.0.0.1:0") as server:
        stream = await tcp.connect()(Target("127.0.0.1", server.port))
        assert await stream.read() == b""
        stream.abort()
    assert "was not redirected here" in caplog.text


async def test_a_stream_without_a_socket_is_refused() -> None:
    stream, other = testing.memory_pair()
    with pytest.raises(RefusedError, match="not a TCP socket"):
        original_target(stream)
    stream.abort()
    other.abort()


def privileged(*rule: str) -> bool:
    """Whether a network of our own with rules of our own can be had."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    iptables = shutil.which("iptables", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if iptables is None:
        return False
    table, chain, *jump = rule or ("nat", "OUTPUT", "REDIRECT")
    done = subprocess.run(
        ["unshare", "-n", iptables, "-w", "10", "-t", table, "-A", chain, "-p", "tcp", "-j", *jump],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


PROGRAM = """
import asyncio, sys
from llama import serve, tcp
from llama._core.target import Target

async def main():
    seen = []
    async def relay(bridge):
        seen.append(str(bridge.target))
        await bridge.client.write(b"here")
    taking_any = sys.argv[1] == "TPROXY"
    async with serve(tcp.server(sys.argv[2], tcp.transparent(relay=relay), transparent=taking_any)):
        for target in sys.argv[3:]:
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
def test_the_original_destination_of_a_redirected_connection_is_known(
    command: str, listen: str, targets: list[str], tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    script = (
        "ip link set lo up && ip addr add 198.51.100.1/24 dev lo && "
        "ip route add default dev lo src 198.51.100.1 && ip -6 route add default dev lo && "
        f"{command} -w 10 -t nat -A OUTPUT -p tcp ! --dport 9999 -j REDIRECT --to-ports 9999 && "
        f"{sys.executable} {program} REDIRECT {listen} {' '.join(targets)}"
    )
    assert run(script).split() == targets


def run(script: str) -> str:
    """What a script prints in a network of its own."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.peer
@pytest.mark.skipif(not privileged("mangle", "PREROUTING", "TPROXY", "--on-port", "1"), reason="needs TPROXY")
@pytest.mark.parametrize(
    ("version", "listen", "net", "targets"),
    [
        ("", "0.0.0.0:9999", "192.0.2.0/24", ["192.0.2.1:443", "192.0.2.7:80"]),
        ("", ":9999", "192.0.2.0/24", ["192.0.2.1:443"]),  # by a socket of both families
        ("6", "[::]:9999", "2001:db8::/32", ["[2001:db8::1]:443"]),
    ],
)
def test_a_tproxy_connection_keeps_its_destination_address(
    version: str, listen: str, net: str, targets: list[str], tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    tables, ip = f"ip{version}tables -w 10 -t mangle", f"ip {'-6' if version else '-4'}"
    script = (
        "ip link set lo up && ip addr add 198.51.100.1/24 dev lo && ip -6 addr add 2001:db8:1::1/64 dev lo && "
        "ip route add default dev lo src 198.51.100.1 && ip -6 route add default dev lo src 2001:db8:1::1 && "
        f"{tables} -A OUTPUT -d {net} -p tcp --dport 1:1023 -j MARK --set-mark 1 && "
        f"{ip} rule add fwmark 1 lookup 100 && {ip} route add local default dev lo table 100 && "
        f"{tables} -A PREROUTING -m mark --mark 1 -p tcp -j TPROXY --on-port 9999 --tproxy-mark 1 && "
        f"{sys.executable} {program} TPROXY {listen} {' '.join(targets)}"
    )
    assert run(script).split() == targets


async def test_a_listener_for_any_address_needs_a_tcp_address() -> None:
    with pytest.raises(ConfigError, match="expected a TCP address"):
        tcp.server("unix:x", tcp.transparent(), transparent=True)


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="needs NET_ADMIN")
async def test_a_connection_to_the_listener_itself_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(tcp.server("127.0.0.1:0", tcp.transparent(), transparent=True)) as server:
        stream = await tcp.connect()(Target("127.0.0.1", server.port))
        assert await stream.read() == b""
        stream.abort()
    assert "was not redirected here" in caplog.text


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone")
def test_a_transparent_listener_without_the_capability_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama.tcp._tproxy._IP_TRANSPARENT", 9999)  # an option that nobody may set
    with pytest.raises(OSError, match="NET_ADMIN"):
        tcp.server("127.0.0.1:0", tcp.transparent(), transparent=True).bind()

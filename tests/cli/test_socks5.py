"""`llama socks5` with --udp, --bind and --socks4."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from llama import Shutdown, Target, UnreachableError, socks5, tcp
from llama.testing._transcript import converse
from tests.cli.conftest import Call, Start
from tests.cli.test_peers import curl
from tests.pango.conftest import needs


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """The address of a UDP socket that sends back each datagram until an empty one arrives."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.bind(("127.0.0.1", 0))

        def run() -> None:
            while True:
                data, peer = packets.recvfrom(65535)
                if not data:
                    return
                packets.sendto(data, peer)

        thread = threading.Thread(target=run)
        thread.start()
        address: tuple[str, int] = packets.getsockname()
        yield address
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", address)
        thread.join()


@pytest.mark.peer
def test_pysocks_sends_datagrams(start: Start, echo: tuple[str, int]) -> None:
    socks: Any = pytest.importorskip("socks")
    server = start("socks5", "--udp", "--user", "john:secret", "--access-log", "json")
    with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.set_proxy(socks.SOCKS5, "127.0.0.1", server.port, True, "john", "secret")
        for data in (b"hello", b"x" * 5000):
            client.sendto(data, echo)
            assert client.recvfrom(65535) == (data, echo)
    line = json.loads(server.expect(r"^{.*}$")[0])
    assert (line["network.protocol.name"], line["user.name"]) == ("socks udp", "john")
    assert (line["client.bytes"], line["server.bytes"], line["error.type"]) == (5005, 5005, "")
    server.stop()


async def test_an_association_without_datagrams_ends(start: Start) -> None:
    options = ("--udp", "--idle-timeout", "200ms", "--access-log", "json")
    server = await asyncio.to_thread(start, "socks5", *options)
    async with Shutdown():
        packets = await socks5.associate(server.address)(None)
        with pytest.raises(UnreachableError, match="the proxy ended the association"):
            await packets.receive()
        await packets.aclose()
    assert json.loads(server.expect(r"^{.*}$")[0])["error.type"] == "TimeoutError"


async def test_a_peer_connects_to_a_bound_port(start: Start) -> None:
    server = await asyncio.to_thread(start, "socks5", "--bind", "--access-log", "json")
    binding = await socks5.bind(server.address)(Target("127.0.0.1", 0))
    peer = await tcp.connect()(Target(*binding.address))
    stream = await binding.accept()
    await converse(peer, ">> hello", ">>")
    await converse(stream, "<< hello", "<<", ">>")
    await converse(peer, "<<")
    for each in (stream, peer):
        await each.aclose()
    assert json.loads(server.expect(r"^{.*}$")[0])["server.bytes"] == 5


@pytest.mark.peer
@needs("curl")
@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_curl_with_every_version(start: Start, web: str, scheme: str) -> None:
    server = start("socks5", "--socks4")
    assert curl("-x", f"{scheme}://{server.address}", f"http://{web}/a") == b"page /a via nothing\n"


@pytest.mark.parametrize("command", [2, 3])
def test_only_connect_is_served_by_default(start: Start, command: int) -> None:
    server = start("socks5")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"\x05\x01\x00")
        assert client.recv(2) == b"\x05\x00"
        client.sendall(b"\x05%c\x00\x01\0\0\0\0\0\0" % command)
        assert client.recv(10)[1] == 7
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00")
        assert client.recv(10) == b""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--socks4 --user john:secret", "--socks4: SOCKS4 has no passwords"),
        (
            "--udp --via socks5h://127.0.0.1:9050",
            "--udp: the proxies of --via carry outgoing connections only",
        ),
        (
            "--bind --via http://127.0.0.1:3128",
            "--bind: the proxies of --via carry outgoing connections only",
        ),
        ("--udp --listen :1080", "--listen: :1080 may be reached from other machines"),
    ],
)
def test_options_that_exclude_each_other(llama: Call, options: str, error: str) -> None:
    done = llama(f"socks5 {options}")
    assert done.code == 78
    assert error in done.errors

"""The PROXY protocol's layer and connector with HAProxy on the way: the client's address arrives."""

from pathlib import Path

import pytest

from llama import LocalAddress, PeerAddress, Stream, Target, serve, stack, tcp
from llama.tcp._io.stream import SocketStream
from tests.tcp.proxy_protocol.test_send_to_haproxy import HAPROXY, haproxy

pytestmark = [pytest.mark.peer, pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")]


class Seen:
    """A handler that remembers where its client came from and went to, and echoes."""

    def __init__(self) -> None:
        self.addresses: list[tuple[PeerAddress, LocalAddress]] = []

    async def __call__(self, stream: Stream) -> None:
        self.addresses.append((stream.extensions[PeerAddress], stream.extensions[LocalAddress]))
        while data := await stream.read():
            await stream.write(data)


async def own_address_of_an_echo(host: str, port: int) -> tuple[str, int]:
    stream = await tcp.connect()(Target(host, port))
    assert isinstance(stream, SocketStream)
    await stream.write(b"hello")
    assert await stream.read() == b"hello"
    own = stream.socket.getsockname()
    await stream.aclose()
    return own[0], own[1]


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2 proxy-v2-options crc32c"])
async def test_a_proxy_header_from_haproxy_is_accepted(tmp_path: Path, how: str) -> None:
    seen = Seen()
    handler = stack(tcp.proxy_protocol(trust=["127.0.0.1"], require=True, timeout=20), seen)
    with haproxy(tmp_path, "", how) as (front, back):
        back.setblocking(False)
        async with serve(tcp.server(back, handler)):
            own = await own_address_of_an_echo(*front)
    assert seen.addresses == [(PeerAddress(*own), LocalAddress(*front))]


@pytest.mark.parametrize("version", [1, 2])
async def test_haproxy_accepts_the_header_and_passes_it_on(tmp_path: Path, version: int) -> None:
    seen = Seen()
    behind = stack(tcp.proxy_protocol(trust=["127.0.0.1"], require=True), seen)
    sending = tcp.send_proxy(version=version, checksum=version == 2)  # type: ignore[arg-type]
    with haproxy(tmp_path, "accept-proxy", "send-proxy-v2") as (front, back):
        back.setblocking(False)
        before = tcp.forward(Target(*front), connect=sending)
        async with serve(tcp.server(back, behind), tcp.server("127.0.0.1:0", before)) as server:
            port = int(server.addresses[1].rpartition(":")[2])
            own = await own_address_of_an_echo("127.0.0.1", port)
    assert seen.addresses == [(PeerAddress(*own), LocalAddress("127.0.0.1", port))]

"""UDP ASSOCIATE: llama's client through llama's server, and clients that do what they should not."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from llama import (
    ConfigError,
    Packet,
    Packets,
    PeerAddress,
    Shutdown,
    Stream,
    StreamClosedError,
    Target,
    UnreachableError,
    serve,
    socks5,
    tcp,
    testing,
    udp,
)
from llama.socks5._wire.socks5 import encode_datagram, parse_datagram, parse_reply
from llama.testing._transcript import converse
from tests.socks5.worlds import Echoes


def at(packets: Packets) -> Target:
    assert packets.address is not None
    return Target(*packets.address)


@asynccontextmanager
async def echo_packets(host: str = "127.0.0.1") -> AsyncGenerator[Target]:
    """A socket that sends back what comes."""
    packets = await udp.bind((host, 0))

    async def run() -> None:
        while True:
            try:
                data, peer = await packets.receive()
            except StreamClosedError:
                return
            await packets.send(data, Target(*peer))

    async with Shutdown() as shutdown:
        shutdown.spawn(run())
        try:
            yield at(packets)
        finally:
            await packets.aclose()


class Client:
    """A client that speaks the protocol by hand."""

    def __init__(self, control: Stream, packets: Packets, relay: Target) -> None:
        self.control = control
        self.packets = packets
        self.relay = relay

    async def send(self, data: bytes, by: Packets | None = None) -> None:
        await (by or self.packets).send(data, self.relay)

    async def receive(self) -> tuple[str, bytes]:
        datagram = parse_datagram((await self.packets.receive()).data)
        return str(datagram.address), datagram.data


@asynccontextmanager
async def client(
    port: int, announce: Callable[[Packets], tuple[str, int]] | None = None
) -> AsyncGenerator[Client]:
    control = await tcp.connect()(Target("127.0.0.1", port))
    packets = await udp.bind("127.0.0.1:0")
    host, own = announce(packets) if announce else ("0.0.0.0", 0)
    address = bytes(map(int, host.split("."))) + own.to_bytes(2, "big")
    await converse(control, ">> \x05\x01\x00", "<< \x05\x00", b">> \x05\x03\x00\x01" + address)
    found = parse_reply(await control.read())
    assert found is not None
    assert found[0].code == 0
    try:
        yield Client(control, packets, Target(*found[0].address))
    finally:
        await packets.aclose()
        await control.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_go_both_ways(host: str) -> None:
    async with serve(socks5.server(udp=True), listen="127.0.0.1:0") as server, echo_packets(host) as there:
        packets = await socks5.associate(server.address)(there)
        await packets.send(b"hi")
        assert await packets.receive() == Packet(b"hi", PeerAddress(there.host, there.port))
        await packets.aclose()


async def test_a_server_on_ipv6() -> None:
    async with serve(socks5.server(udp=True), listen="[::1]:0") as server, echo_packets() as there:
        packets = await socks5.associate(server.address)(there)
        await packets.send(b"hi")
        assert (await packets.receive()).data == b"hi"
        await packets.aclose()


async def test_names_and_many_targets_in_one_association() -> None:
    async with (
        serve(socks5.server(udp=True), listen="127.0.0.1:0") as server,
        echo_packets() as one,
        echo_packets() as two,
    ):
        packets = await socks5.associate(server.address)(None)
        for target in (one, two, Target("localhost", one.port)):
            await packets.send(b"to %d" % target.port, target)
            data, peer = await packets.receive()
            assert (data, peer.port) == (b"to %d" % target.port, target.port)
        await packets.aclose()


async def test_with_a_password_and_rules(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with echo_packets() as good, echo_packets() as bad:
        rules = socks5.per_user({"john": socks5.deny(f"*:{bad.port}")})
        listening = socks5.server(auth={"john": "secret"}, udp=True, rules=rules)
        async with serve(listening, listen="127.0.0.1:0") as server:
            packets = await socks5.associate(server.address, user="john", password="secret")(None)
            await packets.send(b"lost", bad)
            await packets.send(b"lost too", bad)
            await packets.send(b"hi", good)
            assert (await packets.receive()).data == b"hi"
            await packets.aclose()
    assert caplog.text.count("is not allowed for user 'john'") == 1


async def test_private_targets_require_permission() -> None:
    done = asyncio.Event()

    def rules(user: socks5.User | None, target: Target) -> bool:
        if target.host == "127.2":
            done.set()
        return True

    async with serve(socks5.server(udp=True, private=False, rules=rules), listen="127.0.0.1:0") as server:
        packets = await socks5.associate(server.address)(None)
        elsewhere = await udp.bind("127.0.0.1:0")
        for host in ("127.0.0.1", "localhost", "127.1", "127.2"):
            await packets.send(b"hi", Target(host, at(elsewhere).port))
        await done.wait()  # they are dealt with in turn
        await elsewhere.send(b"nothing came before this", at(elsewhere))
        assert (await elsewhere.receive()).data == b"nothing came before this"
        await elsewhere.aclose()
        await packets.aclose()


async def test_a_chain_of_two() -> None:
    async with (
        echo_packets() as there,
        serve(socks5.server(udp=True), listen="127.0.0.1:0") as far,
        serve(socks5.server(udp=socks5.associate(far.address)), listen="127.0.0.1:0") as near,
    ):
        packets = await socks5.associate(near.address)(there)
        await packets.send(b"hi")
        assert (await packets.receive()).data == b"hi"
        await packets.aclose()


async def test_a_chain_made_by_the_client() -> None:
    async with (
        echo_packets() as there,
        serve(socks5.server(udp=True), listen="127.0.0.1:0") as first,
        serve(socks5.server(udp=True), listen="127.0.0.1:0") as second,
    ):
        over, packets = socks5.connect(first.address), socks5.associate(first.address)
        opened = await socks5.associate(second.address, connect=over, packets=packets)(there)
        await opened.send(b"hi")
        assert (await opened.receive()).data == b"hi"
        await opened.aclose()


async def test_fragments_and_malformed_datagrams_are_dropped() -> None:
    async with (
        serve(socks5.server(udp=True), listen="127.0.0.1:0") as server,
        echo_packets() as there,
        client(server.port) as peer,
    ):
        whole = encode_datagram(there.host, there.port, b"whole")
        await peer.send(b"\0\0\x01" + whole[3:])
        await peer.send(b"\0\0\x81" + whole[3:])
        await peer.send(b"\0\0\0\x09")
        await peer.send(b"")
        await peer.send(whole)
        assert await peer.receive() == (str(there), b"whole")


async def test_another_source_is_not_the_client() -> None:
    async with (
        serve(socks5.server(udp=True), listen="127.0.0.1:0") as server,
        echo_packets() as there,
        client(server.port) as peer,
    ):
        foreign, other_port = await udp.bind("127.0.0.2:0"), await udp.bind("127.0.0.1:0")
        await peer.send(encode_datagram(there.host, there.port, b"from elsewhere"), by=foreign)
        await peer.send(encode_datagram(there.host, there.port, b"first"))
        assert await peer.receive() == (str(there), b"first")
        await peer.send(encode_datagram(there.host, there.port, b"from another port"), by=other_port)
        await peer.send(encode_datagram(there.host, there.port, b"second"))
        assert await peer.receive() == (str(there), b"second")
        await foreign.aclose()
        await other_port.aclose()


async def test_the_port_that_was_announced_is_the_only_one() -> None:
    async with (
        serve(socks5.server(udp=True), listen="127.0.0.1:0") as server,
        echo_packets() as there,
        client(server.port, lambda packets: (at(packets).host, at(packets).port)) as peer,
    ):
        other_port = await udp.bind("127.0.0.1:0")
        await peer.send(encode_datagram(there.host, there.port, b"from another port"), by=other_port)
        await peer.send(encode_datagram(there.host, there.port, b"mine"))
        assert await peer.receive() == (str(there), b"mine")
        await other_port.aclose()


async def test_a_stranger_that_was_sent_nothing_does_not_get_through() -> None:
    async with (
        serve(socks5.server(udp=True), listen="127.0.0.1:0") as server,
        client(server.port) as peer,
    ):
        asked, stranger = await udp.bind("127.0.0.1:0"), await udp.bind("127.0.0.1:0")
        await peer.send(encode_datagram("127.0.0.1", at(asked).port, b"question"))
        _, seen = await asked.receive()
        await stranger.send(b"forged", Target(*seen))
        await asked.send(b"answer", Target(*seen))
        assert await peer.receive() == (str(at(asked)), b"answer")
        await asked.aclose()
        await stranger.aclose()


async def test_the_association_ends_with_its_connection() -> None:
    async with serve(socks5.server(udp=True), listen="127.0.0.1:0") as server, client(server.port) as peer:
        await peer.control.write(b"anything said here is ignored")
        await peer.control.aclose()
        await server.shutdown.drain()
        gone = await udp.connect()(peer.relay)
        await gone.send(b"hi")
        with pytest.raises(ConnectionRefusedError):
            await gone.receive()
        await gone.aclose()


async def test_packets_break_when_the_proxy_ends_the_association() -> None:
    async def proxy(stream: Stream) -> None:
        await converse(
            stream,
            "<< \x05\x01\x00",
            ">> \x05\x00",
            "<< \x05\x03\x00\x01\0\0\0\0\0\0",
            ">> \x05\x00\x00\x01\x7f\0\0\x01\0\x09",
        )

    async with serve(proxy, listen="127.0.0.1:0") as server:
        packets = await socks5.associate(server.address)(Target("192.0.2.1", 53))
        with pytest.raises(UnreachableError, match="the proxy ended the association"):
            await packets.receive()
        with pytest.raises(UnreachableError, match="the proxy ended the association"):
            await packets.send(b"hi")
        await packets.aclose()


async def test_closed_packets_raise_closed() -> None:
    async with serve(socks5.server(udp=True), listen="127.0.0.1:0") as server:
        packets = await socks5.associate(server.address)(None)
        with pytest.raises(ValueError, match="need a target each"):
            await packets.send(b"hi")
        await packets.aclose()
        with pytest.raises(StreamClosedError):
            await packets.receive()


async def test_a_server_without_udp_refuses() -> None:
    async with serve(socks5.server(), listen="127.0.0.1:0") as server:
        with pytest.raises(UnreachableError, match="command not supported"):
            await socks5.associate(server.address)(None)


async def test_a_client_without_an_address_is_refused() -> None:
    server = socks5.server(udp=True, connect=Echoes(), host="127.0.0.1")
    talk = [">> \x05\x01\x00", "<< \x05\x00", ">> \x05\x03\x00\x01\0\0\0\0\0\0"]
    async with testing.connect(server, peer=PeerAddress("unix", 0)) as stream:
        await converse(stream, *talk, "<< \x05\x02\x00\x01\0\0\0\0\0\0", "<<")


async def test_an_association_without_datagrams_ends() -> None:
    async with (
        serve(socks5.server(udp=True, idle_timeout=0.2), listen="127.0.0.1:0") as server,
        echo_packets() as there,
        client(server.port) as peer,
    ):
        await peer.send(encode_datagram(there.host, there.port, b"hi"))
        assert await peer.receive() == (str(there), b"hi")
        await peer.control.write(b"only datagrams keep it open")
        assert await peer.control.read() == b""


async def test_datagrams_keep_an_association_open() -> None:
    async with (
        serve(socks5.server(udp=True, idle_timeout=0.3), listen="127.0.0.1:0") as server,
        echo_packets() as there,
        client(server.port) as peer,
    ):
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.6
        while loop.time() < end:
            await peer.send(encode_datagram(there.host, there.port, b"hi"))
            assert await peer.receive() == (str(there), b"hi")


async def test_the_number_of_associations_is_bounded() -> None:
    async with serve(socks5.server(udp=True, max_associations=1), listen="127.0.0.1:0") as server:
        async with client(server.port):
            with pytest.raises(UnreachableError, match="general SOCKS server failure"):
                await socks5.associate(server.address)(None)
        await server.shutdown.drain()


async def test_the_bound_counts_open_associations_only() -> None:
    ended = asyncio.Event()
    listening = socks5.server(udp=True, max_associations=1)

    async def handler(stream: Stream) -> None:
        await listening(stream)
        ended.set()

    async with serve(handler, listen="127.0.0.1:0") as server:
        for _ in range(3):
            packets = await socks5.associate(server.address)(None)
            await packets.aclose()
            await ended.wait()
            ended.clear()


async def test_an_association_leaves_its_bytes_in_the_extensions() -> None:
    carried: asyncio.Future[udp.Transferred] = asyncio.get_running_loop().create_future()
    listening = socks5.server(udp=True)

    async def handler(stream: Stream) -> None:
        await listening(stream)
        carried.set_result(stream.extensions[udp.Transferred])

    async with serve(handler, listen="127.0.0.1:0") as server, echo_packets() as there:
        packets = await socks5.associate(server.address)(there)
        await packets.send(b"hello")
        await packets.receive()
        await packets.aclose()
        assert await carried == udp.Transferred(5, 5)


def test_a_server_without_associations_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"max_associations=0\): expected at least 1"):
        socks5.server(udp=True, max_associations=0)

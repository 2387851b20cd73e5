"""Packets over UDP sockets on loopback."""

import asyncio
import socket

import pytest

from llama import (
    PeerAddress,
    RefusedError,
    Shutdown,
    StreamBusyError,
    StreamClosedError,
    Target,
    UnreachableError,
    udp,
)
from llama._core.packets import Packets
from llama.tcp._policy.address_filter import require_public, restrict
from llama.testing._stream_suite.helpers import pending, spin
from llama.udp._peer_table import PeerTable


def where(packets: Packets) -> Target:
    assert packets.address is not None
    return Target(*packets.address)


def peer_at(packets: Packets) -> PeerAddress:
    target = where(packets)
    return PeerAddress(target.host, target.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_packets_go_both_ways(host: str) -> None:
    there = await udp.bind((host, 0))
    here = await udp.connect()(where(there))
    await here.send(b"hi")
    data, peer = await there.receive()
    assert (data, peer) == (b"hi", peer_at(here))
    await there.send(b"", Target(*peer))
    assert await here.receive() == (b"", peer_at(there))
    await here.aclose()
    await there.aclose()


async def test_each_packet_may_name_its_own_target() -> None:
    one, two = await udp.bind("127.0.0.1:0"), await udp.bind("[::1]:0")
    here = await udp.connect()(None)
    assert here.address is None
    for each in (one, two):
        await here.send(b"hi", where(each))
        data, peer = await each.receive()
        await each.send(data + b" there", Target(*peer))
        assert await here.receive() == (b"hi there", peer_at(each))
    for packets in (here, one, two):
        await packets.aclose()


@pytest.mark.parametrize("text", ["0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1"])
async def test_another_spelling_of_an_address_matches(text: str) -> None:
    there = await udp.bind("127.0.0.1:0" if "ffff" in text else "[::1]:0")
    here = await udp.connect()(None)
    await here.send(b"hi", Target(text, where(there).port))
    _, peer = await there.receive()
    await there.send(b"there", Target(*peer))
    assert await here.receive() == (b"there", peer_at(there))
    await here.aclose()
    await there.aclose()


async def test_replies_come_only_from_peers_that_were_sent_a_packet() -> None:
    asked, stranger = await udp.bind("127.0.0.1:0"), await udp.bind("127.0.0.1:0")
    here = await udp.connect()(None)
    await here.send(b"hi", where(asked))
    _, peer = await asked.receive()
    await stranger.send(b"me too", Target("127.0.0.1", peer.port))
    await asked.send(b"yes", Target("127.0.0.1", peer.port))
    assert (await here.receive()).data == b"yes"
    for packets in (here, asked, stranger):
        await packets.aclose()


async def test_a_port_can_be_bound_on_every_address() -> None:
    there = await udp.bind(":0")
    assert there.address is not None
    for host in ("127.0.0.1", "::1"):
        here = await udp.connect()(Target(host, there.address.port))
        await here.send(b"hi")
        assert await there.receive() == (b"hi", peer_at(here))
        await here.aclose()
    await there.aclose()


async def test_a_busy_port_is_an_error() -> None:
    there = await udp.bind("127.0.0.1:0")
    with pytest.raises(OSError, match=r"cannot bind a UDP socket to 127\.0\.0\.1 port"):
        await udp.bind(f"127.0.0.1:{where(there).port}")
    await there.aclose()


async def test_a_name_is_resolved_once() -> None:
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    there = await udp.bind("127.0.0.1:0")
    here = await udp.connect(resolver=resolver)(None)
    for number in range(3):
        await here.send(b"%d" % number, Target("a.example", where(there).port))
        assert (await there.receive()).data == b"%d" % number
    assert asked == ["a.example"]
    await here.aclose()
    await there.aclose()


async def test_a_name_is_checked_by_its_resolved_addresses() -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    here = await udp.connect(resolver=resolver)(None)
    with pytest.raises(RefusedError, match="only public addresses"):
        await here.send(b"hi", require_public(Target("a.example", 53)))
    with pytest.raises(RefusedError, match="not that one"):
        await udp.connect()(restrict(Target("localhost", 53), lambda _: False, "not that one"))
    await here.aclose()


async def test_an_unknown_name_is_unreachable() -> None:
    here = await udp.connect()(None)
    with pytest.raises(UnreachableError, match=r"cannot resolve a\.\.example"):
        await here.send(b"hi", Target("a..example", 53))
    await here.aclose()


async def test_one_receiver_at_a_time_and_closing_wakes_it() -> None:
    there = await udp.bind("127.0.0.1:0")
    async with asyncio.TaskGroup() as group:
        waiting = await pending(group, there.receive())
        with pytest.raises(StreamBusyError):
            await there.receive()
        await there.aclose()
    assert isinstance(waiting.result(), StreamClosedError)
    with pytest.raises(StreamClosedError):
        await there.receive()
    with pytest.raises(StreamClosedError):
        await there.send(b"hi", Target("127.0.0.1", 9))
    await there.aclose()


async def test_a_cancelled_receive_loses_nothing() -> None:
    there = await udp.bind("127.0.0.1:0")
    here = await udp.connect()(where(there))
    async with Shutdown() as shutdown:
        task = shutdown.spawn(there.receive())
        await spin()
        await here.send(b"hi")
        task.cancel()
    assert (await there.receive()).data == b"hi"
    await here.aclose()
    await there.aclose()


async def test_a_too_large_packet_is_an_error_and_the_next_one_is_sent() -> None:
    there = await udp.bind("127.0.0.1:0")
    here = await udp.connect()(None)
    with pytest.raises(UnreachableError, match="cannot send 70000 bytes to 127"):
        await here.send(bytes(70000), where(there))
    await here.send(bytes(65000), where(there))
    assert len((await there.receive()).data) == 65000
    await here.aclose()
    await there.aclose()


async def test_a_missing_peer_raises_connection_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        target = Target(*gone.getsockname())
    here = await udp.connect()(target)
    await here.send(b"hi")
    with pytest.raises(ConnectionRefusedError):
        await here.receive()
    await here.aclose()


async def test_a_packet_needs_the_right_target() -> None:
    many = await udp.connect()(None)
    with pytest.raises(ValueError, match="pass a target"):
        await many.send(b"hi")
    one = await udp.connect()(Target("127.0.0.1", 9))
    with pytest.raises(ValueError, match=r"only, not to 127\.0\.0\.1:10"):
        await one.send(b"hi", Target("127.0.0.1", 10))
    await many.aclose()
    await one.aclose()


def test_a_full_table_evicts_the_oldest_entry() -> None:
    table: PeerTable[int, str] = PeerTable(2)
    table.set(1, "one")
    table.set(2, "two")
    table.set(1, "again")
    table.set(3, "three")
    assert (table.get(1), table.get(2), table.get(3)) == ("again", None, "three")
    assert len(table) == 2

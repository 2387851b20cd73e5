"""BIND: one connection comes in at the proxy."""

import socket
from typing import Any

import pytest

from llama import PeerAddress, RefusedError, Stream, Target, UnreachableError, serve, socks5, tcp
from llama.socks5._wire.socks5 import parse_reply
from llama.testing._transcript import converse


async def peer_connects(binding: socks5.Binding, source: str = "127.0.0.1") -> Stream:
    return await tcp.connect(bind=(source, 0))(Target(*binding.address))


async def test_a_peer_comes_in() -> None:
    async with serve(socks5.server(bind=True), listen="127.0.0.1:0") as server:
        binding = await socks5.bind(server.address)(None)
        peer = await peer_connects(binding)
        stream = await binding.accept()
        assert stream.extensions[PeerAddress].host == "127.0.0.1"
        await converse(stream, ">> hello")
        await converse(peer, "<< hello", ">> and you")
        await converse(stream, "<< and you", ">>")
        await converse(peer, "<<", ">>")
        await converse(stream, "<<")
        await stream.aclose()
        await peer.aclose()


async def test_only_the_named_peer_may_connect() -> None:
    async with serve(socks5.server(bind=True), listen="127.0.0.1:0") as server:
        binding = await socks5.bind(server.address)(Target("127.0.0.2", 21))
        stranger = await peer_connects(binding)
        peer = await peer_connects(binding, "127.0.0.2")
        stream = await binding.accept()
        assert stream.extensions[PeerAddress].host == "127.0.0.2"
        assert await stranger.read() == b""
        for each in (stream, peer, stranger):
            await each.aclose()


async def test_a_peer_may_be_named_by_a_name() -> None:
    async with serve(socks5.server(bind=True), listen="127.0.0.1:0") as server:
        binding = await socks5.bind(server.address)(Target("localhost", 21))
        peer = await peer_connects(binding)
        stream = await binding.accept()
        await stream.aclose()
        await peer.aclose()


async def test_a_client_that_disconnects_closes_the_port() -> None:
    async with serve(socks5.server(bind=True), listen="127.0.0.1:0") as server:
        binding = await socks5.bind(server.address)(None)
        await binding.aclose()
        await server.shutdown.drain()
        with pytest.raises(UnreachableError, match="refused"):
            await tcp.connect()(Target(*binding.address))


async def test_early_data_of_a_client_reaches_the_peer() -> None:
    async with serve(socks5.server(bind=True, socks4=True), listen="127.0.0.1:0") as server:
        client = await tcp.connect()(Target("127.0.0.1", server.port))
        await converse(client, ">> \x05\x01\x00", "<< \x05\x00", ">> \x05\x02\x00\x01\0\0\0\0\0\0early")
        found = parse_reply(await client.read())
        assert found is not None
        peer = await tcp.connect()(Target(*found[0].address))
        await converse(peer, "<< early")
        await peer.aclose()
        await client.aclose()


async def test_a_client_that_sends_data_and_disconnects_closes_the_port() -> None:
    async with serve(socks5.server(bind=True), listen="127.0.0.1:0") as server:
        client = await tcp.connect()(Target("127.0.0.1", server.port))
        await converse(client, ">> \x05\x01\x00", "<< \x05\x00", ">> \x05\x02\x00\x01\0\0\0\0\0\0")
        assert (await client.read())[:2] == b"\x05\x00"
        await client.write(b"early")
        await client.aclose()
        await server.shutdown.drain()


async def test_early_bytes_are_bounded() -> None:
    async with serve(socks5.server(bind=True), listen="127.0.0.1:0") as server:
        client = await tcp.connect()(Target("127.0.0.1", server.port))
        await converse(client, ">> \x05\x01\x00", "<< \x05\x00", ">> \x05\x02\x00\x01\0\0\0\0\0\0")
        assert (await client.read())[:2] == b"\x05\x00"
        with pytest.raises(OSError):
            while True:
                await client.write(bytes(65536))
        client.abort()


async def test_by_socks4() -> None:
    async with serve(socks5.server(bind=True, socks4=True), listen="127.0.0.1:0") as server:
        client = await tcp.connect()(Target("127.0.0.1", server.port))
        await client.write(b"\x04\x02\0\0\0\0\0\0\0")
        reply = await client.read()
        assert reply[:2] == b"\0\x5a"
        peer = await tcp.connect()(Target(socket.inet_ntoa(reply[4:8]), int.from_bytes(reply[2:4], "big")))
        assert (await client.read())[:2] == b"\0\x5a"
        await converse(peer, ">> hi")
        await converse(client, "<< hi")
        await peer.aclose()
        await client.aclose()


async def test_rules_hold() -> None:
    async with serve(socks5.server(bind=True, rules=socks5.deny("*:21")), listen="127.0.0.1:0") as server:
        with pytest.raises(RefusedError, match="not allowed"):
            await socks5.bind(server.address)(Target("192.0.2.1", 21))


async def test_a_server_that_does_not_bind() -> None:
    async with serve(socks5.server(), listen="127.0.0.1:0") as server:
        with pytest.raises(UnreachableError, match="command not supported"):
            await socks5.bind(server.address)(None)


async def test_a_chain() -> None:
    async with (
        serve(socks5.server(bind=True), listen="127.0.0.1:0") as far,
        serve(socks5.server(), listen="127.0.0.1:0") as near,
    ):
        binding = await socks5.bind(far.address, connect=socks5.connect(near.address))(None)
        peer = await peer_connects(binding)
        stream = await binding.accept()
        await converse(peer, ">> hi")
        await converse(stream, "<< hi")
        await stream.aclose()
        await peer.aclose()


async def test_the_wait_for_a_peer_is_bounded() -> None:
    async with serve(socks5.server(bind=True, idle_timeout=0.1), listen="127.0.0.1:0") as server:
        binding = await socks5.bind(server.address)(None)
        with pytest.raises(UnreachableError, match="TTL expired"):
            await binding.accept()
        await binding.aclose()
        with pytest.raises(UnreachableError, match="refused"):
            await tcp.connect()(Target(*binding.address))


@pytest.mark.parametrize(
    "settings", [{"private": False}, {"rules": socks5.deny("127.0.0.0/8")}], ids=["private", "rules"]
)
async def test_rules_for_targets_apply_to_peers(settings: dict[str, Any]) -> None:
    async with serve(socks5.server(bind=True, **settings), listen="127.0.0.1:0") as server:
        binding = await socks5.bind(server.address)(None)
        peer = await peer_connects(binding)
        assert await peer.read() == b""
        await peer.aclose()
        await binding.aclose()


@pytest.mark.parametrize("named", ["127.0.0.1", "localhost"])
async def test_a_private_peer_cannot_be_named(named: str) -> None:
    async with serve(socks5.server(bind=True, private=False), listen="127.0.0.1:0") as server:
        with pytest.raises(RefusedError, match="not allowed"):
            await socks5.bind(server.address)(Target(named, 21))

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from llama import (
    Bridge,
    ConfigError,
    PeerAddress,
    Service,
    Stream,
    Target,
    layer,
    serve,
    stack,
    tcp,
    testing,
    unix,
)
from llama.tcp import RelayStats


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def test_every_connection_goes_to_the_target() -> None:
    async with (
        serve(echo, listen="127.0.0.1:0") as origin,
        serve(tcp.forward(origin.address), listen="127.0.0.1:0") as proxy,
    ):
        for text in (b"one", b"two"):
            stream = await tcp.connect()(Target("127.0.0.1", proxy.port))
            await stream.write(text)
            assert await stream.read() == text
            await stream.write_eof()
            assert await stream.read() == b""
            await stream.aclose()


async def test_the_target_may_be_a_unix_socket(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/origin"
    async with serve(echo, listen=path):
        await testing.run_transcript(tcp.forward(path), ">> hi", "<< hi", ">>", "<<")
        connect = unix.connect(f"{tmp_path}/origin")
        await testing.run_transcript(
            tcp.forward("name.example:80", connect=connect), ">> hi", "<< hi", ">>", "<<"
        )


async def test_the_connector_gets_the_target_with_the_clients_extensions() -> None:
    seen: list[Target] = []

    async def connect(target: Target) -> Stream:
        seen.append(target)
        near, far = testing.memory_pair()
        await far.aclose()
        return near

    async with testing.connect(tcp.forward("name.example:8080", connect=connect)) as stream:
        assert await stream.read() == b""
    (target,) = seen
    assert (target.host, target.port) == ("name.example", 8080)
    assert target.extensions[PeerAddress] == PeerAddress("192.0.2.1", 50000)


async def test_a_given_target_keeps_its_extensions() -> None:
    seen: list[Target] = []

    async def connect(target: Target) -> Stream:
        seen.append(target)
        raise ConnectionRefusedError("seen enough")

    mine = Target("name.example", 1)
    mine.extensions.set("mine")
    with pytest.raises(OSError):
        async with testing.connect(tcp.forward(mine, connect=connect)) as stream:
            await stream.read()
    assert seen[0].extensions[str] == "mine" and PeerAddress in seen[0].extensions
    assert PeerAddress not in mine.extensions


async def test_the_relay_gets_the_bridge_and_need_not_open_the_upstream() -> None:
    async def refuse(bridge: Bridge) -> None:
        await bridge.client.write(f"no way to {bridge.target}".encode())

    async def connect(target: Target) -> Stream:
        raise AssertionError("nobody asked for it")

    forward = tcp.forward("name.example:1", connect=connect, relay=refuse)
    await testing.run_transcript(forward, "<< no way to name.example:1", "<<")


async def test_the_upstream_is_opened_once_and_closed_at_the_end() -> None:
    opened: list[Stream] = []

    async def connect(target: Target) -> Stream:
        near, far = testing.memory_pair()
        opened.append(far)
        return near

    async def relay(bridge: Bridge) -> None:
        assert await bridge.upstream() is await bridge.upstream()
        await bridge.client.write(b"done")

    await testing.run_transcript(tcp.forward("h:1", connect=connect, relay=relay), "<< done", "<<")
    (far,) = opened
    assert await far.read() == b""


async def test_a_failing_relay_aborts_the_upstream() -> None:
    near, far = testing.memory_pair()

    async def connect(target: Target) -> Stream:
        return near

    async def relay(bridge: Bridge) -> None:
        await bridge.upstream()
        raise ConnectionResetError("the client is gone")

    async with testing.connect(tcp.forward("h:1", connect=connect, relay=relay)):
        with pytest.raises(ConnectionResetError):
            await far.read()


async def test_an_unreachable_target_is_logged_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{holder.getsockname()[1]}"
        with caplog.at_level(logging.INFO, "llama"):
            async with serve(tcp.forward(target), listen="127.0.0.1:0") as proxy:
                stream = await tcp.connect()(Target("127.0.0.1", proxy.port))
                assert await stream.read() == b""
                await stream.aclose()
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"cannot connect to {target}: Connection refused [tcp.forward({target})]" in line


async def test_an_outer_layer_can_read_the_transferred_bytes() -> None:
    carried: list[RelayStats] = []

    @layer
    async def count(stream: Stream, inner: Service[Stream, None]) -> None:
        await inner(stream)
        carried.append(stream.extensions[RelayStats])

    async with serve(echo, listen="127.0.0.1:0") as origin:
        await testing.run_transcript(
            stack(count, tcp.forward(origin.address)), ">> 12345", "<< 12345", ">>", "<<"
        )
    assert carried == [RelayStats(sent=5, received=5)]


async def test_a_client_that_disconnects_during_the_connect_leaks_nothing() -> None:
    reached = asyncio.Event()

    async def connect(target: Target) -> Stream:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(KeyError):
        async with testing.connect(tcp.forward("h:1", connect=connect)):
            await reached.wait()
            raise KeyError


@pytest.mark.parametrize("address", ["nonsense", ":80", "host:99999", "::1:80"])
def test_an_invalid_address_is_an_error(address: str) -> None:
    with pytest.raises(ConfigError):
        tcp.forward(address)


def test_the_repr_shows_the_target() -> None:
    assert repr(tcp.forward("[::1]:80")) == "tcp.forward([::1]:80)"
    assert repr(tcp.forward("unix:/run/app")) == "tcp.forward(unix:/run/app)"

"""Who gets in: limits and networks."""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network

import pytest

from llama import (
    ConfigError,
    ConnectionHandler,
    PeerAddress,
    Stream,
    Target,
    describe,
    layer,
    serve,
    stack,
    tcp,
    testing,
)
from llama.tcp._policy.networks import Networks


class Guests:
    """A handler that keeps its connections until it is told to let one go."""

    def __init__(self) -> None:
        self.inside: list[asyncio.Event] = []
        self.came = asyncio.Event()

    async def __call__(self, stream: Stream) -> None:
        leave = asyncio.Event()
        self.inside.append(leave)
        self.came.set()
        try:
            await stream.write(b"welcome")
            await leave.wait()
        finally:
            if leave in self.inside:
                self.inside.remove(leave)

    async def arrive(self, count: int) -> None:
        while len(self.inside) < count:
            self.came.clear()
            await self.came.wait()

    def leave(self) -> None:
        self.inside.pop(0).set()


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Stream]:
    stream = await tcp.connect()(Target("127.0.0.1", port))
    try:
        yield stream
    finally:
        stream.abort()


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def hears(handler: ConnectionHandler, peer: PeerAddress | None) -> bool:
    """Whether a client from there is served."""
    async with testing.connect(stack(handler), peer=peer) as stream:
        try:
            await stream.write(b"hi")
            return await stream.read() == b"hi"
        except OSError:
            return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's queue shows in /proc")
async def test_at_the_limit_the_listener_stops_accepting() -> None:
    guests = Guests()
    async with (
        serve(stack(tcp.connection_limit(1), guests), listen="127.0.0.1:0") as server,
        connected(server.port) as first,
    ):
        assert await first.read() == b"welcome"
        async with connected(server.port) as second:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await second.read()
            assert unaccepted(server.port) == 1
            guests.leave()
            assert await second.read() == b"welcome"
            assert unaccepted(server.port) == 0
            guests.leave()
            assert await second.read() == b""


def unaccepted(port: int) -> int:
    """How many connections wait in the kernel's queue."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table.readlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            if state == "0A" and int(local.partition(":")[2], 16) == port:
                return int(queues.partition(":")[2], 16)
    raise AssertionError(f"nobody listens on {port}")


async def test_a_limit_behind_a_plain_function_applies_after_accepting() -> None:
    guests = Guests()
    limited: ConnectionHandler = stack(tcp.connection_limit(1), guests)

    async def opaque(stream: Stream) -> None:
        await limited(stream)

    async with serve(opaque, listen="127.0.0.1:0") as server, connected(server.port) as first:
        assert await first.read() == b"welcome"
        async with connected(server.port) as second:
            reading = asyncio.timeout(0.05)
            with pytest.raises(TimeoutError):
                async with reading:
                    await second.read()
            assert len(guests.inside) == 1
            guests.leave()
            assert await second.read() == b"welcome"
            guests.leave()


async def test_a_limit_inside_other_layers_is_found_and_shared_by_two_listeners() -> None:
    @layer
    async def outer(stream: Stream, inner: ConnectionHandler) -> None:
        await inner(stream)

    guests = Guests()
    handler = stack(outer, tcp.count(tcp.TrafficCounter()), tcp.connection_limit(2), guests)
    one, two = tcp.server("127.0.0.1:0", handler), tcp.server("127.0.0.1:0", handler)
    async with serve(one, two) as server:
        ports = [int(address.rpartition(":")[2]) for address in server.addresses]
        async with connected(ports[0]), connected(ports[1]):
            await guests.arrive(2)
            async with connected(ports[0]) as third, connected(ports[1]) as fourth:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await guests.arrive(3)
                guests.leave()
                guests.leave()
                assert await third.read() == await fourth.read() == b"welcome"
                guests.leave()
                guests.leave()


async def test_a_failing_handler_releases_its_slot() -> None:
    async def broken(stream: Stream) -> None:
        await stream.read()
        raise ConnectionResetError

    async with serve(stack(tcp.connection_limit(1), broken), listen="127.0.0.1:0") as server:
        for _ in range(3):
            async with connected(server.port) as stream:
                await stream.write(b"hi")
                with pytest.raises(ConnectionResetError):
                    await stream.read()


async def test_only_a_peer_over_its_limit_is_refused() -> None:
    guests = Guests()
    handler = tcp.per_peer_limit(1)(guests)
    async with testing.connect(handler, peer=PeerAddress("192.0.2.1", 1)) as first:
        assert await first.read() == b"welcome"
        async with testing.connect(handler, peer=PeerAddress("192.0.2.1", 2)) as again:
            assert await again.read() == b""
        async with testing.connect(handler, peer=PeerAddress("192.0.2.2", 1)) as other:
            assert await other.read() == b"welcome"
            guests.inside.pop().set()
        guests.leave()
    async with testing.connect(handler, peer=PeerAddress("192.0.2.1", 3)) as back:
        assert await back.read() == b"welcome"
        guests.leave()


async def test_the_refusal_names_the_peer_and_its_count(caplog: pytest.LogCaptureFixture) -> None:
    guests = Guests()
    async with (
        serve(stack(tcp.per_peer_limit(1), guests), listen="127.0.0.1:0") as server,
        connected(server.port) as first,
    ):
        await first.read()
        async with connected(server.port) as second:
            assert await second.read() == b""
        guests.leave()
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "127.0.0.1 has 1 connections already [tcp.per_peer_limit(1) > Guests]" in line


@pytest.mark.parametrize(("prefix", "counts_as_one"), [(64, True), (128, False)])
async def test_ipv6_peers_are_counted_by_prefix(prefix: int, counts_as_one: bool) -> None:
    guests = Guests()
    handler = tcp.per_peer_limit(1, ipv6_prefix=prefix)(guests)
    async with testing.connect(handler, peer=PeerAddress("2001:db8::1", 1)) as first:
        await first.read()
        again = testing.connect(handler, peer=PeerAddress("2001:db8::2", 1))
        async with again as second:
            if counts_as_one:
                assert await second.read() == b""
            else:
                assert await second.read() == b"welcome"
                guests.inside.pop().set()
        guests.leave()


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("10.1.2.3", True),
        ("11.0.0.1", False),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8:1::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", True),
        ("::a01:203", False),
        ("unix", True),
        ("not an address", False),
    ],
)
def test_addresses_are_found_in_networks(host: str, inside: bool) -> None:
    networks = Networks(
        ["10.0.0.0/8", IPv4Network("192.0.2.7"), "2001:db8::/32", "fe80::/10", "unix", "172.16.0.0/12"]
    )
    assert (host in networks) is inside
    assert None not in networks


def test_an_ipv4_mapped_network_counts_as_ipv4() -> None:
    assert "10.1.2.3" in Networks(["::ffff:10.0.0.0/104"])
    assert "unix" not in Networks(["0.0.0.0/0", "::/0"])


async def test_allow_serves_only_its_networks() -> None:
    handler = stack(tcp.allow("10.0.0.0/8", "::1"), echo)
    assert await hears(handler, PeerAddress("10.1.2.3", 1))
    assert await hears(handler, PeerAddress("::1", 1))
    assert not await hears(handler, PeerAddress("192.0.2.1", 1))
    assert not await hears(handler, None)
    assert describe(handler) == "tcp.allow(10.0.0.0/8, ::1) > echo"


async def test_deny_serves_all_but_its_networks() -> None:
    handler = stack(tcp.deny("10.0.0.0/8", "unix"), echo)
    assert not await hears(handler, PeerAddress("10.1.2.3", 1))
    assert not await hears(handler, PeerAddress("unix", 0))
    assert await hears(handler, PeerAddress("192.0.2.1", 1))
    assert describe(handler) == "tcp.deny(10.0.0.0/8, unix) > echo"


async def test_a_denied_peer_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serve(stack(tcp.deny("127.0.0.0/8"), echo), listen="127.0.0.1:0") as server,
        connected(server.port) as stream,
    ):
        assert await stream.read() == b""
    (record,) = caplog.records
    assert "127.0.0.1 is not allowed by tcp.deny(127.0.0.0/8)" in record.getMessage()


def test_disabled_layers_return_the_handler_unchanged() -> None:
    off = (
        tcp.connection_limit(None),
        tcp.per_peer_limit(None),
        tcp.idle_timeout(None),
        tcp.lifetime(None),
        tcp.throttle(),
        tcp.deny(),
    )
    assert all(each(echo) is echo for each in off)


def test_invalid_settings_are_errors() -> None:
    with pytest.raises(
        ConfigError, match=r"'10.0.0.1/8' is not a network \(.*host bits.*\): expected one such"
    ):
        tcp.allow("10.0.0.1/8")
    with pytest.raises(ConfigError, match="otherwise it would refuse every client"):
        tcp.allow()
    with pytest.raises(ConfigError, match="at least 1 connection"):
        tcp.connection_limit(0)
    with pytest.raises(ConfigError, match="at least 1 connection"):
        tcp.per_peer_limit(0)
    with pytest.raises(ConfigError, match="1 to 128 bits"):
        tcp.per_peer_limit(1, ipv6_prefix=0)
    for wrong in (tcp.idle_timeout, tcp.lifetime):
        with pytest.raises(ConfigError, match="more than 0 seconds"):
            wrong(0)
    with pytest.raises(ConfigError, match="more than 0 bytes a second"):
        tcp.throttle(download=0)


def test_the_layers_take_connection_handlers_only() -> None:
    with pytest.raises(
        TypeError, match=r"tcp.connection_limit\(5\) gives Stream, tcp.connect\(\) takes Target"
    ):
        stack(tcp.connection_limit(5), tcp.connect())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"tcp\.connection_limit is a layer factory: call it"):
        stack(tcp.connection_limit, echo)  # type: ignore[arg-type]


def test_the_description_of_a_stack_lists_its_layers() -> None:
    handler = stack(
        tcp.connection_limit(9),
        tcp.idle_timeout(3),
        tcp.lifetime(60),
        tcp.throttle(download=5e3, shared=True),
        echo,
    )
    assert describe(handler) == (
        "tcp.connection_limit(9) > tcp.idle_timeout(3) > tcp.lifetime(60) > "
        "tcp.throttle(download=5000, shared=True) > echo"
    )

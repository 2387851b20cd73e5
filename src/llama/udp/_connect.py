"""The UDP packet connector, and binding of UDP packets to an address."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import ClassVar

from llama._core.errors import LlamaError, UnreachableError
from llama._core.packets import PacketConnector, Packets
from llama._core.server import PeerAddress
from llama._core.stack import layer_factory
from llama._core.target import Target, split_address
from llama.layers._peer_key import packed_address
from llama.tcp._connect import Resolver
from llama.tcp._connect import resolve as system_resolver
from llama.tcp._policy.address_filter import filter_addresses
from llama.udp._packets import UdpPackets
from llama.udp._peer_table import PeerTable

MAX_NAMES = 256  # resolved names that are cached for packets with a target each
NAME_TTL = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class _Names:
    """Resolves targets, and caches the addresses for a minute."""

    resolver: Resolver
    known: PeerTable[str, tuple[float, tuple[str, ...]]] = field(
        default_factory=lambda: PeerTable[str, tuple[float, tuple[str, ...]]](MAX_NAMES)
    )

    async def __call__(self, target: Target) -> PeerAddress:
        if packed_address(target.host) is not None:
            return PeerAddress(_plain(filter_addresses(target, (target.host,))[0]), target.port)
        addresses = filter_addresses(target, await self._addresses(target))
        if not addresses:
            raise UnreachableError(f"cannot resolve {target.host}: it has no address")
        return PeerAddress(_plain(addresses[0]), target.port)

    async def _addresses(self, target: Target) -> tuple[str, ...]:
        now = asyncio.get_running_loop().time()
        found = self.known.get(target.host)
        if found is None or found[0] < now:
            try:
                found = (now + NAME_TTL, tuple(await self.resolver(target.host, target.port)))
            except LlamaError:
                raise
            except OSError as error:
                raise UnreachableError(f"cannot resolve {target.host}: {error.strerror or error}") from error
            self.known.set(target.host, found)
        return found[1]


def _plain(address: str) -> str:
    """Return an address in the system's spelling, so that it compares equal to the source of a reply."""
    raw = packed_address(address)
    if raw is None or "%" in address:
        return address
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class UdpConnect:
    """Opens packets over UDP."""

    resolver: Resolver

    def __repr__(self) -> str:
        return "udp.connect()"

    __input_type__: ClassVar[type] = Target

    async def __call__(self, target: Target | None, /) -> Packets:
        names = _Names(self.resolver)
        if target is None:
            return UdpPackets(names)
        peer = await names(target)
        packets = UdpPackets(names, peer=peer)
        sock = socket.socket(socket.AF_INET6 if ":" in peer.host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.connect(peer)
            packets.add(sock)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise UnreachableError(f"cannot connect to {target}: {error.strerror}") from error
            raise
        return packets


@layer_factory("udp.connect", "packet connector")
def connect(*, resolver: Resolver | None = None) -> PacketConnector:
    """Open packets over UDP, to and from one target or, called with None, to the target that each send names.

    Without a fixed target, datagrams are received only from the last 1024 addresses that one was sent to. The
    addresses of a name are cached for a minute, and the first one is used; `resolver` replaces the system's.
    Raises UnreachableError, or RefusedError for a target that its own filter does not allow.

        packets = await udp.connect()(Target("192.0.2.1", 53))
        await packets.send(question)
        answer = await packets.receive()
    """
    return UdpConnect(resolver or system_resolver)


async def bind(address: str | tuple[str, int], *, resolver: Resolver | None = None) -> Packets:
    """Return packets at a local address, from any sender: `HOST:PORT`, or `:PORT` for all addresses.

    Port 0 takes a free one: see `Packets.address`. Raises OSError that names the address.
    """
    host, port = split_address(address) if isinstance(address, str) else address
    packets = UdpPackets(_Names(resolver or system_resolver), accept_any_peer=True)
    try:
        for family, name in await _addresses(host, port):
            packets.add(_bind(family, (name, packets.address.port if packets.address else port)))
    except BaseException:
        packets.abort()
        raise
    return packets


async def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    if not host:
        both = [(int(socket.AF_INET), "0.0.0.0")]
        return [*both, (int(socket.AF_INET6), "::")] if socket.has_dualstack_ipv6() else both
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot bind a UDP socket to {host}: {error.strerror}") from None
    return list({int(each[0]): str(each[4][0]) for each in found}.items())


def _bind(family: int, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        where = f"{address[0]} port {address[1]}"
        raise OSError(error.errno, f"cannot bind a UDP socket to {where}: {error.strerror}") from None
    return sock

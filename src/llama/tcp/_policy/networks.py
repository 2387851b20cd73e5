"""Access control by the client's network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import ClassVar, TypeAlias

from llama._core.errors import ConfigError, RefusedError
from llama._core.service import Middleware
from llama._core.stack import layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.layers._peer_key import packed_address, peer_host
from llama.tcp._middleware.base import connection_middleware, noop_layer

Network: TypeAlias = str | IPv4Network | IPv6Network
"""`192.0.2.0/24`, `2001:db8::/32`, a single address, or `unix` for clients of a Unix socket."""

UNIX = "unix"
_MAPPED = IPv6Network("::ffff:0:0/96")


class Networks:
    """A set of networks with fast look-up, however many; an IPv4-mapped IPv6 address counts as IPv4."""

    __slots__ = ("_starts", "_unix", "names")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._starts: dict[tuple[int, int], set[int]] = {}
        self._unix = False
        self.names: list[str] = []
        for each in networks:
            self._add(each)

    def _add(self, network: Network) -> None:
        self.names.append(str(network))
        if network == UNIX:
            self._unix = True
            return
        parsed = _parse(network)
        size = parsed.max_prefixlen
        shift = size - parsed.prefixlen
        self._starts.setdefault((size // 8, shift), set()).add(int(parsed.network_address) >> shift)

    def __contains__(self, host: str | None) -> bool:
        if host is None:
            return False
        address = packed_address(host)
        if address is None:
            return self._unix and host == UNIX
        number, size = int.from_bytes(address, "big"), len(address)
        return any(
            family == size and number >> shift in starts for (family, shift), starts in self._starts.items()
        )

    def __str__(self) -> str:
        return ", ".join(self.names)


def _parse(network: str | IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    try:
        parsed = ip_network(network) if isinstance(network, str) else network
    except ValueError as error:
        raise ConfigError(
            f"{network!r} is not a network ({error}): expected one such as 192.0.2.0/24, an address, or unix"
        ) from None
    if isinstance(parsed, IPv6Network) and parsed.subnet_of(_MAPPED):
        start = int(parsed.network_address) & 0xFFFFFFFF
        return IPv4Network((start, parsed.prefixlen - 96))
    return parsed


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class NetworkFilter:
    """Accepts or refuses connections by their peer's address."""

    inner: ConnectionHandler
    networks: Networks
    allows: bool

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return _spec(self.networks, allows=self.allows)

    async def __call__(self, stream: Stream, /) -> None:
        host = peer_host(stream)
        if (host in self.networks) is not self.allows:
            raise RefusedError(f"{host or 'a peer without an address'} is not allowed by {self!r}")
        await self.inner(stream)


@layer_factory("tcp.allow")
def allow(*networks: Network) -> Middleware[Stream, None]:
    """Serve only peers from these networks; connections of others are reset, with Refused.

    A network is `192.0.2.0/24`, `2001:db8::/32`, a single address, or `unix` for Unix sockets. An IPv4-mapped
    IPv6 address counts as IPv4. Raises ConfigError for an invalid network.

        stack(tcp.allow("10.0.0.0/8", "::1"), tcp.forward("127.0.0.1:8080"))
    """
    if not networks:
        raise ConfigError(
            "tcp.allow(): expected at least one network, otherwise it would refuse every client"
        )
    return _network_filter(networks, allows=True)


@layer_factory("tcp.deny")
def deny(*networks: Network) -> Middleware[Stream, None]:
    """Reset connections of peers from these networks, with RefusedError; the syntax is that of `tcp.allow`.

    stack(tcp.deny("203.0.113.0/24"), tcp.forward("127.0.0.1:8080"))
    """
    return _network_filter(networks, allows=False)


def _network_filter(networks: tuple[Network, ...], *, allows: bool) -> Middleware[Stream, None]:
    if not networks:
        return noop_layer("tcp.deny()")
    within = Networks(networks)
    return connection_middleware(
        _spec(within, allows=allows), lambda inner: NetworkFilter(inner, within, allows)
    )


def _spec(networks: Networks, *, allows: bool) -> str:
    return f"tcp.{'allow' if allows else 'deny'}({networks})"

"""Restriction of targets, which keeps clients of a proxy from its own machine and private networks (SSRF)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from llama._core.errors import RefusedError
from llama._core.extensions import Extensions
from llama._core.server import LocalAddress, PeerAddress
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.layers._hostname import normalized_host
from llama.layers._peer_key import packed_address
from llama.tcp._addresses import local_address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, eq=False)
class AddressFilter:
    """A filter of resolved addresses, in a target's extensions.

    `allows` gets an address without brackets or scope. Connectors that resolve names, such as `tcp.connect` and
    `udp.connect`, drop the addresses that are not allowed, and raise RefusedError if none remains.
    """

    allows: Callable[[str], bool]
    reason: str

    def refusal(self, target: Target) -> RefusedError:
        """Return the error for a target without an allowed address."""
        return RefusedError(f"{target} is not allowed: {self.reason}")


def restrict(target: Target, allows: Callable[[str], bool], reason: str) -> Target:
    """Return a copy of a target with one more filter; raises RefusedError for an address that is not allowed."""
    copy = Target(target.host, target.port, target.extensions.fork())
    add_filter(copy, allows, reason)
    return copy


def add_filter(target: Target, allows: Callable[[str], bool], reason: str) -> None:
    """Add a filter to a target's extensions; raises RefusedError for an address that is not allowed."""
    earlier = target.extensions.get(AddressFilter)
    only = AddressFilter(_both(earlier.allows, allows) if earlier else allows, reason)
    if packed_address(target.host) is not None and not allows(target.host):
        raise only.refusal(target)
    target.extensions.set(only)


def filter_addresses(target: Target, addresses: Sequence[str]) -> Sequence[str]:
    """Return the addresses that the target's filter allows; raises RefusedError if there are none."""
    only = target.extensions.get(AddressFilter)
    if only is None or not addresses:
        return addresses
    found = [each for each in addresses if only.allows(each)]
    if not found:
        raise only.refusal(target)
    return found


def _both(one: Callable[[str], bool], two: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda address: one(address) and two(address)


@lru_cache(4096)
def is_public(host: str) -> bool:
    """Whether an address is public: not loopback, private, link-local or reserved.

    An IPv4 address embedded in IPv6 (mapped, 6to4, Teredo, NAT64) must be public too. False for a name.
    """
    raw = packed_address(host)
    if raw is None:
        return False
    address = ipaddress.ip_address(raw)
    return _is_public(address) and all(map(_is_public, _embedded(address)))


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (address.is_global or address in _NAT64) and not address.is_multicast


def _embedded(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(address.packed[12:]))
    return [each for each in found if each is not None]


def require_public(target: Target) -> Target:
    """Return a copy of a target restricted to public addresses; raises RefusedError for any other address."""
    name = target.host if target.host.startswith("unix:") else normalized_host(target.host)
    reason = "only public addresses may be reached from here"
    if name == "localhost" or name.endswith(".localhost") or name.startswith("unix:"):
        raise RefusedError(f"{target} is not allowed: {reason}")
    return restrict(target, is_public, reason)


def restrict_for_client(target: Target, client: Extensions, private: bool | None) -> Target:
    """Apply the address restriction to a target that a client requests.

    `private` permits loopback, private and other addresses that are not public; None permits them to clients
    that connected to a loopback address or a Unix socket, which are on this machine. Raises Refused.
    """
    if private is None:
        private = arrived_on_loopback(client)
    return target if private else require_public(target)


def arrived_on_loopback(client: Extensions) -> bool:
    """Whether a client connected to a loopback address or a Unix socket; False if unknown."""
    local = local_address(client)
    if local is None:
        return False
    return not local.port if (found := _is_loopback(local.host)) is None else found


@lru_cache(4096)
def _is_loopback(host: str) -> bool | None:
    raw = packed_address(host)
    return None if raw is None else ipaddress.ip_address(raw).is_loopback


def proxy_hop(proxy: Target, target: Target) -> Target:
    """Return the target for a connection to the proxy that connects to `target`.

    It has the client's addresses, but not the other extensions, which apply to `target` only.
    """
    extensions = proxy.extensions.fork()
    for kind in (PeerAddress, LocalAddress):
        if (value := target.extensions.get(kind)) is not None:
            extensions.set(value)
    return Target(proxy.host, proxy.port, extensions)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class PublicOnly:
    """Connects to public addresses only."""

    inner: Connector

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "tcp.public_only()"

    async def __call__(self, target: Target, /) -> Stream:
        return await self.inner(require_public(target))


@layer_factory("tcp.public_only")
def public_only() -> Middleware[Target, Stream]:
    """Refuse targets that are not public: loopback, private, link-local and reserved addresses.

    A name is checked by the addresses that it resolves to, if the inner connector resolves it, as `tcp.connect`
    does; a connector that sends the name to a proxy leaves the check to that proxy. Raises Refused.

        stack(tcp.public_only(), tcp.connect())
    """
    return named_layer("tcp.public_only()", PublicOnly, input_type=Target, inner_type=Target)

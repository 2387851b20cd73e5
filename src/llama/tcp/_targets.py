"""Which targets may be reached: what keeps a proxy from being a door to the machine it runs on."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from llama._errors import Refused
from llama._extensions import Extensions
from llama._server import Local, Peer
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama._stream import Stream
from llama._target import Connector, Target
from llama.layers._hostname import normalized_host
from llama.layers._peer_key import packed
from llama.tcp._addresses import local_address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, eq=False)
class AddressFilter:
    """In a target's extensions: the addresses that it may turn out to be, asked once its name is resolved.

    `allows` gets an address without brackets or scope. What resolves names itself, as `tcp.connect` and
    `udp.connect` do, drops the addresses that are not allowed, and raises Refused where none is left.
    """

    allows: Callable[[str], bool]
    reason: str

    def refusal(self, target: Target) -> Refused:
        """The error for a target none of whose addresses is allowed."""
        return Refused(f"{target} is not allowed: {self.reason}")


def restrict(target: Target, allows: Callable[[str], bool], reason: str) -> Target:
    """A copy of a target, which is narrowed by one more filter; Refused for an address that is not allowed."""
    copy = Target(target.host, target.port, target.extensions.fork())
    narrow(copy, allows, reason)
    return copy


def narrow(target: Target, allows: Callable[[str], bool], reason: str) -> None:
    """Put one more filter into a target's extensions; Refused for an address that is not allowed."""
    earlier = target.extensions.get(AddressFilter)
    only = AddressFilter(_both(earlier.allows, allows) if earlier else allows, reason)
    if packed(target.host) is not None and not allows(target.host):
        raise only.refusal(target)
    target.extensions.set(only)


def allowed(target: Target, addresses: Sequence[str]) -> Sequence[str]:
    """Those of a target's addresses that its filter allows; Refused where it drops all of them."""
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
    """Whether an address is one of the public internet's: not loopback, private, link-local or reserved.

    An IPv4 address within IPv6 (mapped, 6to4, Teredo, NAT64) counts too. A name is none.
    """
    raw = packed(host)
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


def only_public(target: Target) -> Target:
    """A copy of a target that reaches public addresses only; Refused at once where that can be told."""
    name = target.host if target.host.startswith("unix:") else normalized_host(target.host)
    reason = "only public addresses may be reached from here"
    if name == "localhost" or name.endswith(".localhost") or name.startswith("unix:"):
        raise Refused(f"{target} is not allowed: {reason}")
    return restrict(target, is_public, reason)


def guard(target: Target, client: Extensions, private: bool | None) -> Target:
    """What a proxy does to a target that its client names.

    `private` tells whether loopback, private and other addresses that are not public may be reached: None
    means that clients may who came in by a loopback address or a Unix socket, which are on this machine
    themselves. Raises Refused.
    """
    if private is None:
        private = came_by_loopback(client)
    return target if private else only_public(target)


def came_by_loopback(client: Extensions) -> bool:
    """Whether a client came in at a loopback address or a Unix socket; False where that is not known."""
    local = local_address(client)
    if local is None:
        return False
    return not local.port if (found := _is_loopback(local.host)) is None else found


@lru_cache(4096)
def _is_loopback(host: str) -> bool | None:
    raw = packed(host)
    return None if raw is None else ipaddress.ip_address(raw).is_loopback


def hop(proxy: Target, target: Target) -> Target:
    """The way to a proxy that is to reach `target`.

    What the target's extensions ask for is for the target alone; of the client, its addresses are told.
    """
    extensions = proxy.extensions.fork()
    for kind in (Peer, Local):
        if (value := target.extensions.get(kind)) is not None:
            extensions.set(value)
    return Target(proxy.host, proxy.port, extensions)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class PublicOnly:
    """Reaches public addresses only."""

    inner: Connector

    __takes__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return "tcp.public_only()"

    async def __call__(self, target: Target, /) -> Stream:
        return await self.inner(only_public(target))


@factory("tcp.public_only")
def public_only() -> Middleware[Target, Stream]:
    """Refuse targets that are not on the public internet: loopback, private, link-local, reserved addresses.

    A name is judged by what it resolves to, where the connector within resolves it, as `tcp.connect` does;
    a proxy that is handed the name has to see to it itself. Raises Refused.

        stack(tcp.public_only(), tcp.connect())
    """
    return named_layer("tcp.public_only()", PublicOnly, takes=Target, gives=Target)

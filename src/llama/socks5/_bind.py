"""BIND through a proxy: accepts one connection at the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._core.server import LocalAddress, PeerAddress
from llama._core.service import Service
from llama._core.stack import layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.layers._peer_key import packed_address
from llama.socks5._client_handshake import ProxyClient, proxy_client
from llama.socks5._wire.address import Address
from llama.socks5._wire.socks5 import Command


class Binding:
    """A port at a proxy that accepts one connection. The caller closes it, or the stream that it returned."""

    __slots__ = ("_proxy", "_stream", "_target", "address")

    def __init__(self, proxy: ProxyClient, stream: Stream, target: Target, address: Address) -> None:
        self._proxy = proxy
        self._stream = stream
        self._target = target
        self.address = LocalAddress(*reachable_address(address, proxy.target))
        """The address that the peer must connect to."""

    async def accept(self) -> Stream:
        """Wait for the peer and return its stream, with its address as Peer in the extensions.

        Raises UnreachableError or RefusedError if the proxy reports a failure.
        """
        async with self._proxy.keep_open(self._stream, self._target):
            peer = await self._proxy.reply(self._stream, self._target)
        self._stream.extensions.set(PeerAddress(*peer))
        return self._stream

    async def aclose(self) -> None:
        """Close the port or the stream."""
        await self._stream.aclose()

    def abort(self) -> None:
        """Abort the connection to the proxy, which closes the port."""
        self._stream.abort()


Binder: TypeAlias = Service[Target | None, Binding]
"""Opens a port for a peer, or with None for the first peer that connects."""


def reachable_address(address: Address, proxy: Target) -> Address:
    """Return the reachable form of a proxy's bound address: the proxy's host replaces 0.0.0.0 and ::."""
    raw = packed_address(address.host)
    return address if raw is None or any(raw) else Address(proxy.host, address.port)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Socks5Bind:
    """Opens ports at a SOCKS5 proxy."""

    proxy: ProxyClient

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return f"socks5.bind({self.proxy.target})"

    async def __call__(self, target: Target | None, /) -> Binding:
        peer = target or Target("0.0.0.0", 0)
        async with self.proxy.open(peer) as stream:
            address = await self.proxy.request(stream, Command.BIND, peer)
        return Binding(self.proxy, stream, peer, address)


@layer_factory("socks5.bind", "binder")
def bind(
    proxy: str | Target,
    *,
    user: str | None = None,
    password: str | None = None,
    connect: Connector | None = None,
    handshake_timeout: float | None = None,
) -> Binder:
    """Accept one connection at a SOCKS5 proxy; the parameters are those of `socks5.connect`.

    Call it with the peer's Target (some proxies accept only that peer), or with None for any peer.

        binding = await socks5.bind("127.0.0.1:1080")(Target("192.0.2.1", 21))
        tell_the_peer(binding.address)
        stream = await binding.accept()
    """
    return Socks5Bind(proxy_client("socks5.bind", proxy, user, password, connect, handshake_timeout))

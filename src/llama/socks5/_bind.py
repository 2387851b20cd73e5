"""BIND through a proxy: accepts one connection at the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._core.server import Local, Peer
from llama._core.service import Service
from llama._core.stack import factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.layers._peer_key import packed
from llama.socks5._client_handshake import Proxy, proxy_of
from llama.socks5._wire.address import Address
from llama.socks5._wire.socks5 import Command


class Binding:
    """A port at a proxy that accepts one connection. The caller closes it, or the stream that it returned."""

    __slots__ = ("_proxy", "_stream", "_target", "address")

    def __init__(self, proxy: Proxy, stream: Stream, target: Target, address: Address) -> None:
        self._proxy = proxy
        self._stream = stream
        self._target = target
        self.address = Local(*seen_from_here(address, proxy.target))
        """The address that the peer must connect to."""

    async def accept(self) -> Stream:
        """Wait for the peer and return its stream, with its address as Peer in the extensions.

        Raises Unreachable or Refused if the proxy reports a failure.
        """
        async with self._proxy.kept(self._stream, self._target):
            peer = await self._proxy.reply(self._stream, self._target)
        self._stream.extensions.set(Peer(*peer))
        return self._stream

    async def aclose(self) -> None:
        """Close the port or the stream."""
        await self._stream.aclose()

    def abort(self) -> None:
        """Abort the connection to the proxy, which closes the port."""
        self._stream.abort()


Binder: TypeAlias = Service[Target | None, Binding]
"""Opens a port for a peer, or with None for the first peer that connects."""


def seen_from_here(address: Address, proxy: Target) -> Address:
    """Return the reachable form of a proxy's bound address: the proxy's host replaces 0.0.0.0 and ::."""
    raw = packed(address.host)
    return address if raw is None or any(raw) else Address(proxy.host, address.port)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Socks5Bind:
    """Opens ports at a SOCKS5 proxy."""

    proxy: Proxy

    __takes__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return f"socks5.bind({self.proxy.target})"

    async def __call__(self, target: Target | None, /) -> Binding:
        peer = target or Target("0.0.0.0", 0)
        async with self.proxy.opened(peer) as stream:
            address = await self.proxy.request(stream, Command.BIND, peer)
        return Binding(self.proxy, stream, peer, address)


@factory("socks5.bind", "binder")
def bind(
    proxy: str | Target,
    *,
    user: str | None = None,
    password: str | None = None,
    over: Connector | None = None,
    handshake_timeout: float | None = None,
) -> Binder:
    """Accept one connection at a SOCKS5 proxy; the parameters are those of `socks5.connect`.

    Call it with the peer's Target (some proxies accept only that peer), or with None for any peer.

        binding = await socks5.bind("127.0.0.1:1080")(Target("192.0.2.1", 21))
        tell_the_peer(binding.address)
        stream = await binding.accept()
    """
    return Socks5Bind(proxy_of("socks5.bind", proxy, user, password, over, handshake_timeout))

"""BIND through a proxy: a connection that comes in there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from llama._server import Local, Peer
from llama._service import Service
from llama._stack import factory
from llama._stream import Stream
from llama._target import Connector, Target
from llama.layers._peer_key import packed
from llama.socks5._address_wire import Address
from llama.socks5._proxy import Proxy, proxy_of
from llama.socks5._wire import Command


class Binding:
    """A port at a proxy, which takes one connection; whoever has it closes it, or the stream it gave."""

    __slots__ = ("_proxy", "_stream", "_target", "address")

    def __init__(self, proxy: Proxy, stream: Stream, target: Target, address: Address) -> None:
        self._proxy = proxy
        self._stream = stream
        self._target = target
        self.address = Local(*seen_from_here(address, proxy.target))
        """What the peer is to connect to."""

    async def accept(self) -> Stream:
        """Wait for the peer: the stream to it, with its address as Peer in the extensions.

        Raises Unreachable or Refused when the proxy gives up.
        """
        async with self._proxy.kept(self._stream, self._target):
            peer = await self._proxy.reply(self._stream, self._target)
        self._stream.extensions.set(Peer(*peer))
        return self._stream

    async def aclose(self) -> None:
        """Give the port up, or end the stream."""
        await self._stream.aclose()

    def abort(self) -> None:
        """Give the port up at once."""
        self._stream.abort()


Binder: TypeAlias = Service[Target | None, Binding]
"""Opens a port for a peer, or, given None, for whoever connects first."""


def seen_from_here(address: Address, proxy: Target) -> Address:
    """Where a proxy's own address is reached: 0.0.0.0 and :: stand for the host it is known by."""
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
    """Have a SOCKS5 proxy take one connection in; the settings are those of `socks5.connect`.

    Called with the peer's Target (some proxies let nobody else in), or with None for anybody.

        binding = await socks5.bind("127.0.0.1:1080")(Target("192.0.2.1", 21))
        tell_the_peer(binding.address)
        stream = await binding.accept()
    """
    return Socks5Bind(proxy_of("socks5.bind", proxy, user, password, over, handshake_timeout))

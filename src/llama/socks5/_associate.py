"""UDP through a proxy: packets with SOCKS headers, while the control connection to the proxy is open."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import LlamaError, ProtocolError, StreamClosedError, UnreachableError
from llama._core.packets import Packet, PacketConnector, Packets
from llama._core.server import LocalAddress, PeerAddress
from llama._core.shutdown import Shutdown
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import Buffer, Stream
from llama._core.target import Connector, Target
from llama.layers._peer_key import packed_address
from llama.socks5._bind import reachable_address
from llama.socks5._client_handshake import ProxyClient, proxy_client
from llama.socks5._wire.socks5 import Command, encode_datagram, parse_datagram
from llama.udp import connect as udp_connect


class SocksPackets(Packets):
    """Packets through a proxy; it owns the control connection and the packets to the proxy's relay."""

    __slots__ = ("_control", "_failed", "_relay", "_target", "_task")

    def __init__(self, control: Stream, relay: Packets, target: Target | None) -> None:
        super().__init__()
        self._control = control
        self._relay = relay
        self._target = target
        self._failed: Exception | None = None
        self._task: asyncio.Task[None] = Shutdown.current().spawn(self._watch(), name=repr(self))

    def __repr__(self) -> str:
        return f"<packets through a proxy to {self._target or 'anywhere'}>"

    @property
    def address(self) -> LocalAddress | None:
        return None

    async def _watch(self) -> None:
        """Wait for the end of the control connection, which ends the association."""
        reason = "the proxy ended the association"
        try:
            while await self._control.read():
                pass
        except StreamClosedError:
            return
        except (LlamaError, OSError) as error:
            reason = f"{reason}: {error}"
        self._failed = UnreachableError(reason)
        self._relay.abort()
        self._control.abort()

    async def receive(self) -> Packet:
        while True:
            try:
                data, _ = await self._relay.receive()
            except StreamClosedError:
                raise self._failed or StreamClosedError(f"{self!r} are closed") from None
            try:
                datagram = parse_datagram(data)
            except ProtocolError:
                continue
            peer = PeerAddress(*datagram.address)
            if not datagram.fragment and self._expected(peer):
                return Packet(datagram.data, peer)

    def _expected(self, peer: PeerAddress) -> bool:
        target = self._target
        if target is None:
            return True
        raw = packed_address(target.host)
        return peer.port == target.port and (raw is None or raw == packed_address(peer.host))

    async def send(self, data: Buffer, to: Target | None = None) -> None:
        target = self._target
        if to is not None and target is not None and to != target:
            raise ValueError(f"{self!r} go to {target} only, not to {to}")
        target = target or to
        if target is None:
            raise ValueError(f"{self!r} need a target each")
        try:
            message = encode_datagram(target.host, target.port, bytes(data))
        except ValueError as error:
            raise UnreachableError(f"cannot send to {target}: {error}") from None
        try:
            await self._relay.send(message)
        except StreamClosedError:
            raise self._failed or StreamClosedError(f"{self!r} are closed") from None

    async def aclose(self) -> None:
        await self._relay.aclose()
        await self._control.aclose()
        self._task.cancel()

    def abort(self) -> None:
        self._relay.abort()
        self._control.abort()
        self._task.cancel()


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Socks5Associate:
    """A packet connector through a SOCKS5 proxy."""

    proxy: ProxyClient
    packets: PacketConnector

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return f"socks5.associate({self.proxy.target})"

    async def __call__(self, target: Target | None, /) -> Packets:
        # The source address of the packets is not known yet, and NAT may change it on the way.
        here = Target("0.0.0.0", 0)
        async with self.proxy.open(target or here) as control:
            address = await self.proxy.request(control, Command.UDP_ASSOCIATE, here)
            relay = await self.packets(Target(*reachable_address(address, self.proxy.target)))
        return SocksPackets(control, relay, target)


@layer_factory("socks5.associate", "packet connector")
def associate(
    proxy: str | Target,
    *,
    user: str | None = None,
    password: str | None = None,
    connect: Connector | None = None,
    packets: PacketConnector | None = None,
    handshake_timeout: float | None = None,
) -> PacketConnector:
    """Send and receive packets with a SOCKS5 proxy's UDP ASSOCIATE; the parameters are those of `socks5.connect`.

    Call the connector with a Target to exchange packets with it, or with None to give a target with each packet. The
    proxy resolves names. `packets` carries the packets to the proxy, by default `udp.connect()`: in a chain, pass
    `associate` for the previous proxy, because `connect` carries only the control connection. When the proxy closes
    that, `receive` and `send` raise Unreachable.

        packets = await socks5.associate("127.0.0.1:1080")(Target("dns.example", 53))
    """
    made = proxy_client("socks5.associate", proxy, user, password, connect, handshake_timeout)
    opener = packets or udp_connect()
    check_accepts(opener, Target, "socks5.associate(packets=)")
    return Socks5Associate(made, opener)

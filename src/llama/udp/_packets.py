"""Packets over UDP sockets, read and written without an asyncio transport."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from llama._core.errors import StreamBusyError, StreamClosedError, UnreachableError
from llama._core.packets import Packet, Packets
from llama._core.server import LocalAddress, PeerAddress
from llama._core.stream import Buffer
from llama._core.target import Target
from llama.tcp._io.readiness import Port
from llama.udp._peer_table import PeerTable

MAX_DATAGRAM = 65535
MAX_PEERS = 1024  # recent peers from which an unconnected socket accepts datagrams

Resolve = Callable[[Target], Awaitable[PeerAddress]]
"""Resolves a target to an address; raises UnreachableError or Refused."""


class Transferred(NamedTuple):
    """The payload bytes of a UDP association: `sent` by the client, `received` for it."""

    sent: int
    received: int


class UdpPackets(Packets):
    """Packets over one socket for each address family, which this object owns and closes.

    With a `peer`, the sockets are connected to it. Otherwise datagrams are received only from peers that one was
    sent to or, with `accept_any_peer`, from any sender; the socket of a family is opened when it is needed.
    """

    __slots__ = ("_closed", "_open", "_peer", "_peers", "_ports", "_resolve", "_sending", "_waiter")

    def __init__(
        self, resolve: Resolve, *, peer: PeerAddress | None = None, accept_any_peer: bool = False
    ) -> None:
        super().__init__()
        self._resolve = resolve
        self._peer = peer
        self._peers: PeerTable[tuple[str, int], None] | None = (
            None if peer or accept_any_peer else PeerTable(MAX_PEERS)
        )
        self._open: dict[int, socket.socket] = {}
        self._ports: dict[int, Port] = {}
        self._closed = self._sending = False
        self._waiter: asyncio.Future[None] | None = None

    def add(self, sock: socket.socket) -> None:
        """Take over a socket."""
        sock.setblocking(False)
        port = Port(sock.fileno())
        self._open[sock.family] = sock
        self._ports[sock.family] = port
        port.on_readable(self._wake)

    @property
    def address(self) -> LocalAddress | None:
        for sock in self._open.values():
            name = sock.getsockname()
            return LocalAddress(str(name[0]), int(name[1]))
        return None

    def __repr__(self) -> str:
        return f"<packets at {self.address or 'no address yet'}>"

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Packet:
        if self._waiter is not None:
            raise StreamBusyError(f"{self!r} is receiving already: one receiver at a time")
        while True:
            if self._closed:
                raise self._closed_error()
            packet = self._receive_now()
            if packet is not None:
                return packet
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _receive_now(self) -> Packet | None:
        for family, port in self._ports.items():
            while port.readable:
                try:
                    data, name = self._open[family].recvfrom(MAX_DATAGRAM)
                except BlockingIOError:
                    port.clear_readable()
                    break
                except ConnectionError:  # an ICMP error for a datagram that was sent earlier
                    if self._peer is not None:
                        raise
                    continue
                peer = PeerAddress(str(name[0]), int(name[1]))
                if self._peers is None or peer in self._peers:
                    return Packet(data, peer)
        return None

    async def send(self, data: Buffer, to: Target | None = None) -> None:
        if self._closed:
            raise self._closed_error()
        peer = self._peer
        if to is not None and (peer is None or (to.host, to.port) != peer):
            if peer is not None:
                raise ValueError(f"{self!r} sends to {peer} only, not to {to}")
            peer = await self._resolve(to)
        if peer is None:
            raise ValueError(f"{self!r} has no fixed peer: pass a target with each packet")
        family = socket.AF_INET6 if ":" in peer.host else socket.AF_INET
        if family not in self._open:
            self._add_family(family, peer)
        if self._peers is not None:
            self._peers.set(peer, None)
        await self._send(family, data, peer)

    def _add_family(self, family: int, peer: PeerAddress) -> None:
        if self._closed:
            raise self._closed_error()
        if self._open and self._peers is None:
            raise UnreachableError(f"cannot send to {peer} from {self.address}") from OSError(
                errno.EAFNOSUPPORT, "no socket of this address family"
            )
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
        except OSError as error:
            raise UnreachableError(f"cannot send to {peer}: {error.strerror}") from error
        self.add(sock)

    async def _send(self, family: int, data: Buffer, peer: PeerAddress) -> None:
        while not self._send_now(family, data, peer):
            if self._sending:
                raise StreamBusyError(f"{self!r} waits to send already: one sender at a time")
            self._sending = True
            try:
                await self._ports[family].wait_writable()
            finally:
                self._sending = False

    def _send_now(self, family: int, data: Buffer, peer: PeerAddress) -> bool:
        if self._closed:
            raise self._closed_error()
        sock = self._open[family]
        try:
            if self._peer is None:
                sock.sendto(data, peer)
            else:
                sock.send(data)
        except BlockingIOError:
            self._ports[family].clear_writable()
            return False
        except ConnectionError:
            raise
        except OSError as error:
            raise UnreachableError(f"cannot send {len(data)} bytes to {peer}: {error.strerror}") from error
        return True

    def _closed_error(self) -> StreamClosedError:
        return StreamClosedError("these packets are closed")

    async def aclose(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._closed:
            return
        self._closed = True
        for family, port in self._ports.items():
            port.fail(self._closed_error)
            port.unregister()
            self._open[family].close()
        self._open.clear()
        self._ports.clear()
        self._wake()

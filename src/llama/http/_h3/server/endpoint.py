"""The UDP socket of an HTTP/3 server, which dispatches packets to connections and opens new ones.

One socket carries the packets of all connections, from clients whose addresses may be forged (RFC 9000 section 8)
and may change (section 9). Packets for unknown connection ids arrive all the time: of new clients, of attackers, of
connections lost in a crash, and, during a reload, of connections that an earlier endpoint or process still serves.
A packet must reach the connection that it belongs to, a forged address must not cost memory or receive more than
it sent, one client must not delay the others, and a reload must not break connections.

A packet is dispatched by its destination connection id alone, so a client may change its address. An unknown id
opens a connection only with a well-formed Initial packet of at least 1,200 bytes. While many handshakes are in
progress, the client must first return a token that is bound to its address (Retry), and nothing is stored until
then. Above `max_connections` such packets are dropped without a reply. Other packets with unknown ids get a stateless
reset, which is shorter than the packet and limited in rate. A round of the loop reads at most
`ACCEPT_BATCH` packets and passes those of one connection on together, so that one pass through the QUIC library and one
system call can answer them.

After a reload in the same process, several endpoints share one socket. The newest reads for all of them, through the
`PortGroup` that they share: two readers on one socket would take each other's packets. After a reload with workers, the
new process reads, and passes packets with unknown ids on to the process that it replaced (`_h3_handover`). A socket
of its own for each generation (SO_REUSEPORT) would not do: the kernel chooses one by a hash of the addresses, so
packets of open connections would reach the wrong process.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
import weakref
from typing import Protocol, TypeAlias

from qh3.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from llama._core.server import LocalAddress
from llama._core.shutdown import Shutdown
from llama.http._h3.connection import Address
from llama.http._h3.early_data import ServerTickets
from llama.http._h3.server import server_connection
from llama.http._h3.server.accept import ServerQuicConnection
from llama.http._h3.server.certificates import Identities
from llama.http._h3.server.packet_header import (
    ID_LENGTH,
    LongHeader,
    Resets,
    Tokens,
    destination_of,
    long_header,
)
from llama.http._h3.server.reload_forwarding import WORKS, ForwardedInbox, ForwardingOutbox
from llama.http._h3.server.server_connection import H3ServerConnection
from llama.http._h3.server.udp_send import UdpSender
from llama.tcp._io.readiness import Port

log = logging.getLogger("llama.http3")
BURST = 64
SMALLEST_INITIAL = 1200  # RFC 9000 section 14.1
VERSIONS = [1]


class H3Listener(server_connection.ServerConfig, Protocol):
    """The handler, the settings and the certificates of a server."""

    @property
    def identities(self) -> Identities: ...

    @property
    def secret(self) -> bytes: ...


class PortGroup:
    """The shared state of the endpoints at one address, of which a reload makes several.

    They share one socket, so the newest endpoint reads for all. `links` maps connection ids to connections.
    """

    def __init__(self) -> None:
        self.links: dict[bytes, H3ServerConnection] = {}
        self._endpoints: list[Endpoint] = []

    @property
    def newest(self) -> Endpoint:
        """The endpoint that reads the socket."""
        return self._endpoints[-1]

    def join(self, endpoint: Endpoint) -> None:
        """Add an endpoint, which reads the socket from now on."""
        if self._endpoints:
            self._endpoints[-1].pause()
        self._endpoints.append(endpoint)
        endpoint.read()

    def leave(self, endpoint: Endpoint) -> None:
        """Remove an endpoint; the newest remaining one reads the socket."""
        was_last = self._endpoints[-1] is endpoint
        self._endpoints.remove(endpoint)
        endpoint.pause()
        if was_last and self._endpoints:
            self._endpoints[-1].read()


_PortGroups: TypeAlias = weakref.WeakValueDictionary[object, PortGroup]
_places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _PortGroups] = weakref.WeakKeyDictionary()


def port_group(loop: asyncio.AbstractEventLoop, name: object) -> PortGroup:
    """Return the shared state of the endpoints at an address in this loop."""
    known = _places.setdefault(loop, weakref.WeakValueDictionary())
    found = known.get(name)
    if found is None:
        found = known[name] = PortGroup()
    return found


class Endpoint:
    """One socket and the connections on it."""

    def __init__(self, sock: socket.socket, server: H3Listener, shutdown: Shutdown) -> None:
        self._sock = sock
        self._server = server
        self._shutdown = shutdown
        self._all: set[H3ServerConnection] = set()
        self._handshaking = 0
        self._stopping = False
        self._tokens = Tokens(server.secret)
        self._tickets_given = ServerTickets() if server.settings.early_data else None
        name = sock.getsockname()
        self.local = LocalAddress(str(name[0]), int(name[1]))
        self.context = contextvars.copy_context()
        """The context of the task that serves, for handlers; callbacks of the socket run without it."""
        self._port = Port(sock.fileno())
        self._outgoing = UdpSender(sock, self._port)
        loop = self._port.loop
        self._resets = Resets(server.secret, loop.time())
        self._place = port_group(loop, name)
        self._links = self._place.links
        self._outbox = ForwardingOutbox(sock, server.secret)
        self._inbox: ForwardedInbox | None = None
        self._place.join(self)

    # receiving

    def read(self) -> None:
        """Start reading packets."""
        self._port.readable = True
        self._port.on_readable(self._readable)

    def pause(self) -> None:
        """Stop reading packets: another endpoint reads them."""
        self._port.on_readable(None)

    def _readable(self) -> None:
        batches: dict[H3ServerConnection, tuple[Address, list[bytes]]] = {}
        for _ in range(BURST):
            try:
                data, address = self._sock.recvfrom(65536)
            except BlockingIOError:
                self._port.clear_readable()
                break
            except OSError:  # an ICMP error caused by an earlier packet
                continue
            served = self._find(data, address)
            if served is None:
                continue
            if served in batches and batches[served][0] == address:
                batches[served][1].append(data)
            else:
                if served in batches:
                    served.received(batches[served][1], batches[served][0])
                batches[served] = (address, [data])
        else:
            self._port.on_readable(
                self._readable
            )  # more packets may wait: read them after the other callbacks of this round
        for served, (address, packets) in batches.items():
            served.received(packets, address)

    def _find(self, data: bytes, address: Address) -> H3ServerConnection | None:
        to = destination_of(data)
        if to is None:
            return None
        served = self._links.get(to)
        return served if served is not None else self._admit(data, address)

    def _admit(self, data: bytes, address: Address) -> H3ServerConnection | None:
        """Handle a packet with an unknown connection id; return the new connection if it opens one."""
        if self._stopping:
            return None
        header = long_header(data)
        is_passed = self._outbox.send(data, address, self._port.loop.time())
        if not (data[0] & 0x80 or is_passed):
            self._reset(data, address)
        if header is None or len(data) < SMALLEST_INITIAL:
            return None
        if header.version not in VERSIONS:
            if header.version:
                self.send(
                    encode_quic_version_negotiation(header.destination, header.source, VERSIONS), address
                )
            return None
        if not header.is_initial or len(header.destination) < ID_LENGTH:
            return None
        settings = self._server.settings
        if len(self._all) >= settings.max_connections:
            return None
        original, source = header.destination, None
        where = _plain(address)
        if header.token:  # an unknown token may come from another server
            known = self._tokens.read(where, header.token)
            if known is not None and known[1] == header.destination:
                original, source = known
        if source is None and (self._handshaking >= settings.retry_threshold or not _fits(header)):
            self._send_retry(header, where, address)
            return None
        return self._open(header, original, source, address)

    def _send_retry(self, header: LongHeader, where: tuple[str, int], address: Address) -> None:
        """Send Retry: the client must validate its address before any state is kept (RFC 9000 section 8.1.2)."""
        source = os.urandom(ID_LENGTH)
        token = self._tokens.make(where, header.destination, source)
        self.send(
            encode_quic_retry(header.version, source, header.source, header.destination, token), address
        )

    def _reset(self, data: bytes, address: Address) -> None:
        """Send a stateless reset for an unknown connection (RFC 9000 section 10.3)."""
        number = destination_of(data)
        if number is not None and (
            packet := self._resets.answer(data, number, _plain(address), self._port.loop.time())
        ):
            self.send(packet, address)

    def _open(
        self, header: LongHeader, original: bytes, source: bytes | None, address: Address
    ) -> H3ServerConnection:
        own = None if header.source else header.destination
        quic = ServerQuicConnection(
            self._server.identities, original, source, own=own, tickets=self._tickets_given
        )
        quic.reset_token = self._resets.token(quic.host_cid, _plain(address))
        served = H3ServerConnection(self, quic, self._server, self._shutdown, address)
        self._all.add(served)
        self._handshaking += 1
        self.register_id(header.destination, served, known=True)
        self.register_id(quic.host_cid, served, known=True)
        self._shutdown.spawn(served.run())
        return served

    # calls from connections

    def register_id(self, number: bytes, served: H3ServerConnection, *, known: bool) -> None:
        """Add a connection id to a connection, or remove it."""
        if known:
            self._links[number] = served
            served.names.add(number)
        elif self._links.get(number) is served:
            del self._links[number]
            served.names.discard(number)

    def on_handshake(self) -> None:
        """A handshake finished."""
        self._handshaking -= 1

    def on_closed(self, served: H3ServerConnection) -> None:
        """A connection has ended."""
        self._all.discard(served)
        for number in served.names:
            if self._links.get(number) is served:
                del self._links[number]
        if self._stopping and not self._all:
            self._leave()

    # sending

    def send(self, data: bytes, address: Address) -> None:
        """Send a packet."""
        self._outgoing.send(data, address)

    # the end

    def retire(self) -> None:
        """Stop, and leave the socket to an endpoint of this process or of the process that replaces it."""
        if WORKS and self._all and self._place.newest is self:
            try:
                self._inbox = ForwardedInbox(self._sock, self._server.secret, self._on_forwarded)
            except OSError as error:
                log.warning("%s: packets of open connections may be lost: %s", self.local, error)
            else:
                self.pause()
        self.stop()

    def _on_forwarded(self, data: bytes, address: Address) -> None:
        if (served := self._find(data, address)) is not None:
            served.received([data], address)

    def stop(self) -> None:
        """Accept no more connections and drain the open ones."""
        self._stopping = True
        for served in tuple(self._all):
            served.stop()
        if not self._all:
            self._leave()

    def _leave(self) -> None:
        self._place.leave(self)
        self._outbox.close()
        if self._inbox is not None:
            self._inbox.close()
        self._outgoing.close()
        self._port.unregister(closing=False)


def _fits(header: LongHeader) -> bool:
    """Whether the server can use the id that the client wrote to, which a client with an empty id requires."""
    return bool(header.source) or len(header.destination) == ID_LENGTH


def _plain(address: Address) -> tuple[str, int]:
    return str(address[0]), int(address[1])

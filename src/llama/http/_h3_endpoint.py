"""The socket of an HTTP/3 server: its packets to their connections, and to new ones."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
import weakref
from typing import Protocol, TypeAlias

from qh3.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from llama._server import Local
from llama._shutdown import Shutdown
from llama.http import _h3_served
from llama.http._h3_accepted import Accepted
from llama.http._h3_address import ID_LENGTH, LongHeader, Resets, Tokens, destination_of, long_header
from llama.http._h3_early import Tickets
from llama.http._h3_handover import WORKS, Inbox, Outbox
from llama.http._h3_identities import Identities
from llama.http._h3_link import Address
from llama.http._h3_outgoing import Outgoing
from llama.http._h3_served import Served
from llama.tcp._port import Port

log = logging.getLogger("llama.http3")
BURST = 64
SMALLEST_INITIAL = 1200  # RFC 9000 section 14.1
VERSIONS = [1]


class Site(_h3_served.Site, Protocol):
    """What is served, and how hands are shaken."""

    @property
    def identities(self) -> Identities: ...

    @property
    def secret(self) -> bytes: ...


class Place:
    """What the endpoints at one address share, of which there are several after a reload.

    The sockets of all are the same one, so that the newest reads for the others too. It knows by `links` whose
    connection a packet is for.
    """

    def __init__(self) -> None:
        self.links: dict[bytes, Served] = {}
        self._endpoints: list[Endpoint] = []

    @property
    def newest(self) -> Endpoint:
        """The one that reads."""
        return self._endpoints[-1]

    def join(self, endpoint: Endpoint) -> None:
        """From now on this one reads."""
        if self._endpoints:
            self._endpoints[-1].rest()
        self._endpoints.append(endpoint)
        endpoint.read()

    def leave(self, endpoint: Endpoint) -> None:
        """It is not there any more."""
        was_last = self._endpoints[-1] is endpoint
        self._endpoints.remove(endpoint)
        endpoint.rest()
        if was_last and self._endpoints:
            self._endpoints[-1].read()


_Places: TypeAlias = weakref.WeakValueDictionary[object, Place]
_places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Places] = weakref.WeakKeyDictionary()


def place(loop: asyncio.AbstractEventLoop, name: object) -> Place:
    """What endpoints of this loop at this address share."""
    known = _places.setdefault(loop, weakref.WeakValueDictionary())
    found = known.get(name)
    if found is None:
        found = known[name] = Place()
    return found


class Endpoint:
    """One socket and the connections on it."""

    def __init__(self, sock: socket.socket, server: Site, shutdown: Shutdown) -> None:
        self._sock = sock
        self._server = server
        self._shutdown = shutdown
        self._all: set[Served] = set()
        self._shaking = 0
        self._stopping = False
        self._tokens = Tokens(server.secret)
        self._tickets_given = Tickets() if server.settings.early_data else None
        name = sock.getsockname()
        self.local = Local(str(name[0]), int(name[1]))
        self.context = contextvars.copy_context()
        """Of whoever serves: packets are reported without it."""
        self._port = Port(sock.fileno())
        self._outgoing = Outgoing(sock, self._port)
        loop = self._port.loop
        self._resets = Resets(server.secret, loop.time())
        self._place = place(loop, name)
        self._links = self._place.links
        self._outbox = Outbox(sock, server.secret)
        self._inbox: Inbox | None = None
        self._place.join(self)

    # packets in

    def read(self) -> None:
        """Take the packets of this address."""
        self._port.readable = True
        self._port.on_readable(self._readable)

    def rest(self) -> None:
        """Leave the packets to another endpoint."""
        self._port.on_readable(None)

    def _readable(self) -> None:
        batches: dict[Served, tuple[Address, list[bytes]]] = {}
        for _ in range(BURST):
            try:
                data, address = self._sock.recvfrom(65536)
            except BlockingIOError:
                self._port.unreadable()
                break
            except OSError:  # what an earlier packet came back with
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
            self._port.on_readable(self._readable)  # there is more: after the others of this round
        for served, (address, packets) in batches.items():
            served.received(packets, address)

    def _find(self, data: bytes, address: Address) -> Served | None:
        to = destination_of(data)
        if to is None:
            return None
        served = self._links.get(to)
        return served if served is not None else self._admit(data, address)

    def _admit(self, data: bytes, address: Address) -> Served | None:
        """A packet of no connection that is known."""
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
        if header.token:  # one that is not known may be another server's
            known = self._tokens.read(where, header.token)
            if known is not None and known[1] == header.destination:
                original, source = known
        if source is None and (self._shaking >= settings.retry_from or not _fits(header)):
            self._ask_back(header, where, address)
            return None
        return self._open(header, original, source, address)

    def _ask_back(self, header: LongHeader, where: tuple[str, int], address: Address) -> None:
        """Have the client prove its address before anything is kept for it (RFC 9000 section 8.1.2)."""
        source = os.urandom(ID_LENGTH)
        token = self._tokens.make(where, header.destination, source)
        self.send(
            encode_quic_retry(header.version, source, header.source, header.destination, token), address
        )

    def _reset(self, data: bytes, address: Address) -> None:
        """Have the client forget a connection that nobody knows (RFC 9000 section 10.3)."""
        number = destination_of(data)
        if number is not None and (
            packet := self._resets.answer(data, number, _plain(address), self._port.loop.time())
        ):
            self.send(packet, address)

    def _open(self, header: LongHeader, original: bytes, source: bytes | None, address: Address) -> Served:
        own = None if header.source else header.destination
        quic = Accepted(self._server.identities, original, source, own=own, tickets=self._tickets_given)
        quic.reset_token = self._resets.token(quic.host_cid, _plain(address))
        served = Served(self, quic, self._server, self._shutdown, address)
        self._all.add(served)
        self._shaking += 1
        self.learn(header.destination, served, known=True)
        self.learn(quic.host_cid, served, known=True)
        self._shutdown.spawn(served.run())
        return served

    # what connections tell

    def learn(self, number: bytes, served: Served, *, known: bool) -> None:
        """A connection has one more name, or one less."""
        if known:
            self._links[number] = served
            served.names.add(number)
        elif self._links.get(number) is served:
            del self._links[number]
            served.names.discard(number)

    def shaken(self) -> None:
        """One connection less shakes hands."""
        self._shaking -= 1

    def gone(self, served: Served) -> None:
        """A connection has ended."""
        self._all.discard(served)
        for number in served.names:
            if self._links.get(number) is served:
                del self._links[number]
        if self._stopping and not self._all:
            self._leave()

    # packets out

    def send(self, data: bytes, address: Address) -> None:
        """Send a packet."""
        self._outgoing.send(data, address)

    # the end

    def retire(self) -> None:
        """Stop, as another reads from the socket now: in this process, or in the one that replaces it."""
        if WORKS and self._all and self._place.newest is self:
            try:
                self._inbox = Inbox(self._sock, self._server.secret, self._handed)
            except OSError as error:
                log.warning("%s: packets of open connections may be lost: %s", self.local, error)
            else:
                self.rest()
        self.stop()

    def _handed(self, data: bytes, address: Address) -> None:
        if (served := self._find(data, address)) is not None:
            served.received([data], address)

    def stop(self) -> None:
        """Take no more connections, and have the open ones end when their requests have."""
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
        self._port.leave(closing=False)


def _fits(header: LongHeader) -> bool:
    """Whether an id that the client chose can become ours, which it must for a client without one."""
    return bool(header.source) or len(header.destination) == ID_LENGTH


def _plain(address: Address) -> tuple[str, int]:
    return str(address[0]), int(address[1])

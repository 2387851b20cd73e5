"""The HTTP/3 listener: packets of one socket to their connections, and requests to an exchange."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from qh3.quic.configuration import QuicConfiguration
from qh3.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from llama._errors import ConfigError
from llama._extensions import Extensions
from llama._server import Local, Peer, Server
from llama._shutdown import Shutdown
from llama._target import split_address
from llama.http._h3_accepted import Accepted
from llama.http._h3_address import ID_LENGTH, LongHeader, Tokens, destination_of, long_header
from llama.http._h3_channel import (
    H3_EXCESSIVE_LOAD,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_REQUEST_REJECTED,
    Channel,
)
from llama.http._h3_exchange import H3Exchange
from llama.http._h3_link import Address, Link, Quic, new_configuration
from llama.http._h3_settings import H3Settings
from llama.http._message import Exchange
from llama.tcp._port import Port
from llama.udp._bind import bind_packets

log = logging.getLogger("llama.http3")
BURST = 64
QUEUE = 1024  # packets that wait for a full socket: more are lost, as packets may be
SMALLEST_INITIAL = 1200  # RFC 9000 section 14.1
VERSIONS = [1]
LINGER = 1.0
RESETS = 200  # requests that a client breaks off, beyond those it lets end


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class H3Server(Server):
    """Takes HTTP/3 connections at one UDP address."""

    where: str | int | tuple[str, int]
    exchange: Exchange
    configuration: QuicConfiguration
    settings: H3Settings

    def __repr__(self) -> str:
        return f"http.h3_server({self.address})"

    @property
    def address(self) -> str:
        return str(Peer(*self.where)) if isinstance(self.where, tuple) else str(self.where)

    @property
    def service(self) -> Exchange:
        return self.exchange

    def bind(self, *, shared: bool = False, like: Sequence[socket.socket] = ()) -> list[socket.socket]:
        where = f":{self.where}" if isinstance(self.where, int) else self.where
        host, port = split_address(where) if isinstance(where, str) else where
        return bind_packets(host, port, shared=shared, like=like)

    async def serve(self, sockets: Sequence[socket.socket], shutdown: Shutdown) -> None:
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        forget = shutdown.on_stop(lambda: _set(stopped))
        endpoints = [Endpoint(each, self, shutdown) for each in sockets]
        try:
            await stopped
        finally:
            forget()
            for each in endpoints:
                each.stop()


class Endpoint:
    """One socket and the connections on it."""

    def __init__(self, sock: socket.socket, server: H3Server, shutdown: Shutdown) -> None:
        self._sock = sock
        self._server = server
        self._shutdown = shutdown
        self._links: dict[bytes, Served] = {}
        self._all: set[Served] = set()
        self._shaking = 0
        self._stopping = False
        self._tokens = Tokens()
        self._queue: deque[tuple[bytes, Address]] = deque()
        name = sock.getsockname()
        self.local = Local(str(name[0]), int(name[1]))
        self.context = contextvars.copy_context()
        """Of whoever serves: packets are reported without it."""
        self._port = Port(sock.fileno())
        self._port.on_readable(self._readable)

    # packets in

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
        header = long_header(data)
        if header is None or self._stopping or len(data) < SMALLEST_INITIAL:
            return None
        if header.version not in VERSIONS:
            if header.version:
                self._send(
                    encode_quic_version_negotiation(header.destination, header.source, VERSIONS), address
                )
            return None
        if not header.is_initial or len(header.destination) < ID_LENGTH:
            return None
        settings = self._server.settings
        if len(self._all) >= settings.max_connections:
            return None
        original, source = header.destination, None
        where = (str(address[0]), int(address[1]))
        if header.token:
            known = self._tokens.read(where, header.token)
            if known is None or known[1] != header.destination:
                return None
            original, source = known
        elif self._shaking >= settings.retry_from or not _fits(header):
            self._ask_back(header, where, address)
            return None
        return self._open(header, original, source, address)

    def _ask_back(self, header: LongHeader, where: tuple[str, int], address: Address) -> None:
        """Have the client prove its address before anything is kept for it (RFC 9000 section 8.1.2)."""
        source = os.urandom(ID_LENGTH)
        token = self._tokens.make(where, header.destination, source)
        self._send(
            encode_quic_retry(header.version, source, header.source, header.destination, token), address
        )

    def _open(self, header: LongHeader, original: bytes, source: bytes | None, address: Address) -> Served:
        own = None if header.source else header.destination
        quic = Accepted(self._server.configuration, original, source, own=own)
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
        """Send a packet, or keep it while the socket is full."""
        if self._queue or not self._send(data, address):
            if len(self._queue) < QUEUE:
                self._queue.append((data, address))
            self._port.on_writable(self._writable)

    def _send(self, data: bytes, address: Address) -> bool:
        try:
            self._sock.sendto(data, address)
        except BlockingIOError:
            self._port.unwritable()
            return False
        except OSError as error:  # no way to the client: QUIC finds out by itself
            log.debug("%s: %s", address, error)
        return True

    def _writable(self) -> None:
        while self._queue:
            if not self._send(*self._queue[0]):
                return
            self._queue.popleft()
        self._port.on_writable(None)

    # the end

    def stop(self) -> None:
        """Take no more connections, and have the open ones end when their requests have."""
        self._stopping = True
        for served in tuple(self._all):
            served.stop()
        if not self._all:
            self._leave()

    def _leave(self) -> None:
        self._port.on_readable(None)
        self._port.on_writable(None)
        self._port.leave(closing=False)


class Served:
    """One connection of a client."""

    def __init__(
        self, endpoint: Endpoint, quic: Quic, server: H3Server, shutdown: Shutdown, address: Address
    ) -> None:
        self.names: set[bytes] = set()
        self.peer = Peer(str(address[0]), int(address[1]))
        self.link = Link(quic, self._send)
        self.link.on_request = self._request
        self.link.on_id = lambda number, known: endpoint.learn(number, self, known=known)
        self.link.on_room = self._less
        self.link.on_broken = self._broke_off
        self._endpoint = endpoint
        self._server = server
        self._shutdown = shutdown
        self._extensions = Extensions(self.peer, endpoint.local)
        self._context = endpoint.context
        self._count = self._broken = 0
        self._credit = 0
        """Bytes that may be sent before the client's address is proven."""
        self._kept: deque[tuple[bytes, Address]] = deque()
        self._last = -4
        self._stopping = False
        self._ending: asyncio.Future[None] = self.link.loop.create_future()

    def __repr__(self) -> str:
        return f"{self.peer} (HTTP/3)"

    def received(self, packets: list[bytes], address: Address) -> None:
        """Packets of this client."""
        if not self._is_proven():
            self._credit += 3 * sum(map(len, packets))
        self.link.received(packets, address)
        self._send_kept()

    def _is_proven(self) -> bool:
        return self.link.established.done()

    def _send(self, data: bytes, address: Address) -> None:
        """Send a packet, but not more than three times what came while the address may be another's.

        RFC 9000 section 8.1.
        """
        if self._is_proven() or (not self._kept and len(data) <= self._credit):
            self._credit -= len(data)
            self._endpoint.send(data, address)
        elif len(self._kept) < BURST:
            self._kept.append((data, address))

    def _send_kept(self) -> None:
        while self._kept and (self._is_proven() or len(self._kept[0][0]) <= self._credit):
            data, address = self._kept.popleft()
            self._credit -= len(data)
            self._endpoint.send(data, address)

    async def run(self) -> None:
        """Hold the connection until it has ended."""
        link, settings = self.link, self._server.settings
        try:
            shaken = await self._wait(settings.handshake_timeout, link.established)
            self._endpoint.shaken()
            if not shaken:
                log.info("%s: no handshake within %g s", self, settings.handshake_timeout)
                return
            if not link.closed.done():
                self._established()
                await self._wait(None, self._ending)
                await self._wait(LINGER)
        finally:
            link.close(H3_NO_ERROR)
            link.abandon()
            self._endpoint.gone(self)

    async def _wait(self, seconds: float | None, *futures: asyncio.Future[None]) -> bool:
        """Wait for one of these, or the end of the connection; False when the time is over."""
        both = (*futures, self.link.closed)
        done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    def _established(self) -> None:
        if self._stopping:
            self.stop()

    # requests

    def _request(self, channel: Channel) -> None:
        self._count += 1
        limit = self._server.settings.http.max_requests
        if self._stopping or (limit is not None and self._count > limit):
            channel.close(H3_REQUEST_REJECTED)
            return
        self._last = max(self._last, channel.number)
        if limit is not None and self._count == limit:
            self.stop()
        self._start(channel)

    def _start(self, channel: Channel) -> None:
        if channel.error is not None:
            channel.close(H3_REQUEST_REJECTED)
            return
        server = self._server
        exchange = H3Exchange(channel, server.exchange, server.settings.http, self._extensions, repr(self))
        channel.task = self._context.run(self._shutdown.spawn, exchange.run())
        channel.task.add_done_callback(lambda _: channel.close(H3_REQUEST_CANCELLED))  # it may not have begun

    def _less(self) -> None:
        """An exchange has ended."""
        if self._stopping and not self.link.channels:
            self._end()

    def _broke_off(self) -> None:
        """The client broke a request off; too many of those are an attack (rapid reset)."""
        self._broken += 1
        if self._broken > RESETS and self._broken * 2 > self._count and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too many requests were broken off")

    # the end

    def stop(self) -> None:
        """Tell the client to go elsewhere; what is in flight goes on (RFC 9114 section 5.2)."""
        self._stopping = True
        if not self.link.established.done():
            return
        self.link.send_goaway(self._last + 4)
        if not self.link.channels:
            self._end()

    def _end(self) -> None:
        """Close once the last bytes have arrived; `run` waits a second for that."""
        if not self._ending.done():
            self._ending.set_result(None)
            self.link.on_packets = self._look
            self.link.flush()
            self._look()

    def _look(self) -> None:
        if self.link.is_quiet:
            self.link.close()


def _fits(header: LongHeader) -> bool:
    """Whether an id that the client chose can become ours, which it must for a client without one."""
    return bool(header.source) or len(header.destination) == ID_LENGTH


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def build_server(
    where: str | int | tuple[str, int],
    exchange: Exchange,
    cert: str | os.PathLike[str],
    key: str | os.PathLike[str] | None,
    password: str | None,
    settings: H3Settings,
) -> H3Server:
    """A server with its certificate loaded; ConfigError for files that do not work."""
    configuration = new_configuration(is_client=False, idle_timeout=settings.idle_timeout)
    configuration.supported_versions = list(VERSIONS)
    load = configuration.load_cert_chain  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    try:
        load(os.fspath(cert), None if key is None else os.fspath(key), password)
    except Exception as error:  # the library raises errors of many kinds
        raise ConfigError(f"http.h3_server(): {cert} with {key or 'its key'}: {error}") from error
    if configuration.private_key is None:
        raise ConfigError(f"http.h3_server(): {cert} holds no key, and key= names no file")
    return H3Server(where, exchange, configuration, settings)

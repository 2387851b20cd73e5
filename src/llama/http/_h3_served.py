"""One connection of an HTTP/3 server: its packets while its client is unproven, its requests, and its end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from typing import Protocol

from llama._extensions import Extensions
from llama._server import Local, Peer
from llama._shutdown import Shutdown
from llama.http._h3_accepted import Accepted
from llama.http._h3_channel import (
    H3_EXCESSIVE_LOAD,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_REQUEST_REJECTED,
    Channel,
)
from llama.http._h3_early import Guarded
from llama.http._h3_exchange import H3Exchange
from llama.http._h3_link import Address, Link
from llama.http._h3_settings import H3Settings
from llama.http._message import Exchange
from llama.tls._info import TLSInfo

log = logging.getLogger("llama.http3")
KEPT = 64  # packets that wait for a client to prove its address
LINGER = 1.0
NOISE = 1 << 20  # bytes that are part of no message, beyond those of heads that come in pieces
EVENT = 32  # what the smallest piece counts for
RESETS = 200  # requests that a client breaks off, beyond those it lets end
RETIRED_IDS = (
    4096  # connection ids that a client may retire: the library keeps each until the connection ends
)


class Site(Protocol):
    """What is served."""

    @property
    def exchange(self) -> Exchange: ...

    @property
    def settings(self) -> H3Settings: ...


class Home(Protocol):
    """The endpoint that connections are at."""

    local: Local
    context: contextvars.Context

    def learn(self, number: bytes, served: Served, *, known: bool) -> None:
        """A connection has one more name, or one less."""

    def shaken(self) -> None:
        """One connection less shakes hands."""

    def gone(self, served: Served) -> None:
        """A connection has ended."""

    def send(self, data: bytes, address: Address) -> None:
        """Send a packet."""


class Served:
    """One connection of a client."""

    def __init__(
        self, endpoint: Home, quic: Accepted, server: Site, shutdown: Shutdown, address: Address
    ) -> None:
        self.names: set[bytes] = set()
        self.peer = Peer(str(address[0]), int(address[1]))
        self._name = f"{self.peer} (HTTP/3)"
        self.link = Link(quic, self._send, server.settings.http.limits)
        self.link.on_request = self._request
        self.link.on_id = self._learn
        self.link.on_room = self._less
        self.link.on_broken = self._broke_off
        self.link.on_noise = self._hear_noise
        self._quic = quic
        self._endpoint = endpoint
        self._server = server
        self._shutdown = shutdown
        self._extensions = Extensions(self.peer, endpoint.local)
        self._context = endpoint.context
        self._count = self._broken = self._noise = self._retired = 0
        self._is_heard = False
        self._credit = 0
        """Bytes that may be sent before the client's address is proven."""
        self._kept: deque[tuple[bytes, Address]] = deque()
        self._last = -4
        self._stopping = False
        self._ending: asyncio.Future[None] = self.link.loop.create_future()

    def __repr__(self) -> str:
        return self._name

    def received(self, packets: list[bytes], address: Address) -> None:
        """Packets of this client."""
        if not self._is_proven():
            self._credit += 3 * sum(map(len, packets))
        self.link.received(packets, address)
        self._send_kept()
        if not self._is_heard:
            self._is_heard = self._quic.is_heard
            if not self._is_heard:  # its first packet was none of ours: nothing is kept of it
                self.link.abandon()

    def _is_proven(self) -> bool:
        return self.link.established.done()

    def _send(self, data: bytes, address: Address) -> None:
        """Send a packet, but not more than three times what came while the address may be another's.

        RFC 9000 section 8.1.
        """
        if self._is_proven() or (not self._kept and len(data) <= self._credit):
            self._credit -= len(data)
            self._endpoint.send(data, address)
        elif len(self._kept) < KEPT:
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

    def _learn(self, number: bytes, known: bool) -> None:
        """The connection has one more id, or the client has retired one."""
        self._endpoint.learn(number, self, known=known)
        self._retired += not known
        if self._retired > RETIRED_IDS and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too many connection ids were retired")

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
        if self._extensions.get(TLSInfo) is None:
            self._extensions.set(self._quic.tls_info)
        settings = self._server.settings.http
        exchange = H3Exchange(channel, self._inner(), settings, self._extensions, self._name, self.stop)
        channel.task = self._context.run(self._shutdown.spawn, exchange.run())
        channel.task.add_done_callback(lambda _: channel.close(H3_REQUEST_CANCELLED))  # it may not have begun

    def _inner(self) -> Exchange:
        inner = self._server.exchange
        return inner if self.link.established.done() else Guarded(inner)

    def _less(self) -> None:
        """An exchange has ended."""
        if self._stopping and not self.link.channels:
            self._end()

    def _broke_off(self) -> None:
        """The client broke a request off; too many of those are an attack (rapid reset)."""
        self._broken += 1
        if self._broken > RESETS and self._broken * 2 > self._count and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too many requests were broken off")

    def _hear_noise(self, size: int) -> None:
        """More that is no part of a message than messages can need is an attack too (unknown frames)."""
        self._noise += size + EVENT
        allowed = NOISE + self._count * self._server.settings.http.limits.head
        if self._noise > allowed and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too much that is part of no message")

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

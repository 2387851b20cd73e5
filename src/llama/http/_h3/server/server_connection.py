"""One connection of an HTTP/3 server: anti-amplification, requests, defences and shutdown."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from typing import Protocol

from llama._core.extensions import Extensions
from llama._core.server import Local, Peer
from llama._core.shutdown import Shutdown
from llama.http._h3.connection import Address, Link
from llama.http._h3.early_data import Guarded
from llama.http._h3.server.accept import Accepted
from llama.http._h3.server.server_stream import H3Exchange
from llama.http._h3.settings import H3Settings
from llama.http._h3.stream import (
    H3_EXCESSIVE_LOAD,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_REQUEST_REJECTED,
    Channel,
)
from llama.http._messages.message import Exchange
from llama.tls._info import TLSInfo

log = logging.getLogger("llama.http3")
KEPT = 64  # packets that wait until the client's address is validated
LINGER = 1.0
NOISE = 1 << 20  # bytes that belong to no message, in addition to those of heads that arrive in parts
EVENT = 32  # bytes that each such event counts in addition to its size
RESETS = 200  # requests that a client may reset before the share of resets counts
RETIRED_IDS = (
    4096  # connection ids that a client may retire, as the library keeps each until the connection ends
)


class Site(Protocol):
    """The handler and the settings of a server."""

    @property
    def exchange(self) -> Exchange: ...

    @property
    def settings(self) -> H3Settings: ...


class Home(Protocol):
    """The endpoint of a connection."""

    local: Local
    context: contextvars.Context

    def learn(self, number: bytes, served: Served, *, known: bool) -> None:
        """Add a connection id to a connection, or remove it."""

    def shaken(self) -> None:
        """A handshake finished."""

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
        """Bytes that may be sent before the client's address is validated."""
        self._kept: deque[tuple[bytes, Address]] = deque()
        self._last = -4
        self._stopping = False
        self._ending: asyncio.Future[None] = self.link.loop.create_future()

    def __repr__(self) -> str:
        return self._name

    def received(self, packets: list[bytes], address: Address) -> None:
        """Process packets from the client."""
        if not self._is_proven():
            self._credit += 3 * sum(map(len, packets))
        self.link.received(packets, address)
        self._send_kept()
        if not self._is_heard:
            self._is_heard = self._quic.is_heard
            if not self._is_heard:  # its first packet was not authentic: keep no state
                self.link.abandon()

    def _is_proven(self) -> bool:
        return self.link.established.done()

    def _send(self, data: bytes, address: Address) -> None:
        """Send a packet, within three times the received bytes until the address is validated.

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
        """Serve the connection until it ends."""
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
        """Wait for one of these or the end of the connection; return False on timeout."""
        both = (*futures, self.link.closed)
        done, _ = await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    def _established(self) -> None:
        if self._stopping:
            self.stop()

    def _learn(self, number: bytes, known: bool) -> None:
        """A connection id was issued, or the client retired one."""
        self._endpoint.learn(number, self, known=known)
        self._retired += not known
        if self._retired > RETIRED_IDS and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too many retired connection ids")

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
        """Count a request that the client reset; close the connection if there are too many (rapid reset)."""
        self._broken += 1
        if self._broken > RESETS and self._broken * 2 > self._count and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too many reset requests")

    def _hear_noise(self, size: int) -> None:
        """Count bytes outside messages; close the connection if messages cannot need as many (unknown frames)."""
        self._noise += size + EVENT
        allowed = NOISE + self._count * self._server.settings.http.limits.head
        if self._noise > allowed and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too many bytes outside messages")

    # the end

    def stop(self) -> None:
        """Send GOAWAY and drain: requests in progress continue (RFC 9114 section 5.2)."""
        self._stopping = True
        if not self.link.established.done():
            return
        self.link.send_goaway(self._last + 4)
        if not self.link.channels:
            self._end()

    def _end(self) -> None:
        """Close once the client has acknowledged the last bytes; `run` waits a second for that."""
        if not self._ending.done():
            self._ending.set_result(None)
            self.link.on_packets = self._look
            self.link.flush()
            self._look()

    def _look(self) -> None:
        if self.link.is_quiet:
            self.link.close()

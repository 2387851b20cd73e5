"""One connection of an HTTP/3 server: anti-amplification, requests, defences and shutdown."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from typing import Protocol

from llama._core.extensions import Extensions
from llama._core.server import LocalAddress, PeerAddress
from llama._core.shutdown import Shutdown
from llama.http._h3.connection import Address, H3Transport
from llama.http._h3.early_data import EarlyDataGuard
from llama.http._h3.server.accept import ServerQuicConnection
from llama.http._h3.server.server_stream import H3ServerStream
from llama.http._h3.settings import H3Settings
from llama.http._h3.stream import (
    H3_EXCESSIVE_LOAD,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_REQUEST_REJECTED,
    H3Stream,
)
from llama.http._messages.message import RequestHandler
from llama.tls._info import TLSInfo

log = logging.getLogger("llama.http3")
MAX_UNVALIDATED_PACKETS = 64  # packets that wait until the client's address is validated
LINGER = 1.0
MAX_UNKNOWN_BYTES = (
    1 << 20
)  # bytes that belong to no message, in addition to those of heads that arrive in parts
MIN_EVENT_COST = 32  # bytes that each such event counts in addition to its size
RESETS = 200  # requests that a client may reset before the share of resets counts
RETIRED_IDS = (
    4096  # connection ids that a client may retire, as the library keeps each until the connection ends
)


class ServerConfig(Protocol):
    """The handler and the settings of a server."""

    @property
    def handler(self) -> RequestHandler: ...

    @property
    def settings(self) -> H3Settings: ...


class EndpointCallbacks(Protocol):
    """The endpoint of a connection."""

    local: LocalAddress
    context: contextvars.Context

    def register_id(self, number: bytes, served: H3ServerConnection, *, known: bool) -> None:
        """Add a connection id to a connection, or remove it."""

    def on_handshake(self) -> None:
        """A handshake finished."""

    def on_closed(self, served: H3ServerConnection) -> None:
        """A connection has ended."""

    def send(self, data: bytes, address: Address) -> None:
        """Send a packet."""


class H3ServerConnection:
    """One connection of a client."""

    def __init__(
        self,
        endpoint: EndpointCallbacks,
        quic: ServerQuicConnection,
        server: ServerConfig,
        shutdown: Shutdown,
        address: Address,
    ) -> None:
        self.names: set[bytes] = set()
        self.peer = PeerAddress(str(address[0]), int(address[1]))
        self._name = f"{self.peer} (HTTP/3)"
        self.link = H3Transport(quic, self._send, server.settings.http.limits)
        self.link.on_request = self._request
        self.link.on_id = self._learn
        self.link.on_room = self._on_stream_done
        self.link.on_broken = self._on_peer_reset
        self.link.on_noise = self._count_unknown
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
        if not self._is_address_validated():
            self._credit += 3 * sum(map(len, packets))
        self.link.received(packets, address)
        self._send_queued()
        if not self._is_heard:
            self._is_heard = self._quic.is_heard
            if not self._is_heard:  # its first packet was not authentic: keep no state
                self.link.abandon()

    def _is_address_validated(self) -> bool:
        return self.link.established.done()

    def _send(self, data: bytes, address: Address) -> None:
        """Send a packet, within three times the received bytes until the address is validated.

        RFC 9000 section 8.1.
        """
        if self._is_address_validated() or (not self._kept and len(data) <= self._credit):
            self._credit -= len(data)
            self._endpoint.send(data, address)
        elif len(self._kept) < MAX_UNVALIDATED_PACKETS:
            self._kept.append((data, address))

    def _send_queued(self) -> None:
        while self._kept and (self._is_address_validated() or len(self._kept[0][0]) <= self._credit):
            data, address = self._kept.popleft()
            self._credit -= len(data)
            self._endpoint.send(data, address)

    async def run(self) -> None:
        """Serve the connection until it ends."""
        link, settings = self.link, self._server.settings
        try:
            shaken = await self._wait(settings.handshake_timeout, link.established)
            self._endpoint.on_handshake()
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
            self._endpoint.on_closed(self)

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
        self._endpoint.register_id(number, self, known=known)
        self._retired += not known
        if self._retired > RETIRED_IDS and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too many retired connection ids")

    # requests

    def _request(self, channel: H3Stream) -> None:
        self._count += 1
        limit = self._server.settings.http.max_requests
        if self._stopping or (limit is not None and self._count > limit):
            channel.close(H3_REQUEST_REJECTED)
            return
        self._last = max(self._last, channel.number)
        if limit is not None and self._count == limit:
            self.stop()
        self._start(channel)

    def _start(self, channel: H3Stream) -> None:
        if channel.error is not None:
            channel.close(H3_REQUEST_REJECTED)
            return
        if self._extensions.get(TLSInfo) is None:
            self._extensions.set(self._quic.tls_info)
        settings = self._server.settings.http
        exchange = H3ServerStream(channel, self._inner(), settings, self._extensions, self._name, self.stop)
        channel.task = self._context.run(self._shutdown.spawn, exchange.run())
        channel.task.add_done_callback(lambda _: channel.close(H3_REQUEST_CANCELLED))  # it may not have begun

    def _inner(self) -> RequestHandler:
        inner = self._server.handler
        return inner if self.link.established.done() else EarlyDataGuard(inner)

    def _on_stream_done(self) -> None:
        """An exchange has ended."""
        if self._stopping and not self.link.channels:
            self._end()

    def _on_peer_reset(self) -> None:
        """Count a request that the client reset; close the connection if there are too many (rapid reset)."""
        self._broken += 1
        if self._broken > RESETS and self._broken * 2 > self._count and not self.link.closed.done():
            self.link.close(H3_EXCESSIVE_LOAD, "too many reset requests")

    def _count_unknown(self, size: int) -> None:
        """Count bytes outside messages; close the connection if messages cannot need as many (unknown frames)."""
        self._noise += size + MIN_EVENT_COST
        allowed = MAX_UNKNOWN_BYTES + self._count * self._server.settings.http.limits.max_head
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
            self.link.on_packets = self._check
            self.link.flush()
            self._check()

    def _check(self) -> None:
        if self.link.is_quiet:
            self.link.close()

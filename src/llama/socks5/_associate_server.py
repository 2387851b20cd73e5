"""UDP ASSOCIATE of the server: relays datagrams while the client's connection is open (RFC 1928, section 7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from llama._core.errors import LlamaError, ProtocolError, RefusedError
from llama._core.packets import PacketConnector, Packets
from llama._core.server import LocalAddress, PeerAddress
from llama._core.stream import Stream
from llama._core.target import Target
from llama.layers._peer_key import packed_address
from llama.layers._shared_timeout import DeadlineScope
from llama.socks5._server_handshake import ClientRequest
from llama.socks5._wire.address import Address, parse_packed
from llama.socks5._wire.socks5 import ReplyCode, encode_datagram, parse_datagram
from llama.tcp import local_address
from llama.tcp._middleware.idle import IdleTimer
from llama.udp import Transferred, bind
from llama.udp._peer_table import PeerTable

log = logging.getLogger("llama.socks5")
MAX_TARGETS = 1024  # cached access decisions per association

CheckTarget = Callable[[Address], Awaitable[Target]]
"""Returns the target for an address that a client names; raises Refused."""


class Association:
    """Relays datagrams between a client, at `front`, and its targets, at `back`; it owns both."""

    __slots__ = (
        "_admit",
        "_admitted",
        "_back",
        "_client",
        "_client_host",
        "_client_port",
        "_front",
        "_received",
        "_sent",
        "_watch",
    )  # fmt: skip

    def __init__(
        self, asked: ClientRequest, client: PeerAddress, front: Packets, back: Packets, admit: CheckTarget
    ) -> None:
        self._client_host = packed_address(client.host)
        # A client behind NAT does not know the port that this server sees.
        told = asked.address
        self._client_port = told.port if packed_address(told.host) == self._client_host else 0
        self._client: Target | None = None
        self._front = front
        self._back = back
        self._admit = admit
        self._admitted: PeerTable[Address, Target | str] = PeerTable(MAX_TARGETS)
        self._sent = self._received = 0
        self._watch: IdleTimer | None = None

    async def run(self, control: Stream, idle_timeout: float | None) -> None:
        """Relay datagrams until the client's connection ends or no datagram passes for `idle_timeout` seconds.

        Sets `RelayStats` in the extensions of the client's connection. Raises TimeoutError.
        """
        call = DeadlineScope()
        self._watch = None if idle_timeout is None else IdleTimer(idle_timeout, call)
        try:
            await self._carry(control)
        except asyncio.CancelledError:
            if not call.consume_cancellation():
                raise
            raise TimeoutError(f"no datagram passed for {idle_timeout:g} s") from None
        finally:
            if self._watch is not None:
                self._watch.stop()
            call.exit()
            control.extensions.set(Transferred(self._sent, self._received))

    async def _carry(self, control: Stream) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._client_to_targets()),
                    group.create_task(self._targets_to_client()),
                ]
                while await control.read():
                    pass
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def abort(self) -> None:
        """Close both sides."""
        self._front.abort()
        self._back.abort()

    async def _client_to_targets(self) -> None:
        while True:
            data, source = await self._front.receive()
            if not self._is_client(source):
                continue
            try:
                datagram = parse_datagram(data)
            except ProtocolError:
                continue
            if datagram.fragment:  # reassembly is optional, and would let clients fill memory
                continue
            target = await self._target(datagram.address)
            if target is not None and await self._forward(self._back, datagram.data, target):
                self._sent += len(datagram.data)

    async def _targets_to_client(self) -> None:
        while True:
            data, peer = await self._back.receive()
            if self._client is None:
                continue
            if await self._forward(self._front, encode_datagram(peer.host, peer.port, data), self._client):
                self._received += len(data)

    async def _forward(self, packets: Packets, data: bytes, target: Target) -> bool:
        """Send a datagram, or drop it on an error; return whether it was sent."""
        try:
            await packets.send(data, target)
        except (LlamaError, OSError) as error:
            log.debug("dropped a datagram to %s: %s", target, error)
            return False
        if self._watch is not None:
            self._watch.on_sent(len(data))
        return True

    def _is_client(self, source: PeerAddress) -> bool:
        """Return whether a datagram is from the client: from its address, and from its announced or first port."""
        if packed_address(source.host) != self._client_host:
            return False
        if self._client is None and self._client_port in (0, source.port):
            self._client = Target(source.host, source.port)
        return self._client is not None and source.port == self._client.port

    async def _target(self, address: Address) -> Target | None:
        verdict = self._admitted.get(address)
        if verdict is None:
            try:
                verdict = await self._admit(address)
            except RefusedError as error:
                log.warning("dropped datagrams: %s", error)
                verdict = str(error)
            self._admitted.set(address, verdict)
        return verdict if isinstance(verdict, Target) else None


async def associate(
    asked: ClientRequest, opener: PacketConnector, host: str | None, admit: CheckTarget
) -> Association:
    """Open both sockets and reply with the relay's address; raises the errors of opening them."""
    client = asked.stream.extensions.get(PeerAddress)
    if client is None or packed_address(client.host) is None:
        raise RefusedError(
            f"{client or 'a client without an address'} cannot be identified by the source of its datagrams"
        )
    front = await bind((host or own_host(asked.stream), 0))
    try:
        back = await opener(None)
    except BaseException:
        front.abort()
        raise
    try:
        await asked.reply(ReplyCode.SUCCEEDED, Address(*(front.address or ("0.0.0.0", 0))))
    except BaseException:
        front.abort()
        back.abort()
        raise
    return Association(asked, client, front, back, admit)


def own_host(stream: Stream) -> str:
    """Return the local address of the client's connection; RefusedError if peers could not reach it."""
    local = local_address(stream.extensions) or LocalAddress("", 0)
    raw = packed_address(local.host)
    if raw is None:
        raise RefusedError("no address of this server is known that a peer could reach: set host")
    return local.host if "%" in local.host else parse_packed(raw)

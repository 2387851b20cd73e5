"""The SOCKS5 server: connects to the target that a client names, and relays the bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import (
    ConfigError,
    LlamaError,
    OverloadedError,
    ProtocolError,
    StreamClosedError,
    UnreachableError,
)
from llama._core.packets import PacketConnector
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama._core.target import Bridge, Connector, Relay, Target
from llama.layers._fair_semaphore import FairSemaphore
from llama.layers._peer_key import packed_address
from llama.layers._shared_timeout import SharedTimeout
from llama.socks5._associate_server import associate, own_host
from llama.socks5._auth import Auth, Check, checker
from llama.socks5._bind_server import Accepted, peers, wait_for_peer
from llama.socks5._reply_codes import code_of
from llama.socks5._rules import Rule, check
from llama.socks5._server_handshake import ClientRequest, negotiate
from llama.socks5._wire.address import UNSPECIFIED, Address
from llama.socks5._wire.socks5 import VERSION, Command, ReplyCode
from llama.tcp import connect as tcp_connect
from llama.tcp import relay as tcp_relay
from llama.tcp._io.cancel_on_disconnect import ClientLeft, cancel_on_disconnect
from llama.tcp._io.stream import SocketStream
from llama.tcp._policy.address_filter import restrict_for_client
from llama.udp import connect as udp_connect


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Socks5Server:
    """Serves SOCKS5 clients."""

    connect: Connector
    relay: Relay
    auth: Check | None
    rules: Rule | None
    private: bool | None
    socks4: bool
    bind: bool
    udp: PacketConnector | None
    associations: FairSemaphore
    host: str | None
    idle_timeout: float | None
    handshake_timeout: float | None
    deadlines: SharedTimeout | None

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return "socks5.server()" if self.auth is None else "socks5.server(auth=...)"

    async def __call__(self, stream: Stream, /) -> None:
        asked = await self._negotiate(stream)
        if asked is None:
            return
        if asked.command == Command.CONNECT:
            await self._connect(asked)
        elif asked.command == Command.BIND and self.bind:
            await self._bind(asked)
        elif asked.command == Command.UDP_ASSOCIATE and self.udp is not None and asked.version == VERSION:
            await self._associate(asked, self.udp)
        else:
            await asked.reply(ReplyCode.COMMAND_NOT_SUPPORTED)
            raise ProtocolError(f"SOCKS command {asked.command} is not served here")

    async def _negotiate(self, stream: Stream) -> ClientRequest | None:
        if self.deadlines is None:
            return await negotiate(stream, self.auth, socks4=self.socks4)
        call = self.deadlines.enter()
        try:
            return await negotiate(stream, self.auth, socks4=self.socks4)
        except asyncio.CancelledError:
            if not call.consume_cancellation():
                raise
            raise TimeoutError(f"no SOCKS request within {self.handshake_timeout:g} s") from None
        finally:
            self.deadlines.exit(call)

    async def admit(self, asked: ClientRequest, address: Address) -> Target:
        """Return the target of a request; raises RefusedError if the client may not reach it."""
        target = restrict_for_client(Target(*address), asked.stream.extensions, self.private)
        await check(self.rules, asked.user, target)
        return target

    async def _connect(self, asked: ClientRequest) -> None:
        try:
            target = await self.admit(asked, asked.address)
            bridge = Bridge(asked.stream, target, self.connect)
            upstream = await cancel_on_disconnect(asked.stream, bridge.upstream(), f"{target} was reached")
        except ClientLeft:
            raise
        except Exception as error:
            await refuse(asked, error)
            raise
        await self._relay(asked, bridge, _bound_address(upstream))

    async def _relay(self, asked: ClientRequest, bridge: Bridge, bound_address: Address) -> None:
        try:
            await asked.reply(ReplyCode.SUCCEEDED, bound_address)
            await self.relay(bridge)
            await bridge.aclose()
        finally:
            bridge.abort()

    async def _bind(self, asked: ClientRequest) -> None:
        try:
            admits = await peers(asked, self.rules, self.private)
            host = self.host or own_host(asked.stream)
            peer, stream = await wait_for_peer(asked, host, admits, self.idle_timeout)
        except StreamClosedError:
            return
        except Exception as error:
            await refuse(asked, error)
            raise
        bridge = Bridge(asked.stream, Target(*peer), Accepted(stream))
        await bridge.upstream()
        await self._relay(asked, bridge, Address(*peer))

    async def _associate(self, asked: ClientRequest, opener: PacketConnector) -> None:
        if not self.associations.acquire_nowait():
            error = OverloadedError(f"{self.associations.count} UDP associations are already open")
            await refuse(asked, error)
            raise error
        try:
            await self._carry_datagrams(asked, opener)
        finally:
            self.associations.release()

    async def _carry_datagrams(self, asked: ClientRequest, opener: PacketConnector) -> None:
        async def admit(address: Address) -> Target:
            return await self.admit(asked, address)

        try:
            association = await associate(asked, opener, self.host, admit)
        except Exception as error:
            await refuse(asked, error)
            raise
        try:
            await association.run(asked.stream, self.idle_timeout)
        finally:
            association.abort()


async def refuse(asked: ClientRequest, error: Exception) -> None:
    """Reply with the code of an error; the connection ends after it."""
    await asked.reply(code_of(error))
    if isinstance(error, OSError) and not isinstance(error, (LlamaError, TimeoutError)):
        # Raised as a LlamaError: an OSError here would abort the client's connection before the reply has arrived.
        raise UnreachableError(f"cannot serve {asked.address}: {error}") from error


def _bound_address(upstream: Stream) -> Address:
    """Return the local address of the connection to the target, if known."""
    if isinstance(upstream, SocketStream):
        name = upstream.socket.getsockname()
        if isinstance(name, tuple):
            return Address(*name[:2])
    return UNSPECIFIED


@layer_factory("socks5.server", "handler")
def server(
    *, auth: Auth | None = None, connect: Connector | None = None, relay: Relay | None = None,
    rules: Rule | None = None, private: bool | None = None, socks4: bool = False, bind: bool = False,
    udp: bool | PacketConnector = False, host: str | None = None, handshake_timeout: float | None = None,
    idle_timeout: float | None = None, max_associations: int = 1024,
) -> ConnectionHandler:  # fmt: skip
    """Serve SOCKS5 (RFC 1928): connect clients to the targets they name.

    `auth` requires a user name and a password (RFC 1929): a mapping of users to passwords, or a function that checks
    both and may be async. The client's `User` is in its stream's extensions. `connect` connects to targets, by
    default `tcp.connect()`; `relay` relays the bytes, by default `tcp.relay()`.

    `rules` is called with the User, or None, and the Target: see `allow`, `deny` and `per_user`. `private` sets
    whether clients may reach loopback, private and other non-public addresses; None allows it to clients that
    connect to a loopback address or a Unix socket. The reply code states why a request was refused.

    `bind` enables BIND. `udp` enables UDP ASSOCIATE: True sends datagrams from this host, a packet connector such as
    `socks5.associate(...)` sends them through it. Both receive at `host`, by default the local address of the
    client's connection. Datagrams are relayed while the client's connection is open, from the client's address and
    a single port; fragments are dropped. `rules` and `private` also apply to the targets of datagrams and to the
    peers that connect to a BIND port. Each worker allows `max_associations` concurrent UDP associations.

    `socks4` also serves SOCKS4 and 4a, which have no passwords. `handshake_timeout`, in seconds, limits the time
    until the request is complete, `idle_timeout` the wait for a BIND peer and for the next datagram of an
    association; the relay has its own idle timeout. Raises ConfigError for invalid settings.
    """
    connect, relay = connect or tcp_connect(), relay or tcp_relay()
    check_accepts(connect, Target, "socks5.server(connect=)")
    check_accepts(relay, Bridge, "socks5.server(relay=)")
    if socks4 and auth is not None:
        raise ConfigError("socks5.server(socks4=True, auth=...): SOCKS4 has no passwords, drop one of them")
    opener = udp_connect() if udp is True else udp or None
    if host is not None and packed_address(host) is None:
        raise ConfigError(f"socks5.server(host={host!r}): expected an IPv4 or IPv6 address")
    if max_associations < 1:
        raise ConfigError(f"socks5.server(max_associations={max_associations}): expected at least 1")
    deadlines = SharedTimeout(handshake_timeout) if handshake_timeout is not None else None
    return Socks5Server(
        connect, relay, checker(auth), rules, private, socks4, bind, opener, FairSemaphore(max_associations), host,
        idle_timeout, handshake_timeout, deadlines,
    )  # fmt: skip

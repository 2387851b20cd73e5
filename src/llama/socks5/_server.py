"""The SOCKS5 server: a client names its target, a connector reaches it, a relay carries the bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError, LlamaError, ProtocolError, Unreachable
from llama._stack import check_takes, factory
from llama._stream import Handler, Stream
from llama._target import Bridge, Connector, Relay, Target
from llama.socks5._address_wire import NOWHERE, Address
from llama.socks5._auth import Auth, Check, checker
from llama.socks5._failures import code_of
from llama.socks5._negotiation import Asked, negotiate
from llama.socks5._rules import Rule, check
from llama.socks5._wire import Command, ReplyCode
from llama.tcp import connect as tcp_connect
from llama.tcp import relay as tcp_relay
from llama.tcp._stream import SocketStream
from llama.tcp._targets import guard


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Socks5Server:
    """Serves SOCKS5 clients."""

    connect: Connector
    relay: Relay
    auth: Check | None
    rules: Rule | None
    private: bool | None
    socks4: bool
    handshake_timeout: float | None

    __takes__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return "socks5.server()" if self.auth is None else "socks5.server(auth=...)"

    async def __call__(self, stream: Stream, /) -> None:
        asked = await self._negotiate(stream)
        if asked is None:
            return
        if asked.command == Command.CONNECT:
            await self._connect(asked)
        else:
            await asked.reply(ReplyCode.COMMAND_NOT_SUPPORTED)
            raise ProtocolError(f"SOCKS command {asked.command} is not served here")

    async def _negotiate(self, stream: Stream) -> Asked | None:
        if self.handshake_timeout is None:
            return await negotiate(stream, self.auth, socks4=self.socks4)
        try:
            async with asyncio.timeout(self.handshake_timeout):
                return await negotiate(stream, self.auth, socks4=self.socks4)
        except TimeoutError:
            raise TimeoutError(f"no SOCKS request within {self.handshake_timeout:g} s") from None

    async def admit(self, asked: Asked, address: Address) -> Target:
        """The target to reach for a client; Refused when it may not."""
        target = guard(Target(*address), asked.stream.extensions, self.private)
        await check(self.rules, asked.user, target)
        return target

    async def _connect(self, asked: Asked) -> None:
        try:
            target = await self.admit(asked, asked.address)
            bridge = Bridge(asked.stream, target, self.connect)
            upstream = await bridge.upstream()
        except Exception as error:
            await refuse(asked, error)
            raise
        try:
            await asked.reply(ReplyCode.SUCCEEDED, _bound(upstream))
            await self.relay(bridge)
            await bridge.aclose()
        finally:
            bridge.abort()


async def refuse(asked: Asked, error: Exception) -> None:
    """Reply with the code that names an error, and leave the connection to end with it."""
    await asked.reply(code_of(error))
    if isinstance(error, OSError) and not isinstance(error, (LlamaError, TimeoutError)):
        # An error of the client's own connection would break it before the reply has arrived.
        raise Unreachable(f"cannot serve {asked.address}: {error}") from error


def _bound(upstream: Stream) -> Address:
    """The local address towards the target, where it is known."""
    if isinstance(upstream, SocketStream):
        name = upstream.socket.getsockname()
        if isinstance(name, tuple):
            return Address(*name[:2])
    return NOWHERE


@factory("socks5.server", "handler")
def server(
    *,
    auth: Auth | None = None,
    connect: Connector | None = None,
    relay: Relay | None = None,
    rules: Rule | None = None,
    private: bool | None = None,
    socks4: bool = False,
    handshake_timeout: float | None = None,
) -> Handler:
    """Serve SOCKS5 (RFC 1928): connect clients to the targets they name.

    `auth` asks for a name and a password (RFC 1929): passwords by user, or a function of both that returns
    whether they are right and may be async. The client's `User` is in its stream's extensions. `connect`
    reaches targets, by default `tcp.connect()`; `relay` carries the bytes, by default `tcp.relay()`.

    `rules` is asked with the User, or None, and the Target: see `allow`, `deny` and `per_user`. `private` tells
    whether loopback, private and other addresses that are not public may be reached; None means by clients
    that come in at a loopback address or a Unix socket. Clients are told why by the reply code.

    `socks4` serves SOCKS4 and 4a too, which know no passwords. `handshake_timeout` in seconds bounds the time
    until the request has come. Raises ConfigError for settings that cannot work.
    """
    connect = connect or tcp_connect()
    relay = relay or tcp_relay()
    check_takes(connect, Target, "socks5.server(connect=)")
    check_takes(relay, Bridge, "socks5.server(relay=)")
    if socks4 and auth is not None:
        raise ConfigError(
            "socks5.server(socks4=True, auth=...): SOCKS4 has no passwords, leave one of them out"
        )
    return Socks5Server(connect, relay, checker(auth), rules, private, socks4, handshake_timeout)

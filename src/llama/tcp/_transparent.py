"""Connections that the kernel led here, on their way elsewhere: Linux' REDIRECT and TPROXY."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from typing import ClassVar

from llama._errors import Refused
from llama._stack import check_takes, factory
from llama._stream import Handler, Stream
from llama._target import Bridge, Connector, Relay, Target
from llama.tcp._connect import connect as tcp_connect
from llama.tcp._led import Led
from llama.tcp._relay import relay as tcp_relay
from llama.tcp._stream import SocketStream

_SO_ORIGINAL_DST = 80  # of the levels of IPv4 and IPv6 alike
_V4, _V6 = struct.Struct("!2xH4s8x"), struct.Struct("!2xH4x16s4x")


def original_target(stream: Stream) -> Target:
    """Where a connection wanted to go before the kernel led it here (`REDIRECT`, `TPROXY`, Linux alone).

    Raises Refused for one that came here of itself.
    """
    sock = stream.socket if isinstance(stream, SocketStream) else stream.extensions.get(socket.socket)
    if sock is None:
        raise Refused(f"{stream!r} is no TCP socket, so where it wanted to go cannot be asked")
    led = stream.extensions.get(Led)
    if led is not None and (own := sock.getsockname())[1] != led.port:
        return Target(_plain(own[0]), own[1])  # TPROXY leaves a connection the address that it went to
    try:
        host, port = _ask(sock)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOTCONN):
            raise
        raise Refused(f"{stream!r} came here of itself: no rule of the kernel has led it") from None
    name = sock.getsockname()
    if _plain(name[0]) == host and name[1] == port:
        raise Refused(f"{stream!r} came here of itself, and would go round in a circle")
    return Target(host, port)


def _ask(sock: socket.socket) -> tuple[str, int]:
    """What the kernel has written down; a socket of both families asks as IPv4 where the client was that."""
    if sock.family == socket.AF_INET6 and not str(sock.getpeername()[0]).startswith("::ffff:"):
        port, address = _V6.unpack(sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _V6.size))
        return socket.inet_ntop(socket.AF_INET6, address), port
    port, address = _V4.unpack(sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _V4.size))
    return socket.inet_ntop(socket.AF_INET, address), port


def _plain(host: str) -> str:
    return host.removeprefix("::ffff:")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Transparent:
    """Relays each connection to where it wanted to go."""

    connect: Connector
    relay: Relay

    __takes__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return "tcp.transparent()"

    async def __call__(self, stream: Stream, /) -> None:
        bridge = Bridge(stream, original_target(stream), self.connect)
        try:
            await self.relay(bridge)
            await bridge.aclose()
        finally:
            bridge.abort()


@factory("tcp.transparent", "handler")
def transparent(*, connect: Connector | None = None, relay: Relay | None = None) -> Handler:
    """Relay connections that the kernel led here to where they wanted to go, as a transparent proxy does.

    Linux alone, with a rule such as `iptables -t nat -A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 8443`;
    this program's own connections have to be left out of it. For `TPROXY`, which translates no addresses, the
    listener is `tcp.server(address, handler, transparent=True)`. `connect` and `relay` are those of `tcp.forward`.
    A connection that no rule has led here is Refused; so is one by TPROXY to the listener's own port elsewhere.
    """
    connect = connect or tcp_connect()
    relay = relay or tcp_relay()
    check_takes(connect, Target, "tcp.transparent(connect=)")
    check_takes(relay, Bridge, "tcp.transparent(relay=)")
    return Transparent(connect, relay)

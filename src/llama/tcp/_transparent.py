"""Transparent proxying: connections that the kernel redirects, by REDIRECT or TPROXY on Linux."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import RefusedError
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama._core.target import Bridge, Connector, Relay, Target
from llama.tcp._connect import connect as tcp_connect
from llama.tcp._io.stream import SocketStream
from llama.tcp._relay.relay import relay as tcp_relay
from llama.tcp._tproxy import ListenerPort

_SO_ORIGINAL_DST = 80  # the same number at the IPv4 and the IPv6 level
_V4, _V6 = struct.Struct("!2xH4s8x"), struct.Struct("!2xH4x16s4x")


def original_target(stream: Stream) -> Target:
    """Return the original destination of a connection that the kernel redirected (REDIRECT or TPROXY, Linux only).

    Raises RefusedError for a connection that was not redirected.
    """
    sock = stream.socket if isinstance(stream, SocketStream) else stream.extensions.get(socket.socket)
    if sock is None:
        raise RefusedError(f"{stream!r} is not a TCP socket, so it has no original destination")
    led = stream.extensions.get(ListenerPort)
    if led is not None and (own := sock.getsockname())[1] != led.port:
        return Target(_unmapped(own[0]), own[1])  # with TPROXY the local address is the original destination
    try:
        host, port = _query_original_dst(sock)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOTCONN):
            raise
        raise RefusedError(
            f"{stream!r} was not redirected here: no REDIRECT or TPROXY rule applied to it"
        ) from None
    name = sock.getsockname()
    if _unmapped(name[0]) == host and name[1] == port:
        raise RefusedError(f"{stream!r} was not redirected here: relaying it would loop")
    return Target(host, port)


def _query_original_dst(sock: socket.socket) -> tuple[str, int]:
    """Return the kernel's original destination; a dual-stack socket queries it as IPv4 for an IPv4 client."""
    if sock.family == socket.AF_INET6 and not str(sock.getpeername()[0]).startswith("::ffff:"):
        port, address = _V6.unpack(sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _V6.size))
        return socket.inet_ntop(socket.AF_INET6, address), port
    port, address = _V4.unpack(sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _V4.size))
    return socket.inet_ntop(socket.AF_INET, address), port


def _unmapped(host: str) -> str:
    return host.removeprefix("::ffff:")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Transparent:
    """Relays each connection to its original destination."""

    connect: Connector
    relay: Relay

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return "tcp.transparent()"

    async def __call__(self, stream: Stream, /) -> None:
        bridge = Bridge(stream, original_target(stream), self.connect)
        try:
            await self.relay(bridge)
            await bridge.aclose()
        finally:
            bridge.abort()


@layer_factory("tcp.transparent", "handler")
def transparent(*, connect: Connector | None = None, relay: Relay | None = None) -> ConnectionHandler:
    """Relay redirected connections to their original destination, as a transparent proxy.

    Linux only, with a rule such as `iptables -t nat -A PREROUTING -p tcp --dport 443 -j REDIRECT --to-ports 8443`,
    which must not match this program's own connections. For TPROXY, which does not translate addresses, use the
    listener `tcp.server(address, handler, transparent=True)`. `connect` and `relay` are those of `tcp.forward`.
    Raises RefusedError for a connection that was not redirected, and for one by TPROXY to the listener's port on
    another address.
    """
    connect = connect or tcp_connect()
    relay = relay or tcp_relay()
    check_accepts(connect, Target, "tcp.transparent(connect=)")
    check_accepts(relay, Bridge, "tcp.transparent(relay=)")
    return Transparent(connect, relay)

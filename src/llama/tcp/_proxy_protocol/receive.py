"""The PROXY protocol on the receiving side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, RefusedError, TruncatedError
from llama._core.server import LocalAddress, PeerAddress
from llama._core.service import Middleware
from llama._core.stack import layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.layers._peer_key import network_of, peer_host
from llama.tcp._io.stream import SocketStream
from llama.tcp._middleware.base import connection_middleware
from llama.tcp._policy.networks import UNIX, Network, Networks
from llama.tcp._proxy_protocol.header import V2_LIMIT, ProxyHeader, parse


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ProxyProtocol:
    """Takes the client's address from the PROXY header of a trusted proxy."""

    inner: ConnectionHandler
    trust: Networks
    require: bool
    timeout: float | None
    limit: int

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return _spec(self.trust)

    async def __call__(self, stream: Stream, /) -> None:
        host = peer_host(stream)
        if host in self.trust:
            header = await self._read(stream)
            if header is None:
                return
            _apply(header, stream)
        elif self.require:
            raise RefusedError(f"{host or 'a peer without an address'} is not trusted by {self!r}")
        await self.inner(stream)

    async def _read(self, stream: Stream) -> ProxyHeader | None:
        clock = asyncio.timeout(self.timeout)
        try:
            async with clock:
                return await _read_header(stream, self.limit)
        except TimeoutError:
            if not clock.expired():
                raise
            raise TimeoutError(f"no PROXY header within {self.timeout:g} s") from None


async def _read_header(stream: Stream, limit: int) -> ProxyHeader | None:
    """Return the header; None if the peer disconnects without sending a byte, as health checks do."""
    data = b""
    while (found := parse(data, limit)) is None:
        part = await stream.read()
        if not part and data:
            raise TruncatedError(f"the connection ended after {len(data)} bytes of a PROXY header")
        if not part:
            return None
        data += part
    header, size = found
    if size < len(data):
        stream.unread(data[size:])
    return header


def _apply(header: ProxyHeader, stream: Stream) -> None:
    stream.extensions.set(header)
    if header.source is None or header.destination is None:
        return
    peer = PeerAddress(UNIX, 0) if isinstance(header.source, str) else PeerAddress(*_unmapped(header.source))
    stream.extensions.set(peer)
    where = (header.destination, 0) if isinstance(header.destination, str) else _unmapped(header.destination)
    stream.extensions.set(LocalAddress(*where))
    if isinstance(stream, SocketStream):
        stream.peer = str(peer)  # the name of this connection in the log


def _unmapped(address: tuple[str, int]) -> tuple[str, int]:
    return network_of(address[0], 128), address[1]


@layer_factory("tcp.proxy_protocol")
def proxy_protocol(
    *,
    trust: Iterable[Network],
    require: bool = False,
    timeout: float | None = None,
    limit: int = V2_LIMIT,
) -> Middleware[Stream, None]:
    """Take the client's address from a PROXY header, version 1 or 2, of peers in `trust`.

    These peers must send a header: without one the connection ends with ProtocolError. Other peers are served
    without reading a header or, with `require`, refused. `PeerAddress`, `LocalAddress` and the `ProxyHeader` itself,
    with its TLVs, are set in the extensions; for a connection of the proxy itself (LOCAL, UNKNOWN) the addresses do not
    change. `timeout` in seconds is for the whole header; `limit` is the largest version 2 header in bytes.
    The networks have the syntax of `tcp.allow`.

        stack(tcp.proxy_protocol(trust=["10.0.0.0/8"], timeout=5), tcp.forward("127.0.0.1:8080"))
    """
    trusted = Networks(trust)
    if not trusted.names:
        raise ConfigError("tcp.proxy_protocol(trust=()): expected the networks of the proxies in front")
    if timeout is not None and timeout <= 0:
        raise ConfigError(f"tcp.proxy_protocol(timeout={timeout:g}): expected more than 0 seconds, or None")
    return connection_middleware(
        _spec(trusted), lambda inner: ProxyProtocol(inner, trusted, require, timeout, limit)
    )


def _spec(trust: Networks) -> str:
    return f"tcp.proxy_protocol(trust=[{trust}])"

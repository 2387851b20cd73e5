"""Maximum number of concurrent connections for each peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from llama._core.errors import ConfigError, OverloadedError
from llama._core.service import Middleware
from llama._core.stack import layer_factory
from llama._core.stream import ConnectionHandler, Stream
from llama.layers._peer_key import network_of, peer_host
from llama.tcp._middleware.base import connection_middleware, noop_layer


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class PerPeerLimit:
    """Refuses further connections of a peer that has reached the limit."""

    inner: ConnectionHandler
    connections: int
    ipv6_prefix: int
    active: dict[str | None, int] = field(default_factory=dict[str | None, int])

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return _spec(self.connections, self.ipv6_prefix)

    async def __call__(self, stream: Stream, /) -> None:
        host = peer_host(stream)
        peer = None if host is None else network_of(host, self.ipv6_prefix)
        count = self.active.get(peer, 0)
        if count >= self.connections:
            raise OverloadedError(f"{peer or 'a peer without an address'} has {count} connections already")
        self.active[peer] = count + 1
        try:
            await self.inner(stream)
        finally:
            self._release(peer)

    def _release(self, peer: str | None) -> None:
        if self.active[peer] > 1:
            self.active[peer] -= 1
        else:
            del self.active[peer]


@layer_factory("tcp.per_peer_limit")
def per_peer_limit(connections: int | None, *, ipv6_prefix: int = 128) -> Middleware[Stream, None]:
    """Serve at most `connections` concurrent connections of one address, and reset others with Overloaded.

    None disables the limit. IPv6 addresses with the same first `ipv6_prefix` bits count as one peer: a customer
    usually has a /64. Put `tcp.proxy_protocol` before this layer to count the addresses of trusted PROXY headers.
    Each worker counts separately.

        stack(tcp.per_peer_limit(20, ipv6_prefix=64), tcp.forward("127.0.0.1:8080"))
    """
    if connections is None:
        return noop_layer("tcp.per_peer_limit(None)")
    if connections < 1:
        raise ConfigError(f"tcp.per_peer_limit({connections}): expected at least 1 connection, or None")
    if not 1 <= ipv6_prefix <= 128:
        raise ConfigError(f"tcp.per_peer_limit(ipv6_prefix={ipv6_prefix}): expected 1 to 128 bits")
    count = connections
    return connection_middleware(
        _spec(count, ipv6_prefix), lambda inner: PerPeerLimit(inner, count, ipv6_prefix)
    )


def _spec(connections: int, ipv6_prefix: int) -> str:
    prefix = "" if ipv6_prefix == 128 else f", ipv6_prefix={ipv6_prefix}"
    return f"tcp.per_peer_limit({connections}{prefix})"

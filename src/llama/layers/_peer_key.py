"""The key that a peer is counted by: its address or its network."""

from __future__ import annotations

import socket

from llama._core.extensions import Extensions
from llama._core.server import PeerAddress

_MAPPED = bytes(10) + b"\xff\xff"


def packed_address(host: str) -> bytes | None:
    """Return the 4 or 16 bytes of an address, None if invalid; IPv4-mapped IPv6 becomes IPv4."""
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        address = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, ValueError):
        return None
    return address[12:] if address.startswith(_MAPPED) else address


def network_of(host: str, ipv6_prefix: int) -> str:
    """Return the host, or for an IPv6 address its network of `ipv6_prefix` bits; IPv4-mapped IPv6 becomes IPv4."""
    if ":" not in host or (address := packed_address(host)) is None:
        return host
    if len(address) == 4:
        return socket.inet_ntop(socket.AF_INET, address)
    if ipv6_prefix == 128:
        return host
    drop = 128 - ipv6_prefix
    bits = int.from_bytes(address, "big") >> drop << drop
    return f"{socket.inet_ntop(socket.AF_INET6, bits.to_bytes(16, 'big'))}/{ipv6_prefix}"


def peer_host(input: object) -> str | None:
    """Return the peer's address from the extensions of any input, or None."""
    extensions = getattr(input, "extensions", None)
    peer = extensions.get(PeerAddress) if isinstance(extensions, Extensions) else None
    return peer.host if peer is not None else None

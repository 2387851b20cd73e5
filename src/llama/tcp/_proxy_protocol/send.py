"""The PROXY protocol on the sending side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from llama._core.errors import ConfigError
from llama._core.server import LocalAddress, PeerAddress
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.layers._peer_key import network_of, packed_address
from llama.tcp._addresses import local_address
from llama.tcp._connect import connect as tcp_connect
from llama.tcp._proxy_protocol.header import ProxyHeader
from llama.tcp._proxy_protocol.tlv import Tlv

Tlvs: TypeAlias = Callable[[Target], Iterable[Tlv]]
"""Returns additional TLVs about a client, from a target and its extensions."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class SendProxy:
    """Sends a PROXY header with the client's address before all other bytes."""

    inner: Connector
    version: Literal[1, 2]
    tlvs: Tlvs | None
    checksum: bool

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return f"tcp.send_proxy(version={self.version})"

    async def __call__(self, target: Target, /) -> Stream:
        header = self._header(target)
        stream = await self.inner(target)
        try:
            await stream.write(header)
        except BaseException:
            stream.abort()
            raise
        return stream

    def _header(self, target: Target) -> bytes:
        peer = target.extensions.get(PeerAddress)
        if peer is None:
            header = ProxyHeader()
        else:
            own = () if self.tlvs is None else tuple(self.tlvs(target))
            header = header_for(peer, local_address(target.extensions), own)
        return header.encode_v1() if self.version == 1 else header.encode_v2(checksum=self.checksum)


def header_for(peer: PeerAddress, local: LocalAddress | None, tlvs: tuple[Tlv, ...] = ()) -> ProxyHeader:
    """Return the header of a client's connection; without addresses if the client did not use IP."""
    source = _ip(peer)
    if source is None:
        return ProxyHeader.between(None, None, *tlvs)
    nowhere = (
        "::" if ":" in source[0] else "0.0.0.0",
        0,
    )  # unknown, but the client's address is still useful
    return ProxyHeader.between(source, _ip(local) or nowhere, *tlvs)


def _ip(address: PeerAddress | LocalAddress | None) -> tuple[str, int] | None:
    if address is None or packed_address(address.host) is None:
        return None
    return network_of(address.host, 128).partition("%")[0], address.port


@layer_factory("tcp.send_proxy", "connector")
def send_proxy(
    connect: Connector | None = None,
    *,
    version: Literal[1, 2] = 2,
    tlvs: Tlvs | None = None,
    checksum: bool = False,
) -> Connector:
    """Connect, and first send a PROXY header with the client's source and destination addresses.

    `connect` connects, by default `tcp.connect()`. The addresses are those in the target's extensions, where bridges
    set them; without them the header declares a connection of the proxy itself (LOCAL; UNKNOWN in version 1).
    `tlvs` is called with the target and returns further version 2 fields, as `(type, bytes)`; `checksum` adds a
    CRC-32C. Put TLS to the target around this connector: the header precedes the handshake.

        tcp.forward("127.0.0.1:8080", connect=tcp.send_proxy())
    """
    if version not in (1, 2):
        raise ConfigError(f"tcp.send_proxy(version={version!r}): expected 1 or 2")
    if version == 1 and (tlvs is not None or checksum):
        raise ConfigError("tcp.send_proxy(version=1): only version 2 has TLVs and a checksum")
    connector = connect or tcp_connect()
    check_accepts(connector, Target, "tcp.send_proxy(connect=)")
    return SendProxy(connector, version, tlvs, checksum)

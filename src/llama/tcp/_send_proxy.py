"""The PROXY protocol on the sending side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from llama._errors import ConfigError
from llama._server import Local, Peer
from llama._stack import check_takes, factory
from llama._stream import Stream
from llama._target import Connector, Target
from llama.layers._peer_key import network_of, packed
from llama.tcp._addresses import local_address
from llama.tcp._connect import connect as tcp_connect
from llama.tcp._proxy_tlv_wire import Tlv
from llama.tcp._proxy_wire import ProxyHeader

Tlvs: TypeAlias = Callable[[Target], Iterable[Tlv]]
"""What else to say of a client, from the extensions that came with its target."""


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class SendProxy:
    """Tells the target first who the client is."""

    inner: Connector
    version: Literal[1, 2]
    tlvs: Tlvs | None
    checksum: bool

    __takes__: ClassVar[type] = Target

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
        peer = target.extensions.get(Peer)
        if peer is None:
            header = ProxyHeader()
        else:
            own = () if self.tlvs is None else tuple(self.tlvs(target))
            header = header_for(peer, local_address(target.extensions), own)
        return header.encode_v1() if self.version == 1 else header.encode_v2(checksum=self.checksum)


def header_for(peer: Peer, local: Local | None, tlvs: tuple[Tlv, ...] = ()) -> ProxyHeader:
    """The header of a client's connection; what did not come over IP has no addresses in it."""
    source = _ip(peer)
    if source is None:
        return ProxyHeader.between(None, None, *tlvs)
    nowhere = ("::" if ":" in source[0] else "0.0.0.0", 0)  # the client's address is still worth telling
    return ProxyHeader.between(source, _ip(local) or nowhere, *tlvs)


def _ip(address: Peer | Local | None) -> tuple[str, int] | None:
    if address is None or packed(address.host) is None:
        return None
    return network_of(address.host, 128).partition("%")[0], address.port


@factory("tcp.send_proxy", "connector")
def send_proxy(
    over: Connector | None = None,
    *,
    version: Literal[1, 2] = 2,
    tlvs: Tlvs | None = None,
    checksum: bool = False,
) -> Connector:
    """Connect, and first tell the target in a PROXY header where the client came from and went to.

    `over` connects, by default `tcp.connect()`. The client's addresses are those in the target's extensions,
    as bridges set them; where they have none, the header says that the proxy speaks for itself (LOCAL;
    UNKNOWN in version 1). `tlvs` is called with the target for what else to say in version 2, as
    `(type, bytes)`; `checksum` adds a CRC-32C. TLS to the target goes over this: the header comes before it.

        tcp.forward("127.0.0.1:8080", connect=tcp.send_proxy())
    """
    if version not in (1, 2):
        raise ConfigError(f"tcp.send_proxy(version={version!r}): expected 1 or 2")
    if version == 1 and (tlvs is not None or checksum):
        raise ConfigError("tcp.send_proxy(version=1): only version 2 has TLVs and a checksum")
    connector = over or tcp_connect()
    check_takes(connector, Target, "tcp.send_proxy(over=)")
    return SendProxy(connector, version, tlvs, checksum)

"""PROXY protocol TLVs that describe a client's TLS session."""

from __future__ import annotations

from typing import Any

from llama._core.target import Target
from llama.tcp._proxy_protocol.tlv import ProxySSL, Tlv, TlvType
from llama.tls._client_hello.client_hello import ClientHello
from llama.tls._info import TLSInfo


def proxy_tlvs(target: Target) -> list[Tlv]:
    """TLVs with the client's server name, ALPN and TLS session: `tcp.send_proxy(tlvs=tls.proxy_tlvs)`.

    If the client's TLS was routed but not terminated, only the server name is included; without TLS the list is
    empty.
    """
    info, hello = target.extensions.get(TLSInfo), target.extensions.get(ClientHello)
    asked = info or hello
    tlvs: list[Tlv] = []
    if info is not None and info.alpn is not None:
        tlvs.append((TlvType.ALPN, info.alpn.encode("latin-1")))
    if asked is not None and asked.server_name is not None:
        tlvs.append((TlvType.AUTHORITY, asked.server_name.encode()))
    if info is not None:
        tlvs.append((TlvType.SSL, _session(info).encode()))
    return tlvs


def _session(info: TLSInfo) -> ProxySSL:
    certificate = info.peer_certificate
    return ProxySSL(
        certificate_now=certificate is not None and not info.resumed,
        certificate_in_session=certificate is not None,
        verified=certificate is not None,
        version=info.version,
        common_name=_common_name(certificate),
        cipher=info.cipher,
    )


def _common_name(certificate: dict[str, Any] | None) -> str | None:
    subject = certificate["subject"] if certificate is not None else ()
    names = (value for part in subject for kind, value in part if kind == "commonName")
    return next(names, None)

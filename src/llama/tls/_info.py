"""Information about a TLS session, computed on access."""

from __future__ import annotations

import ssl
from typing import Any, cast

from llama.tls._client_hello.client_hello import ClientHello


class TLSInfo:
    """The TLS session of a connection, in its extensions after the handshake."""

    __slots__ = ("_client_hello", "_tls")

    def __init__(self, tls: ssl.SSLObject, client_hello: ClientHello | str | None) -> None:
        """Wrap a session; `client_hello` is the client's hello, or the server name."""
        self._tls = tls
        self._client_hello = client_hello

    @property
    def server_name(self) -> str | None:
        """The server name (SNI) that the client sent; None if it sent none."""
        return (
            self._client_hello.server_name
            if isinstance(self._client_hello, ClientHello)
            else self._client_hello
        )

    @property
    def version(self) -> str:
        """`TLSv1.2` or `TLSv1.3`."""
        return self._tls.version() or ""

    @property
    def cipher(self) -> str:
        """The cipher suite's name."""
        found = self._tls.cipher()
        return found[0] if found else ""

    @property
    def alpn(self) -> str | None:
        """The negotiated protocol; None if there is none."""
        return self._tls.selected_alpn_protocol()

    @property
    def resumed(self) -> bool:
        """Whether an earlier session was resumed."""
        return bool(self._tls.session_reused)

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The peer's verified certificate as `ssl.SSLSocket.getpeercert` returns it; None if there is none."""
        return cast("dict[str, Any] | None", self._tls.getpeercert() or None)

    @property
    def peer_certificate_der(self) -> bytes | None:
        """The peer's certificate in DER; None if there is none."""
        return self._tls.getpeercert(binary_form=True)

    def __repr__(self) -> str:
        return f"TLSInfo({self.version}, {self.cipher}, alpn={self.alpn!r}, server_name={self.server_name!r})"

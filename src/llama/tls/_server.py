"""TLS termination: parse the ClientHello first, then choose the certificate and its policy.

Choosing in OpenSSL's `sni_callback` would keep the first context's client-certificate policy and minimum version.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, TLSError
from llama._core.server import should_close_gracefully
from llama._core.service import Middleware
from llama._core.stack import alpn_protocols, layer_factory, named_layer
from llama._core.stream import ConnectionHandler, Stream
from llama.tcp._io.first_bytes_deadline import FirstBytesDeadline
from llama.tls._certificates.files import (
    Certificate,
    CertificateEntry,
    ClientAuth,
    Password,
    PathLike,
    Policy,
)
from llama.tls._certificates.store import CertificateStore, SiteGroup
from llama.tls._client_hello.client_hello import ClientHello
from llama.tls._client_hello.peek import NO_APPLICATION_PROTOCOL, check_hello, read_hello, send_alert
from llama.tls._drain import drain
from llama.tls._info import TLSInfo
from llama.tls._keylog import open_key_log
from llama.tls._nonblocking import open_session
from llama.tls._stream import TLSStream
from llama.tls._tls_errors import tls_error


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TLSServer:
    """Performs the server's handshake and passes the plaintext stream to the inner handler."""

    inner: ConnectionHandler
    certificates: CertificateStore
    handshake_timeout: float | None
    name: str

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return self.name

    async def __call__(self, stream: Stream, /) -> None:
        try:
            session = await self._open(stream)
        except TLSError:
            await drain(stream)
            raise
        try:
            await self.inner(session)
        except Exception as error:
            if should_close_gracefully(error):
                await session.aclose()
            raise
        await session.aclose()

    async def _open(self, stream: Stream) -> TLSStream:
        if self.handshake_timeout is None:
            return await self._handshake_with_grace(stream)
        deadline = asyncio.timeout(self.handshake_timeout)
        try:
            async with deadline:
                return await self._handshake_with_grace(stream)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise TimeoutError(f"TLS handshake timed out after {self.handshake_timeout:g} s") from None

    async def _handshake_with_grace(self, stream: Stream) -> TLSStream:
        with FirstBytesDeadline(stream):
            return await self._handshake(stream)

    async def _handshake(self, stream: Stream) -> TLSStream:
        try:
            hello, data = await read_hello(stream)
            site = self.certificates.only or await self._choose(stream, hello)
            if site.policy.alpn:
                await self._check_alpn(stream, hello, site)
            stream.extensions.set(hello)
            session = open_session(stream, site.context(), server_side=True)
            try:
                await session.handshake(data)
            except ssl.SSLError as error:
                await session.send_alert()
                raise tls_error(error) from error
            stream.extensions.set(TLSInfo(session.ssl_object, hello))
            return session
        except TLSError as error:
            raise TLSError(f"TLS handshake failed: {error}") from error.__cause__

    async def _choose(self, stream: Stream, hello: ClientHello) -> CertificateEntry | SiteGroup:
        await check_hello(stream, hello)
        return self.certificates.choose(hello.server_name)

    async def _check_alpn(
        self, stream: Stream, hello: ClientHello, site: CertificateEntry | SiteGroup
    ) -> None:
        await check_hello(stream, hello)
        if hello.alpn and not set(hello.alpn) & set(site.policy.alpn):
            await send_alert(stream, NO_APPLICATION_PROTOCOL)  # RFC 7301, section 3.2
            raise TLSError(
                f"the client offers {', '.join(hello.alpn)} in ALPN, expected {', '.join(site.policy.alpn)}"
            )


@layer_factory("tls.server")
def server(
    cert: PathLike | Certificate,
    key: PathLike | None = None,
    /,
    *more: Certificate,
    password: Password | None = None,
    alpn: Sequence[str] | None = None,
    client_ca: PathLike | None = None,
    client_auth: ClientAuth | None = None,
    minimum_version: str = "TLSv1.2",
    handshake_timeout: float | None = None,
    keylog: PathLike | None = None,
) -> Middleware[Stream, None]:
    """Terminate TLS with a certificate, or with one of several, chosen by server name (SNI).

    `cert` and `key` are PEM files (`cert` may include the key). Further certificates are `Certificate`s, each with
    its names and its own policy; the first certificate also serves every other name. If certificates for one name
    have different key types, such as RSA and EC, each client gets one that it can verify; among those with the
    same type the first is used. Changed files are reloaded. `alpn` lists protocols, the preferred first; by default
    the inner service declares them. `client_ca` is the CA for client certificates, and `client_auth` is then
    `required` (the default) or `optional`. The handler finds `ClientHello` and `TLSInfo` in the extensions.
    `keylog` is a debugging aid: a file to append the secrets of all sessions to, with which anyone can decrypt their
    traffic; the environment variable SSLKEYLOGFILE has no effect. Raises ConfigError at once for unusable files. A
    connection raises TLSError after the alert, and TimeoutError after `handshake_timeout` seconds.
    """
    first = cert if isinstance(cert, Certificate) else Certificate(cert, key, password=password)
    if isinstance(cert, Certificate) and key is not None:
        raise ConfigError("tls.server(): key needs a certificate file as cert, not a Certificate")

    secrets = open_key_log(keylog)

    def sites(offered: tuple[str, ...], *, warn: bool) -> CertificateStore:
        policy = Policy(
            client_ca=client_ca,
            client_auth=client_auth,
            minimum_version=minimum_version,
            alpn=offered,
            keylog=secrets,
        )
        return CertificateStore(
            [CertificateEntry(each, each.policy(policy)) for each in (first, *more)], warn=warn
        )

    def build(inner: ConnectionHandler) -> ConnectionHandler:
        offered = tuple(alpn) if alpn is not None else alpn_protocols(inner)
        return TLSServer(inner, sites(offered, warn=True), handshake_timeout, name)

    name = f"tls.server({os.fspath(first.cert)})"
    sites(tuple(alpn or ()), warn=False)  # fail when the layer is made, so that the traceback names its line
    return named_layer(name, build, input_type=Stream, inner_type=Stream)

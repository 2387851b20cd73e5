"""The TLS connector: verified by default, over any other connector."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import ClassVar

from llama._core.errors import ConfigError, LlamaError, TLSError
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.tcp import connect as tcp_connect
from llama.tls._certificates.files import Password, PathLike, load_authority, load_pair, set_minimum_version
from llama.tls._certificates.names import to_ascii
from llama.tls._info import TLSInfo
from llama.tls._keylog import KeyLog, open_key_log
from llama.tls._nonblocking import open_session
from llama.tls._stream import TLSStream
from llama.tls._tls_errors import tls_error

MAX_CONTEXTS = 64


@dataclass(frozen=True, slots=True)
class TLSParams:
    """Per-connection TLS settings in a target's extensions; they override the connector's settings."""

    alpn: tuple[str, ...] | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class _Settings:
    ca: PathLike | None
    cert: PathLike | None
    key: PathLike | None
    password: Password | None
    minimum_version: str
    insecure: bool
    keylog: KeyLog | None

    def context(self, alpn: tuple[str, ...]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        set_minimum_version(context, self.minimum_version)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            load_authority(context, self.ca)
        else:
            context.load_default_certs()
        if self.cert is not None:
            load_pair(context, self.cert, self.key, self.password)
        if self.keylog is not None:
            self.keylog.attach(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TLSConnect:
    """A connector that opens a connection to a target and performs the TLS handshake."""

    inner: Connector
    settings: _Settings
    alpn: tuple[str, ...]
    server_name: str | None
    handshake_timeout: float | None
    contexts: dict[tuple[str, ...], ssl.SSLContext] = field(
        default_factory=dict[tuple[str, ...], ssl.SSLContext]
    )

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return f"tls.connect({'insecure=True' if self.settings.insecure else ''})"

    async def __call__(self, target: Target, /) -> Stream:
        wanted = target.extensions.get(TLSParams) or TLSParams()
        name = _host_name(target, wanted.server_name or self.server_name)
        context = self._context(self.alpn if wanted.alpn is None else wanted.alpn)
        stream = await self.inner(target)
        try:
            session = open_session(stream, context, server_side=False, server_hostname=name)
            await self._handshake_with_grace(session, target)
        except TLSError:
            await stream.aclose()  # not `abort`, which could discard the alert
            raise
        except BaseException:
            stream.abort()
            raise
        session.extensions.set(TLSInfo(session.ssl_object, name))
        return session

    async def _handshake_with_grace(self, session: TLSStream, target: Target) -> None:
        deadline = asyncio.timeout(self.handshake_timeout)
        try:
            async with deadline:
                await session.handshake()
        except TimeoutError as error:
            if not deadline.expired():
                raise TLSError(f"TLS handshake with {target} failed: {error}") from error
            raise TimeoutError(
                f"TLS handshake with {target} timed out after {self.handshake_timeout:g} s"
            ) from None
        except ssl.SSLError as error:
            await session.send_alert()
            raise TLSError(f"TLS handshake with {target} failed: {tls_error(error)}") from error
        except (LlamaError, OSError) as error:
            raise TLSError(f"TLS handshake with {target} failed: {error}") from error

    def _context(self, alpn: tuple[str, ...]) -> ssl.SSLContext:
        found = self.contexts.get(alpn)
        if found is None:
            if len(self.contexts) >= MAX_CONTEXTS:
                self.contexts.clear()
            found = self.contexts[alpn] = self.settings.context(alpn)
        return found


def _host_name(target: Target, wanted: str | None) -> str:
    """Return the name or address to send as SNI and to verify the certificate against."""
    name = wanted or target.host
    if name.startswith("unix:"):
        raise ConfigError(f"{target} has no host name to verify: give server_name")
    address = name.partition("%")[0]  # certificates do not include the zone of an IPv6 address
    try:
        return str(ip_address(address))
    except ValueError:
        pass
    try:
        return to_ascii(name)
    except ValueError as error:
        raise TLSError(f"TLS handshake with {target} failed: {error}") from None


@layer_factory("tls.connect", "connector")
def connect(
    connect: Connector | None = None,
    *,
    ca: PathLike | None = None,
    cert: PathLike | None = None,
    key: PathLike | None = None,
    password: Password | None = None,
    alpn: Sequence[str] = (),
    server_name: str | None = None,
    minimum_version: str = "TLSv1.2",
    handshake_timeout: float | None = None,
    insecure: bool = False,
    keylog: PathLike | None = None,
) -> Connector:
    """Connect over TLS, on top of `tcp.connect()` or another connector.

    The peer's certificate is verified for the target's host or for `server_name`, against the system's trust
    store (SSL_CERT_FILE and SSL_CERT_DIR are honoured) or against `ca`, a PEM file or directory;
    `insecure=True` disables verification. `cert` and `key` are the client certificate. `alpn` lists the protocols
    to offer. The stream's extensions have `TLSInfo`. `keylog` is a debugging aid: a file to append the secrets
    of all sessions to, with which anyone can decrypt their traffic; the environment variable SSLKEYLOGFILE has no
    effect. Raises ConfigError at once for unusable files. A connection raises TLSError if the handshake fails,
    TimeoutError after `handshake_timeout` seconds, and the errors of the connector below.
    """
    inner = connect or tcp_connect()
    check_accepts(inner, Target, "tls.connect(connect=)")
    if insecure and ca is not None:
        raise ConfigError(f"tls.connect(): insecure=True and ca={os.fspath(ca)!r} are mutually exclusive")
    if key is not None and cert is None:
        raise ConfigError("tls.connect(): key needs cert, its certificate file")
    settings = _Settings(ca, cert, key, password, minimum_version, insecure, open_key_log(keylog))
    offered = tuple(alpn)
    return TLSConnect(
        inner, settings, offered, server_name, handshake_timeout, {offered: settings.context(offered)}
    )

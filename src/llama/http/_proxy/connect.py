"""A connector that reaches targets through an HTTP proxy by CONNECT (RFC 9110 section 9.3.6)."""

from __future__ import annotations

import asyncio
import errno
import os
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from llama._core.errors import (
    ConfigError,
    LlamaError,
    ProtocolError,
    RefusedError,
    TooLargeError,
    TruncatedError,
    UnreachableError,
)
from llama._core.stack import check_accepts, layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.http._h1.client import NoResponseError
from llama.http._h1.wire.encode import encode_request
from llama.http._h1.wire.fields import HeadBuffer
from llama.http._h1.wire.head import ResponseHead, is_host_and_port, parse_response
from llama.http._h2.client_stream import UnprocessedError
from llama.http._messages.headers import Headers, Pairs
from llama.http._messages.message import Request, Response
from llama.http._messages.origin import Origin
from llama.http._messages.upgrade import UpgradedConnection
from llama.http._proxy.connect_h2 import ProxyConnection, TunnelPool
from llama.layers._peer_key import packed_address
from llama.tcp import connect as tcp_connect
from llama.tcp._connect import Connect
from llama.tcp._policy.address_filter import filter_addresses, proxy_hop
from llama.tls import TLSParams
from llama.tls._connect import TLSConnect

ALPN = ("h2", "http/1.1")
H2C = "h2c://"
MAX_ATTEMPTS = 3
_READ = 16384
_MAX_INFORMATIONAL = 16  # the maximum number of interim (1xx) responses
_BY_STATUS = {504: errno.ETIMEDOUT}
_BY_PROXY_STATUS = {  # RFC 9209, section 2.3
    "connection_refused": errno.ECONNREFUSED,
    "connection_timeout": errno.ETIMEDOUT,
    "destination_ip_unroutable": errno.ENETUNREACH,
    "destination_not_found": errno.EHOSTUNREACH,
    "destination_unavailable": errno.EHOSTUNREACH,
    "dns_error": errno.EHOSTUNREACH,
    "dns_timeout": errno.EHOSTUNREACH,
}


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class HttpConnect:
    """A connector that reaches targets through an HTTP proxy."""

    inner: Connector
    proxy: Target
    headers: Headers
    handshake_timeout: float | None
    sharing: TunnelPool | None
    """The shared HTTP/2 connections to the proxy; None if HTTP/2 is not an option."""

    __input_type__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return f"http.connect({self.proxy})"

    async def __aenter__(self) -> HttpConnect:
        if self.sharing is not None:
            self.sharing.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.sharing is not None:
            await self.sharing.leave()

    async def __call__(self, target: Target, /) -> Stream:
        if packed_address(target.host) is not None:
            filter_addresses(target, (target.host,))
        authority = _authority(target)
        if authority is None:
            raise UnreachableError(
                f"{self._error_context(target)}: CONNECT requires a host and a port from 1 to 65535"
            )
        way = proxy_hop(self.proxy, target)
        if self.sharing is None:
            return await self._over_h1(await self.inner(way), target, authority)
        for _ in range(MAX_ATTEMPTS):
            found = await self.sharing.open().acquire(way)
            if not isinstance(found, ProxyConnection):
                return await self._over_h1(found, target, authority)
            if (stream := await self._over_h2(found, target, authority)) is not None:
                return stream
        raise UnreachableError(
            f"{self._error_context(target)}: the proxy did not process the request {MAX_ATTEMPTS} times"
        )

    async def _over_h1(self, stream: Stream, target: Target, authority: str) -> Stream:
        headers = self.headers.copy()
        headers.insert(0, "Host", authority)
        request = encode_request("CONNECT", authority, headers, 0)
        try:
            async with self._connect_headers(target):
                await stream.write(request)
                head = await _final_head(stream)
            if not 200 <= head.status < 300:
                raise self._failure(target, head)
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _over_h2(self, session: ProxyConnection, target: Target, authority: str) -> Stream | None:
        """Open a tunnel; return None if the proxy has not processed the request, so that it can be retried."""
        reused = session.reused
        async with self._connect_headers(target):
            try:
                response = await session.send(Request("CONNECT", authority, self.headers))
            except NoResponseError as error:
                if reused or isinstance(error, UnprocessedError):
                    return None
                raise
        upgrade = response.upgrade
        if isinstance(upgrade, UpgradedConnection):
            return upgrade.release()
        await response.aclose()
        raise self._failure(target, response)

    @asynccontextmanager
    async def _connect_headers(self, target: Target) -> AsyncGenerator[None]:
        """Apply the handshake timeout and add the target and the proxy to errors."""
        clock = asyncio.timeout(self.handshake_timeout)
        try:
            async with clock:
                yield
        except (TruncatedError, TooLargeError, ProtocolError) as error:
            raise UnreachableError(f"{self._error_context(target)}: {error}") from error
        except TimeoutError as error:
            if not clock.expired():
                raise
            late = f"{self._error_context(target)}: no response within {self.handshake_timeout:g} s"
            raise TimeoutError(late) from error
        except OSError as error:
            if isinstance(error, LlamaError):
                raise
            raise UnreachableError(f"{self._error_context(target)}: {error.strerror or error}") from error

    def _failure(self, target: Target, head: ResponseHead | Response) -> LlamaError:
        text = f"{self._error_context(target)}: {head.status} {head.reason}".rstrip()
        if head.status in (401, 403, 407):
            return RefusedError(text)
        error = UnreachableError(text)
        number = _errno(head)
        if number is not None:
            error.__cause__ = OSError(number, os.strerror(number))
        return error

    def _error_context(self, target: Target) -> str:
        return f"cannot reach {target} through proxy {self.proxy}"


def _authority(target: Target) -> str | None:
    host = target.host
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return None
    authority = str(Target(name, target.port))
    return authority if is_host_and_port(authority) else None


def _errno(head: ResponseHead | Response) -> int | None:
    for each in head.headers.get_all("proxy-status"):
        for name, number in _BY_PROXY_STATUS.items():
            if f"error={name}" in each:
                return number
    return _BY_STATUS.get(head.status)


async def _final_head(stream: Stream) -> ResponseHead:
    """Read the final response head, skipping interim ones; bytes that follow it stay in the stream."""
    for _ in range(_MAX_INFORMATIONAL):
        head = await _head(stream)
        if head.status >= 200:
            return head
    raise ProtocolError(f"more than {_MAX_INFORMATIONAL} interim responses", status=502)


async def _head(stream: Stream) -> ResponseHead:
    buffer = HeadBuffer()
    while True:
        data = await stream.read(_READ)
        if not data:
            raise TruncatedError("the proxy closed the connection before its response was complete")
        found = buffer.feed(data)
        if found is not None:
            raw, rest = found
            if rest:
                stream.unread(rest)
            return parse_response(raw, "CONNECT")


def basic_credentials(user: str, password: str) -> str:
    """Return Basic credentials as a field value (RFC 7617); raise ConfigError for a user with a colon."""
    if ":" in user:
        raise ConfigError(f"Basic authentication does not allow a colon in the user: got {user!r}")
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


@layer_factory("http.connect", "connector")
def connect(
    proxy: str | Target,
    *,
    user: str | None = None,
    password: str | None = None,
    connect: Connector | None = None,
    headers: Headers | Mapping[str, str] | Pairs = (),
    handshake_timeout: float | None = None,
    http2: bool = True,
) -> HttpConnect:
    """Connect to targets through an HTTP proxy, `HOST:PORT` or `h2c://HOST:PORT`, by CONNECT.

    `user` and `password` are sent as Basic credentials, `headers` are additional fields of the CONNECT request.
    `connect` connects to the proxy, by default `tcp.connect()`: use `tls.connect()` for a proxy behind TLS, and
    another proxy's connector for a chain. The proxy resolves host names. `handshake_timeout` limits the time until
    the proxy responds, in seconds.

    If TLS negotiates HTTP/2, or the proxy is `h2c://`, tunnels share connections, up to the proxy's limit of streams
    for each; `http2=False` opens an HTTP/1.1 connection for each tunnel. `run` and `serve` close shared connections,
    and so does leaving the connector as an async context manager; otherwise they close when their last tunnel ends.

    Raises RefusedError for 401, 403 and 407, and UnreachableError for other responses, with an OSError as its cause
    if the proxy gives the reason in Proxy-Status (RFC 9209) or responds with 504; also any error of `connect`.
    Raises ConfigError for invalid settings.

        http.connect("proxy.example:443", user="john", password="secret", connect=tls.connect())
    """
    connect = connect or tcp_connect()
    check_accepts(connect, Target, "http.connect(connect=)")
    if (user is None) is not (password is None):
        raise ConfigError("http.connect(): give both user and password, or neither")
    fields = Headers(headers)
    if user is not None and password is not None:
        fields["Proxy-Authorization"] = basic_credentials(user, password)
    if isinstance(proxy, Target):
        known, target = False, proxy
    else:
        known, target = proxy.startswith(H2C), Target.parse(proxy.removeprefix(H2C))
    if known and not http2:
        raise ConfigError(f"http.connect({proxy!r}, http2=False): an h2c:// proxy requires HTTP/2")
    sharing = None
    if known:
        sharing = TunnelPool(connect, Origin("h2c", target))
    elif http2 and not isinstance(connect, Connect):
        target = _offering(target, connect)
        sharing = TunnelPool(connect, Origin("https", target))
    return HttpConnect(connect, target, fields, handshake_timeout, sharing)


def _offering(proxy: Target, connect: Connector) -> Target:
    """Return the proxy as a target that offers HTTP/2 by ALPN, unless the offer is already configured."""
    wanted = proxy.extensions.get(TLSParams) or TLSParams()
    if wanted.alpn is not None or (isinstance(connect, TLSConnect) and connect.alpn):
        return proxy
    extensions = proxy.extensions.fork()
    extensions.set(TLSParams(ALPN, wanted.server_name))
    return Target(proxy.host, proxy.port, extensions)

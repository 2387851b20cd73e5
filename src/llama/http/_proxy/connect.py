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
    Refused,
    TooLarge,
    Truncated,
    Unreachable,
)
from llama._core.stack import check_takes, factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.http._h1.client import NoAnswer
from llama.http._h1.wire.encode import encode_request
from llama.http._h1.wire.fields import HeadBuffer
from llama.http._h1.wire.head import ResponseHead, is_host_and_port, parse_response
from llama.http._h2.client_stream import Unprocessed
from llama.http._messages.headers import Headers, Pairs
from llama.http._messages.message import Request, Response
from llama.http._messages.origin import Origin
from llama.http._messages.upgrade import Upgraded
from llama.http._proxy.connect_h2 import Session, Sharing
from llama.layers._peer_key import packed
from llama.tcp import connect as tcp_connect
from llama.tcp._connect import Connect
from llama.tcp._policy.address_filter import allowed, hop
from llama.tls import Wanted
from llama.tls._connect import TLSConnect

ALPN = ("h2", "http/1.1")
H2C = "h2c://"
TRIES = 3
_READ = 16384
_INTERIM = 16  # the maximum number of interim (1xx) responses
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
    sharing: Sharing | None
    """The shared HTTP/2 connections to the proxy; None if HTTP/2 is not an option."""

    __takes__: ClassVar[type] = Target

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
        if packed(target.host) is not None:
            allowed(target, (target.host,))
        authority = _authority(target)
        if authority is None:
            raise Unreachable(f"{self._about(target)}: CONNECT requires a host and a port from 1 to 65535")
        way = hop(self.proxy, target)
        if self.sharing is None:
            return await self._over_h1(await self.inner(way), target, authority)
        for _ in range(TRIES):
            found = await self.sharing.open().take(way)
            if not isinstance(found, Session):
                return await self._over_h1(found, target, authority)
            if (stream := await self._over_h2(found, target, authority)) is not None:
                return stream
        raise Unreachable(f"{self._about(target)}: the proxy did not process the request {TRIES} times")

    async def _over_h1(self, stream: Stream, target: Target, authority: str) -> Stream:
        headers = self.headers.copy()
        headers.insert(0, "Host", authority)
        request = encode_request("CONNECT", authority, headers, 0)
        try:
            async with self._asking(target):
                await stream.write(request)
                head = await _final_head(stream)
            if not 200 <= head.status < 300:
                raise self._failure(target, head)
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _over_h2(self, session: Session, target: Target, authority: str) -> Stream | None:
        """Open a tunnel; return None if the proxy has not processed the request, so that it can be retried."""
        reused = session.reused
        async with self._asking(target):
            try:
                response = await session.send(Request("CONNECT", authority, self.headers))
            except NoAnswer as error:
                if reused or isinstance(error, Unprocessed):
                    return None
                raise
        upgrade = response.upgrade
        if isinstance(upgrade, Upgraded):
            return upgrade.release()
        await response.aclose()
        raise self._failure(target, response)

    @asynccontextmanager
    async def _asking(self, target: Target) -> AsyncGenerator[None]:
        """Apply the handshake timeout and add the target and the proxy to errors."""
        clock = asyncio.timeout(self.handshake_timeout)
        try:
            async with clock:
                yield
        except (Truncated, TooLarge, ProtocolError) as error:
            raise Unreachable(f"{self._about(target)}: {error}") from error
        except TimeoutError as error:
            if not clock.expired():
                raise
            late = f"{self._about(target)}: no response within {self.handshake_timeout:g} s"
            raise TimeoutError(late) from error
        except OSError as error:
            if isinstance(error, LlamaError):
                raise
            raise Unreachable(f"{self._about(target)}: {error.strerror or error}") from error

    def _failure(self, target: Target, head: ResponseHead | Response) -> LlamaError:
        text = f"{self._about(target)}: {head.status} {head.reason}".rstrip()
        if head.status in (401, 403, 407):
            return Refused(text)
        error = Unreachable(text)
        number = _errno(head)
        if number is not None:
            error.__cause__ = OSError(number, os.strerror(number))
        return error

    def _about(self, target: Target) -> str:
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
    for _ in range(_INTERIM):
        head = await _head(stream)
        if head.status >= 200:
            return head
    raise ProtocolError(f"more than {_INTERIM} interim responses", status=502)


async def _head(stream: Stream) -> ResponseHead:
    buffer = HeadBuffer()
    while True:
        data = await stream.read(_READ)
        if not data:
            raise Truncated("the proxy closed the connection before its response was complete")
        found = buffer.feed(data)
        if found is not None:
            raw, rest = found
            if rest:
                stream.unread(rest)
            return parse_response(raw, "CONNECT")


def basic(user: str, password: str) -> str:
    """Return Basic credentials as a field value (RFC 7617); raise ConfigError for a user with a colon."""
    if ":" in user:
        raise ConfigError(f"Basic authentication does not allow a colon in the user: got {user!r}")
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


@factory("http.connect", "connector")
def connect(
    proxy: str | Target,
    *,
    user: str | None = None,
    password: str | None = None,
    over: Connector | None = None,
    headers: Headers | Mapping[str, str] | Pairs = (),
    handshake_timeout: float | None = None,
    http2: bool = True,
) -> HttpConnect:
    """Connect to targets through an HTTP proxy, `HOST:PORT` or `h2c://HOST:PORT`, by CONNECT.

    `user` and `password` are sent as Basic credentials, `headers` are additional fields of the CONNECT request. `over`
    connects to the proxy, by default `tcp.connect()`: use `tls.connect()` for a proxy behind TLS, and another proxy's
    connector for a chain. The proxy resolves host names. `handshake_timeout` limits the time until the proxy responds,
    in seconds.

    If TLS negotiates HTTP/2, or the proxy is `h2c://`, tunnels share connections, up to the proxy's limit of streams
    for each; `http2=False` opens an HTTP/1.1 connection for each tunnel. `run` and `serve` close shared connections,
    and so does leaving the connector as an async context manager; otherwise they close when their last tunnel ends.

    Raises Refused for 401, 403 and 407, and Unreachable for other responses, with an OSError as its cause if the proxy
    gives the reason in Proxy-Status (RFC 9209) or responds with 504; also any error of `over`. Raises ConfigError for
    invalid settings.

        http.connect("proxy.example:443", user="john", password="secret", over=tls.connect())
    """
    over = over or tcp_connect()
    check_takes(over, Target, "http.connect(over=)")
    if (user is None) is not (password is None):
        raise ConfigError("http.connect(): give both user and password, or neither")
    fields = Headers(headers)
    if user is not None and password is not None:
        fields["Proxy-Authorization"] = basic(user, password)
    if isinstance(proxy, Target):
        known, target = False, proxy
    else:
        known, target = proxy.startswith(H2C), Target.parse(proxy.removeprefix(H2C))
    if known and not http2:
        raise ConfigError(f"http.connect({proxy!r}, http2=False): an h2c:// proxy requires HTTP/2")
    sharing = None
    if known:
        sharing = Sharing(over, Origin("h2c", target))
    elif http2 and not isinstance(over, Connect):
        target = _offering(target, over)
        sharing = Sharing(over, Origin("https", target))
    return HttpConnect(over, target, fields, handshake_timeout, sharing)


def _offering(proxy: Target, over: Connector) -> Target:
    """Return the proxy as a target that offers HTTP/2 by ALPN, unless the offer is already configured."""
    wanted = proxy.extensions.get(Wanted) or Wanted()
    if wanted.alpn is not None or (isinstance(over, TLSConnect) and over.alpn):
        return proxy
    extensions = proxy.extensions.fork()
    extensions.set(Wanted(ALPN, wanted.server_name))
    return Target(proxy.host, proxy.port, extensions)

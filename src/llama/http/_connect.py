"""The connector through an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import errno
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError, LlamaError, ProtocolError, Refused, TooLarge, Truncated, Unreachable
from llama._stack import check_takes, factory
from llama._stream import Stream
from llama._target import Connector, Target
from llama.http._headers import Headers, Pairs
from llama.http.wire._h1_encode import encode_request
from llama.http.wire._h1_fields import HeadBuffer
from llama.http.wire._h1_head import ResponseHead, is_host_and_port, parse_response
from llama.layers._peer_key import packed
from llama.tcp import connect as tcp_connect
from llama.tcp._targets import allowed, hop

_READ = 16384
_INTERIM = 16  # more 1xx responses than these are no answer
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
    """Reaches targets through an HTTP proxy."""

    inner: Connector
    proxy: Target
    headers: Headers
    handshake_timeout: float | None

    __takes__: ClassVar[type] = Target

    def __repr__(self) -> str:
        return f"http.connect({self.proxy})"

    async def __call__(self, target: Target, /) -> Stream:
        if packed(target.host) is not None:
            allowed(target, (target.host,))
        request = self._request(target)
        stream = await self.inner(hop(self.proxy, target))
        clock = asyncio.timeout(self.handshake_timeout)
        try:
            async with clock:
                await stream.write(request)
                head = await _final_head(stream)
            if not 200 <= head.status < 300:
                raise self._failure(target, head)
        except BaseException as error:
            stream.abort()
            if clock.expired() and isinstance(error, TimeoutError):
                raise TimeoutError(
                    f"{self._about(target)}: no answer in {self.handshake_timeout:g} s"
                ) from error
            if isinstance(error, (Truncated, TooLarge, ProtocolError)):
                raise Unreachable(f"{self._about(target)}: {error}") from error
            if isinstance(error, OSError) and not isinstance(error, (LlamaError, TimeoutError)):
                raise Unreachable(f"{self._about(target)}: {error.strerror or error}") from error
            raise
        return stream

    def _request(self, target: Target) -> bytes:
        authority = _authority(target)
        if authority is None:
            raise Unreachable(f"{self._about(target)}: CONNECT takes a host and a port from 1 to 65535")
        headers = self.headers.copy()
        headers.insert(0, "Host", authority)
        return encode_request("CONNECT", authority, headers, 0)

    def _failure(self, target: Target, head: ResponseHead) -> LlamaError:
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


def _errno(head: ResponseHead) -> int | None:
    for each in head.headers.get_all("proxy-status"):
        for name, number in _BY_PROXY_STATUS.items():
            if f"error={name}" in each:
                return number
    return _BY_STATUS.get(head.status)


async def _final_head(stream: Stream) -> ResponseHead:
    """Read responses until one that is not interim; what follows it stays in the stream."""
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
            raise Truncated("the proxy left before its response was whole")
        found = buffer.feed(data)
        if found is not None:
            raw, rest = found
            if rest:
                stream.unread(rest)
            return parse_response(raw, "CONNECT")


def basic(user: str, password: str) -> str:
    """The value of a field with a name and a password (RFC 7617); ConfigError for a name with a colon."""
    if ":" in user:
        raise ConfigError(f"user {user!r} has a colon, which Basic authentication cannot carry")
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
) -> Connector:
    """Connect through an HTTP proxy, `HOST:PORT`, by CONNECT.

    `user` and `password` go as Basic credentials; `headers` are more fields of the request. `over` reaches the
    proxy, by default `tcp.connect()`: `tls.connect()` for a proxy behind TLS, another proxy's connector for a
    chain. Names are resolved by the proxy. `handshake_timeout` in seconds bounds its answer.

    Raises Refused for 401, 403 and 407, Unreachable for other answers, whose cause has an errno where the
    proxy tells why by Proxy-Status (RFC 9209); also what `over` raises. ConfigError for settings that cannot
    work.

        http.connect("proxy.example:443", user="john", password="secret", over=tls.connect())
    """
    over = over or tcp_connect()
    check_takes(over, Target, "http.connect(over=)")
    if (user is None) is not (password is None):
        raise ConfigError("http.connect(): give both user and password, or neither")
    fields = Headers(headers)
    if user is not None and password is not None:
        fields["Proxy-Authorization"] = basic(user, password)
    target = Target.parse(proxy) if isinstance(proxy, str) else proxy
    return HttpConnect(over, target, fields, handshake_timeout)

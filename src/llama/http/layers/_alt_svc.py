"""Tells clients that the same is to be had by HTTP/3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._message import Exchange, Request, Response
from llama.tcp._addresses import local_address


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class AltSvc:
    """Tells clients that the same is to be had by HTTP/3."""

    inner: Exchange
    host: str
    port: int | None
    max_age: int

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.alt_svc({self.port or ''})"

    async def __call__(self, request: Request, /) -> Response:
        response = await self.inner(request)
        if request.version != "3" and request.scheme == "https" and (port := self._port(request)):
            response.headers.setdefault("Alt-Svc", f'h3="{self.host}:{port}"; ma={self.max_age}')
        return response

    def _port(self, request: Request) -> int:
        if self.port is not None:
            return self.port
        local = None if request._connection is None else local_address(request._connection)
        return 0 if local is None else local.port


@factory("http.alt_svc")
def alt_svc(
    port: int | None = None, *, host: str = "", max_age: int = 86_400
) -> Middleware[Request, Response]:
    """Tell https clients by Alt-Svc that HTTP/3 is at this UDP port, of this host or another (RFC 7838).

    Without a port it is the one that the client came to. They may remember it for `max_age` seconds. A response
    that has the field already keeps it.

        stack(http.server(), http.alt_svc(8443), application)
    """
    if port is not None and not 0 < port < 65536:
        raise ConfigError(f"http.alt_svc({port}): expected a port from 1 to 65535")
    if max_age < 0:
        raise ConfigError(f"http.alt_svc(max_age={max_age}): expected 0 or more seconds")
    if any(each in host for each in '"\\ \t\r\n') or not host.isascii():
        raise ConfigError(f"http.alt_svc(host={host!r}): expected a host name")

    def build(inner: Exchange) -> Exchange:
        return AltSvc(inner, host, port, max_age)

    return named_layer(f"http.alt_svc({port or ''})", build, takes=Request, gives=Request)

"""Tells clients that the same is to be had by HTTP/3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._message import Exchange, Request, Response


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class AltSvc:
    """Tells clients that the same is to be had by HTTP/3."""

    inner: Exchange
    value: str

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.alt_svc()"

    async def __call__(self, request: Request, /) -> Response:
        response = await self.inner(request)
        if request.version != "3" and request.scheme == "https":
            response.headers.setdefault("Alt-Svc", self.value)
        return response


@factory("http.alt_svc")
def alt_svc(port: int = 443, *, host: str = "", max_age: int = 86_400) -> Middleware[Request, Response]:
    """Tell https clients by Alt-Svc that HTTP/3 is at this UDP port, of this host or another (RFC 7838).

    They may remember it for `max_age` seconds. A response that has the field already keeps it.

        stack(http.server(), http.alt_svc(8443), application)
    """
    if not 0 < port < 65536:
        raise ConfigError(f"http.alt_svc({port}): expected a port from 1 to 65535")
    if max_age < 0:
        raise ConfigError(f"http.alt_svc(max_age={max_age}): expected 0 or more seconds")
    if any(each in host for each in '"\\ \t\r\n') or not host.isascii():
        raise ConfigError(f"http.alt_svc(host={host!r}): expected a host name")
    value = f'h3="{host}:{port}"; ma={max_age}'

    def build(inner: Exchange) -> Exchange:
        return AltSvc(inner, value)

    return named_layer(f"http.alt_svc({port})", build, takes=Request, gives=Request)

"""Announces HTTP/3 to clients by Alt-Svc (RFC 7838)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.message import Request, RequestHandler, Response
from llama.tcp._addresses import local_address


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class AltSvc:
    """Announces HTTP/3 to clients by Alt-Svc (RFC 7838)."""

    inner: RequestHandler
    host: str
    port: int | None
    max_age: int

    __input_type__: ClassVar[type] = Request

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
        local = (
            None if request._connection_extensions is None else local_address(request._connection_extensions)
        )
        return 0 if local is None else local.port


@layer_factory("http.alt_svc")
def alt_svc(
    port: int | None = None, *, host: str = "", max_age: int = 86_400
) -> Middleware[Request, Response]:
    """Announce HTTP/3 to https clients by Alt-Svc (RFC 7838).

    `port` is the UDP port, by default the port that the client connected to; `host` is the host, by default the same
    one. Clients may cache the announcement for `max_age` seconds. An Alt-Svc field that the response already has is
    kept.

        stack(http.server(), http.alt_svc(8443), application)
    """
    if port is not None and not 0 < port < 65536:
        raise ConfigError(f"http.alt_svc({port}): expected a port from 1 to 65535")
    if max_age < 0:
        raise ConfigError(f"http.alt_svc(max_age={max_age}): expected 0 or more seconds")
    if any(each in host for each in '"\\ \t\r\n') or not host.isascii():
        raise ConfigError(f"http.alt_svc(host={host!r}): expected a host name")

    def build(inner: RequestHandler) -> RequestHandler:
        return AltSvc(inner, host, port, max_age)

    return named_layer(f"http.alt_svc({port or ''})", build, input_type=Request, inner_type=Request)

"""A request handler that redirects clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, ProtocolError
from llama._core.stack import layer_factory
from llama.http._messages.headers import checked_value
from llama.http._messages.message import Request, RequestHandler, Response

STATUSES = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Redirect:
    """A request handler that responds to every request with a redirect."""

    to: str
    status: int
    port: int | None

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.redirect({self.to!r})"

    async def __call__(self, request: Request, /) -> Response:
        location = self._same_url(request) if self.to in ("http", "https") else self.to
        return Response(self.status, {"Location": location})

    def _same_url(self, request: Request) -> str:
        authority = request.authority
        if not authority:
            raise ProtocolError("cannot redirect a request without a Host field")
        host, colon, port = authority.rpartition(":")
        if not colon or (port and not port.isdecimal()):
            host = authority
        path = request.path if request.path.startswith("/") else f"/{request.path.lstrip('*')}"
        return f"{self.to}://{host}{f':{self.port}' if self.port else ''}{path}"


@layer_factory("http.redirect", "service")
def redirect(to: str, *, status: int = 308, port: int | None = None) -> RequestHandler:
    """Redirect every request, to the same URL with another scheme or to a fixed URL.

    `http.redirect("https")` and `http.redirect("http")` keep the host, path and query; `port` is the port of the new
    URL, by default none. Any other text is sent as the Location. `status` is 308 (permanent, keeps the method), 301,
    302, 303 or 307.

        stack(http.server(), http.redirect("https"))
    """
    if status not in STATUSES:
        raise ConfigError(f"http.redirect(status={status}): expected one of {', '.join(map(str, STATUSES))}")
    if not checked_value(to):
        raise ConfigError("http.redirect(''): expected 'https', 'http' or a URL")
    return Redirect(to, status, port)

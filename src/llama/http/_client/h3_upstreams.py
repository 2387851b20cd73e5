"""HTTP/3 in `http.client`: requests to `h3://` origins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama._core.errors import UnreachableError
from llama._core.stack import check_accepts, display_name
from llama._core.target import Connector
from llama.http._client_settings import ClientSettings
from llama.http._h3.factories import build_h3_client
from llama.http._h3.settings import H3ClientSettings, H3Identity
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._messages.origin import Origin
from llama.tcp._connect import Connect
from llama.tls._connect import TLSConnect

if TYPE_CHECKING:  # needs the extra http3
    from llama.http._h3.client.client import H3Client

H3_IDLE_TIMEOUT = 86_400.0  # seconds, for no limit: the server's idle timeout then ends a connection


class H3Route:
    """The `h3=` client of `http.client`, or one created by the first request to an h3 origin, which `close` closes."""

    __slots__ = ("_connect", "_given", "_own", "_settings", "_tls")

    def __init__(
        self,
        given: RequestHandler | None,
        connect: Connector,
        tls: Connector | None,
        settings: ClientSettings,
    ) -> None:
        if given is not None:
            check_accepts(given, Request, "http.client(h3=)")
        self._given = given
        self._connect = connect
        self._tls = tls
        self._settings = settings
        self._own: H3Client | None = None

    @property
    def why_unavailable(self) -> str | None:
        """The reason why HTTP/3 is impossible with these connectors, or None."""
        if self._given is not None:
            return None
        connect, tls = self._connect, self._tls
        if type(connect) is not Connect or connect.bind is not None:
            return f"HTTP/3 needs UDP, not {display_name(connect)}: expected h3=http.h3_client(connect=...)"
        if tls is not None and (type(tls) is not TLSConnect or type(tls.inner) is not Connect):
            return f"HTTP/3 cannot use {display_name(tls)} for TLS: expected h3=http.h3_client(...)"
        return None

    async def send(self, request: Request, origin: Origin) -> Response:
        """Send a request to an origin over HTTP/3."""
        if request._extensions is None or request._extensions.get(Origin) is None:
            request.extensions.set(origin)
        if self._given is not None:
            return await self._given(request)
        if self._own is None:
            if (why := self.why_unavailable) is not None:
                raise UnreachableError(f"cannot reach {origin}: {why}")
            self._own = self._make()
            await self._own.__aenter__()
        return await self._own(request)

    def _make(self) -> H3Client:
        """Create an HTTP/3 client with the settings of `http.client`."""
        given, identity = self._settings, H3Identity()
        if isinstance(tls := self._tls, TLSConnect):
            files = tls.settings
            identity = H3Identity(
                files.ca,
                not files.insecure,
                tls.server_name,
                files.cert,
                files.key,
                files.password,
                files.keylog,
            )
        settings = H3ClientSettings(
            None, given.connect_timeout, given.pool_timeout, given.response_header_timeout, given.body_timeout,
            given.write_timeout, given.idle_timeout or H3_IDLE_TIMEOUT, given.max_connections, given.max_per_host,
            given.max_idle,
            given.max_waiting, given.limits,
        )  # fmt: skip
        resolver = self._connect.resolver if isinstance(self._connect, Connect) else None
        return build_h3_client(identity, resolver, settings)

    async def close(self) -> None:
        """Close the client created here; the next request creates another."""
        own, self._own = self._own, None
        if own is not None:
            await own.__aexit__(None, None, None)

"""The HTTP/3 client: sends requests over pooled QUIC connections."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from llama._core.errors import ConfigError, LlamaError, ProtocolError, TLSError, UnreachableError
from llama._core.packets import PacketConnector
from llama.http._h1.client import NoResponseError
from llama.http._h2.client_stream import UnprocessedError
from llama.http._h3.client.client_stream import H3ClientStream
from llama.http._h3.client.pool import H3Pool, PooledH3Connection
from llama.http._h3.client.tls import configure_verification
from llama.http._h3.connection import new_configuration
from llama.http._h3.early_data import EARLY_DATA, may_be_early
from llama.http._h3.settings import H3ClientSettings, H3Identity
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._messages.origin import Origin, origin_of
from llama.http._messages.retryable import MAX_REFUSED_RETRIES, is_retryable, may_retry_on_stale_connection


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class H3Client:
    """A request handler that sends requests over HTTP/3, or with a fallback to origins not known to support it."""

    connect: PacketConnector
    fallback: RequestHandler | None
    settings: H3ClientSettings
    state: H3Pool

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.h3_client()"

    async def __aenter__(self) -> H3Client:
        self.state.entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.state.entered -= 1
        if not self.state.entered:
            await self.state.close()

    async def __call__(self, request: Request, /) -> Response:
        self.state.open()
        extensions = request._extensions
        origin = extensions.get(Origin) if extensions is not None else None
        origin = origin or origin_of(request.scheme or "https", request.authority)
        if self.fallback is not None and origin.scheme != "h3":
            return await self._either(self.fallback, request, origin)
        if origin.scheme not in ("https", "h3"):
            raise ProtocolError(f"{origin} cannot be reached by HTTP/3")
        return await self._send(request, origin, origin)

    # HTTP/3 or the fallback

    async def _either(self, fallback: RequestHandler, request: Request, origin: Origin) -> Response:
        known = self.state.alternatives
        other = known.get(origin) if origin.scheme == "https" else None
        if other is not None and not request.upgrade_protocol and await self._is_reached(origin, other):
            try:
                return await self._send(request, origin, other)
            except (UnreachableError, TLSError, NoResponseError):  # the alternative is no longer reachable
                known.mark_broken(origin)
                if not is_retryable(request):
                    raise
        response = await fallback(request)
        if origin.scheme == "https" and "alt-svc" in response.headers.names:
            known.update(origin, response.headers.get_all("alt-svc"))
        return response

    async def _is_reached(self, origin: Origin, other: Origin) -> bool:
        """Connect if necessary within `alt_svc_timeout` seconds; a later connection serves the next request."""
        state = self.state
        place = state.origin_pool(origin)
        if any(each.is_open for each in place.connections):
            return True
        if place.dialling is None and not state.may_dial(place):
            return False
        dialling = state.dial(place, other)
        done, _ = await asyncio.wait((dialling,), timeout=self.settings.alt_svc_timeout)
        if not done:
            return False
        if dialling.exception() is not None:
            self.state.alternatives.mark_broken(origin)
            return False
        return True

    # requests

    async def _send(self, request: Request, origin: Origin, other: Origin) -> Response:
        refusals, again = 0, False
        early = self.settings.early_data and may_be_early(request)
        while True:
            member = await self.state.connection(origin, other, early=early)
            used, early = member.used, early and not member.link.established.done()
            try:
                if early:
                    if (response := await self._send_early(request, member)) is not None:
                        return response
                    early = False
                    continue
                return await H3ClientStream(member, self.settings, self.state.tasks).send(request)
            except UnprocessedError as error:
                refusals += 1
                if refusals > MAX_REFUSED_RETRIES or not error.is_body_there:
                    raise
            except NoResponseError:  # the server closed an idle connection; a new one may still work
                if again or not used or not may_retry_on_stale_connection(request):
                    raise
                again = True

    async def _send_early(self, request: Request, member: PooledH3Connection) -> Response | None:
        """Send a request as early data; return None if it must be sent again after the handshake."""
        try:
            response = await H3ClientStream(member, self.settings, self.state.tasks).send(request)
        except LlamaError:
            if await member.wait_handshake():
                raise
            return None
        if response.status != 425 or EARLY_DATA in request.headers.names:  # RFC 8470 section 5.2
            return response
        await response.aclose()
        return None


def build_client(
    connect: PacketConnector,
    fallback: RequestHandler | None,
    identity: H3Identity,
    settings: H3ClientSettings,
) -> H3Client:
    """Return a client. Raises ConfigError if a file cannot be used."""
    if settings.early_data and fallback is not None:
        raise ConfigError("http.h3_client(early_data=True): early_data= and fallback= are mutually exclusive")
    configuration = new_configuration(
        is_client=True, idle_timeout=settings.idle_timeout, keylog=identity.keylog
    )
    configuration.server_name = identity.server_name
    configure_verification(configuration, identity)
    return H3Client(connect, fallback, settings, H3Pool(connect, configuration, settings))

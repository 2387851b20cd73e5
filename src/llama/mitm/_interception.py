"""One connection that is looked into: what is known of it, and its own way to the upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from llama._core.errors import LlamaError, StreamClosedError, TLSError
from llama._core.extensions import Extensions
from llama._core.stream import Stream
from llama._core.target import Bridge, Connector, Target
from llama.http import Origin, Request, RequestHandler, Response
from llama.http._client.client import Client
from llama.http._client.client import client as http_client
from llama.http._codings.transform import decoders
from llama.http._proxy.hop_by_hop import forward_request, forward_response
from llama.layers._hostname import normalized_host
from llama.mitm._timed_connect import first, timed
from llama.tcp._io.connect_timing import ConnectTiming
from llama.tls import ClientHello, TLSInfo, TLSParams


@dataclass(frozen=True, slots=True)
class _Raw:
    """What a TLS connector is to shake hands over."""

    open: Callable[[], Awaitable[Stream]]


async def raw_connector(target: Target) -> Stream:
    """The connector below TLS: the bridge's own."""
    return await target.extensions[_Raw].open()


def _negotiated_alpn(stream: Stream, alpn: tuple[str, ...]) -> bool:
    """Whether a stream speaks one of these protocols, or none that was agreed on."""
    info = stream.extensions.get(TLSInfo)
    return info is None or info.alpn is None or info.alpn in alpn


class Interception:
    """A connection that is looked into, in the extensions of its requests.

    Requests go to the bridge's own target, whatever they name, by its own connection; where that has ended, or
    is in use, the bridge opens another.
    """

    __slots__ = (
        "_alpn",
        "_bridge",
        "_client",
        "_first",
        "_origin",
        "_prior_knowledge",
        "_ready",
        "_revoked_fingerprints",
        "_secure",
        "error",
        "named",
        "server_name",
        "target",
        "upstream",
    )

    def __init__(
        self,
        bridge: Bridge,
        hello: ClientHello | None = None,
        secure: Connector | None = None,
        alpn: tuple[str, ...] = (),
        revoked: Collection[str] = (),
        named: str | None = None,
    ) -> None:
        self.target = bridge.target
        """Where the client wanted to go."""
        self.server_name = hello.server_name if hello is not None else None
        """The name that the client asked for by TLS."""
        self.named = normalized_host(named or self.server_name or bridge.target.host)
        """The host that rules have been asked for: of the Host of plain HTTP where that was looked at."""
        self.upstream: TLSInfo | None = None
        """The latest TLS session with the upstream; None before, and without TLS."""
        self.error: Exception | None = None
        """Why the upstream could not be reached at first, until a request has been told."""
        self._bridge = bridge
        self._secure = secure
        self._alpn = alpn
        self._revoked_fingerprints = revoked
        self._prior_knowledge = secure is None and hello is None
        self._first = True
        self._ready: Stream | None = None
        self._origin = Origin("http" if secure is None else "https", bridge.target)
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"<interception of {self.target}>"

    @property
    def name(self) -> str:
        """What the client calls the server."""
        host = self.target.host
        return self.server_name or ("localhost" if host.startswith("unix:") else host.partition("%")[0])

    async def prepare(self) -> None:
        """Open the upstream before it is needed; what fails is kept for who needs it."""
        try:
            self._ready = await self._open(self._alpn)
        except (LlamaError, OSError) as error:
            self.error = error

    async def open(self, target: Target | None = None) -> Stream:
        """The connection that is ready, or another: the connector of all that is asked for here."""
        wanted = target.extensions.get(TLSParams) if target is not None else None
        alpn = self._alpn
        if wanted is not None and wanted.alpn is not None:
            alpn = tuple(each for each in alpn if each in wanted.alpn)
        if self._ready is not None and _negotiated_alpn(self._ready, alpn):
            ready, self._ready = self._ready, None
            return ready
        error, self.error = self.error, None
        if error is not None:
            raise error
        return await self._open(alpn)

    async def _open(self, alpn: tuple[str, ...]) -> Stream:
        if self._secure is None:
            return await self.raw()
        extensions = self.target.extensions.fork()
        extensions.set(TLSParams(alpn, self.server_name))
        extensions.set(_Raw(self.raw))
        stream = await self._secure(Target(self.target.host, self.target.port, extensions))
        if (dialled := stream.extensions.get(ConnectTiming)) is not None:
            dialled.secured()
        self.upstream = stream.extensions.get(TLSInfo)
        if self._revoked_fingerprints:
            self._check_revoked(stream)
        return stream

    def _check_revoked(self, stream: Stream) -> None:
        certificate = self.certificate
        if certificate is not None and sha256(certificate).hexdigest() in self._revoked_fingerprints:
            stream.abort()
            raise TLSError(f"TLS with {self.target} failed: the peer's certificate is revoked by a rule here")

    @property
    def certificate(self) -> bytes | None:
        """The upstream's certificate in DER, None while it is not known."""
        return None if self.upstream is None else self.upstream.peer_certificate_der

    async def raw(self) -> Stream:
        """The bridge's own upstream, as bytes; another one where that was given out already."""
        if not self._first:
            return await timed(self._bridge.connect)(self._bridge.target)
        stream = await first(self._bridge)
        self._first = False
        return stream

    async def send(self, request: Request) -> Response:
        """Send a request to the upstream."""
        if self._client is None:
            self._client = http_client(self.open, tls=self.open)
            await self._client.__aenter__()
        sent = forward_request(request)
        if self._prior_knowledge and request.version == "2":  # as it was here (RFC 9113, section 3.3)
            sent.extensions.set(Origin("h2c", self.target))
        else:
            sent.extensions.set(self._origin)
        return forward_response(await self._client(sent), None)

    async def aclose(self) -> None:
        """Close what was opened."""
        ready, self._ready = self._ready, None
        if ready is not None:
            await ready.aclose()
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Upstream:
    """The innermost exchange: a request goes the way of its own connection, or by a client of a proxy."""

    client: RequestHandler | None
    reads: bool
    """Whether hooks may want to read bodies, so that codings they cannot take off are not asked for."""

    def __repr__(self) -> str:
        return "upstream"

    async def __call__(self, request: Request, /) -> Response:
        if self.reads and "accept-encoding" in request.headers:
            _keep_readable(request)
        known = request._extensions or request._connection_extensions or _NOTHING
        interception = known.get(Interception)
        if interception is not None:
            return await interception.send(request)
        if self.client is None:
            raise StreamClosedError(f"{request!r} came by no connection that is looked into")
        return await self.client(request)


_NOTHING = Extensions()


def _keep_readable(request: Request) -> None:
    asked = request.headers.get_all("accept-encoding")
    kept = _readable(asked[0] if len(asked) == 1 else ", ".join(asked))
    if kept is not None:
        request.headers["Accept-Encoding"] = kept


@lru_cache(1024)
def _readable(asked: str) -> str | None:
    """The codings of Accept-Encoding that can be taken off here; None where all can."""
    found = [each.strip() for each in asked.split(",")]
    kept = [each for each in found if _is_readable(each.partition(";")[0].strip().lower())]
    return None if len(kept) == len(found) else ", ".join(kept) or "identity"


@lru_cache(64)
def _is_readable(coding: str) -> bool:
    try:
        decoders([coding])
    except LlamaError:
        return False
    return True

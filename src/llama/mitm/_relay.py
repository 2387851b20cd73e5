"""The intercepting relay: TLS is terminated with a certificate that it signs, and HTTP passes through layers.

For each bridge the relay decides an action: intercept, pass through or block. Rules that do not depend on the
client's first bytes decide before any are read. Otherwise it reads the ClientHello, or the start of a plain HTTP
request up to the Host field, and asks the rules. Bytes read are put back with `unread` on every path that does
not terminate TLS.

By default the upstream handshake comes first, so that the client sees the upstream's names, validity and ALPN
protocol; `cancel_on_disconnect` cancels it if the client disconnects. Either handshake may fail. The client may
reject the certificate (by an alert, or by disconnecting), which `Pinning` counts. The upstream may be unreachable or
untrusted: the client gets a 502 page inside its TLS, or is passed through with `on_tls_error="passthrough"`.

What must never happen: an intercepted request reaches another target than its bridge's; a blocked host is
reached by another name on the same connection (`RequestRules` asks the rules again for each new host); an upstream or a
session leaks, whatever fails. An `Interception` owns the upstream of one bridge and is closed in a `finally`.

The layers run behind an ordinary `http.server`, so that HTTP/1 and HTTP/2 behave as everywhere else. Bytes that
are not HTTP skip the layers and are relayed, through the `on_chunk` hook if there is one. A server that speaks first
is detected only with `server_first_timeout`, because each such connection has to wait that long.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Unpack

from llama._core.errors import RefusedError, TLSError
from llama._core.server import PeerAddress, should_close_gracefully
from llama._core.service import Middleware
from llama._core.stack import alpn_protocols, describe, layer_factory
from llama._core.stream import ConnectionHandler
from llama._core.target import Bridge, Connector, Relay
from llama.http import Request, RequestHandler, Response
from llama.http._client.client import ALPN as CLIENT_ALPN
from llama.http._messages.upgrade import UpgradeStreams
from llama.mitm._certificate_cache import CertificateCache
from llama.mitm._chunks import relay_chunks
from llama.mitm._hooks import hooked
from llama.mitm._interception import Interception, Upstream, raw_connector
from llama.mitm._lazy_connect import with_upstream
from llama.mitm._named_host import RequestRules, is_address, read_name
from llama.mitm._pages import CertificatePortal
from llama.mitm._pinning import HandshakeObserver, is_rejection
from llama.mitm._rules import Action, ConnectionInfo
from llama.mitm._settings import MitmSettings, Options, settings
from llama.mitm._sniff import Sniffed, sniff
from llama.tcp._io.cancel_on_disconnect import cancel_on_disconnect
from llama.tls import CertificateAuthority, ClientHello, TLSInfo
from llama.tls._client_hello.peek import ACCESS_DENIED, refuse
from llama.tls._drain import drain
from llama.tls._nonblocking import open_session
from llama.tls._stream import TLSStream
from llama.tls._tls_errors import tls_error

_CLOSE_TIMEOUT = 1.0  # seconds to wait for a blocked client's first bytes, to refuse it in its protocol
log = logging.getLogger("llama.mitm")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class MitmRelay:
    """A relay that intercepts the traffic of a bridge."""

    request_handler: RequestHandler
    handler: ConnectionHandler
    blocked: ConnectionHandler
    secure: Connector
    certificates: CertificateCache
    settings: MitmSettings
    alpn: tuple[str, ...]

    __input_type__: ClassVar[type] = Bridge

    def __repr__(self) -> str:
        return f"mitm.relay({describe(self.request_handler)})"

    async def __call__(self, bridge: Bridge, /) -> None:
        action = self.decide_early(bridge)
        if action == "passthrough":
            await self._pass(bridge)
            return
        client, h2 = bridge.client, "h2" in self.alpn
        if action == "block":
            start, data = Sniffed.SILENT, b""
            with suppress(TimeoutError):  # find out the protocol to refuse the client in
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    start, _, data = await sniff(client, None, h2=h2)
            client.unread(data)
            await self._refuse(bridge, start)
            return
        start, hello, data = await sniff(client, self.settings.server_first_timeout, h2=h2)
        if start is Sniffed.ENDED:
            return
        named = None
        if start is Sniffed.HTTP and self.settings.rules.need_decision and is_address(bridge.target.host):
            named, data = await read_name(client, data)
        action = self._decide(bridge, hello, named)
        if action == "intercept" and hello is not None:
            await self._tls(bridge, hello, data)
            return
        client.unread(data)
        if action == "block":
            await self._refuse(bridge, start)
        elif action == "passthrough":
            await self._pass(bridge)
        elif start is Sniffed.HTTP:
            await self._plain(bridge, named)
        elif self.settings.upstream_tls and hello is None:
            await self._wrapped(bridge)
        else:
            await self._bytes(bridge)

    # rules

    def decide_early(self, bridge: Bridge) -> Action | None:
        """Return the action that does not depend on the client's first bytes; None if it depends on them."""
        return self.settings.rules.decide_early(ConnectionInfo(bridge.target, None, bridge.extensions))

    def _decide(self, bridge: Bridge, hello: ClientHello | None, named: str | None) -> Action:
        name = hello.server_name if hello is not None else None
        action = self.settings.rules.decide(ConnectionInfo(bridge.target, name, bridge.extensions, named))
        pinning = self.settings.pinning
        if action == "intercept" and pinning is not None and hello is not None:
            return pinning.action_for(_client_of(bridge), name or bridge.target.host) or action
        return action

    async def _refuse(self, bridge: Bridge, start: Sniffed) -> None:
        if start is Sniffed.HTTP:
            await self.blocked(bridge.client)
            return
        if start is Sniffed.TLS:
            await refuse(bridge.client, ACCESS_DENIED)
        raise RefusedError(f"{bridge.target} is blocked by a rule")

    # kinds of connections

    async def _plain(self, bridge: Bridge, named: str | None) -> None:
        interception = self._interception(bridge, None, self._http_alpn(), named)
        bridge.client.extensions.set(interception)
        try:
            await self.handler(bridge.client)
        finally:
            await interception.aclose()

    def _interception(
        self, bridge: Bridge, hello: ClientHello | None, asked: tuple[str, ...], named: str | None = None
    ) -> Interception:
        """Make the Interception of a bridge; `upstream_tls`, or else the client's TLS, decides TLS to the upstream."""
        over_tls = self.settings.upstream_tls
        if over_tls is None:
            over_tls = hello is not None
        secure = self.secure if over_tls else None
        return Interception(bridge, hello, secure, asked, self.settings.revoked_fingerprints, named)

    def _http_alpn(self) -> tuple[str, ...]:
        return tuple(each for each in CLIENT_ALPN if each in self.alpn)

    async def _wrapped(self, bridge: Bridge) -> None:
        """Relay a client's plain bytes to an upstream over TLS."""
        interception = self._interception(bridge, None, ())
        try:
            stream = await cancel_on_disconnect(
                bridge.client, interception.open(), f"{bridge.target} was reached"
            )
            await _relay_and_close(
                self._bytes, Bridge(bridge.client, bridge.target, UpgradeStreams([stream], interception.open))
            )
        finally:
            await interception.aclose()

    async def _pass(self, bridge: Bridge) -> None:
        await self.settings.passthrough_relay(await with_upstream(bridge))

    async def _bytes(self, bridge: Bridge) -> None:
        if self.settings.on_chunk is None:
            await self._pass(bridge)
        else:
            await relay_chunks(bridge, self.settings.on_chunk)

    async def _tls(self, bridge: Bridge, hello: ClientHello, data: bytes) -> None:
        asked = self._asked(hello)
        interception = self._interception(bridge, hello, asked)
        try:
            if self.settings.connect_upstream_first:
                await cancel_on_disconnect(
                    bridge.client, interception.prepare(), f"{bridge.target} was reached"
                )
                if isinstance(interception.error, TLSError) and self.settings.on_tls_error == "passthrough":
                    log.info("%s passed through: %s", bridge.target, interception.error)
                    bridge.client.unread(data)
                    await _relay_and_close(self._pass, Bridge(bridge.client, bridge.target, bridge.connect))
                    return
            session = await self._shake(bridge, hello, data, interception, asked)
            await self._inside(session, interception, self._trial(bridge, hello, session))
        finally:
            await interception.aclose()

    def _asked(self, hello: ClientHello) -> tuple[str, ...]:
        """Return the ALPN protocols to offer the upstream: the client's HTTP protocols, or all if it has none.

        A client that offers only HTTP/2, such as gRPC, can be served over HTTP/1.1 upstream, so that is added.
        """
        if any(each in self.alpn for each in hello.alpn):
            asked = tuple(each for each in hello.alpn if each in self.alpn and each in CLIENT_ALPN)
            return (*asked, "http/1.1") if asked == ("h2",) else asked
        return tuple(each for each in hello.alpn if each.isprintable() and each.isascii())

    def _offered(
        self, hello: ClientHello, interception: Interception, asked: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Return the ALPN protocols to select from for the client: the upstream's choice, if it had one."""
        ours = tuple(each for each in self.alpn if each in hello.alpn)
        if interception.upstream is None:
            return ours or asked
        if ours == ("h2",):
            return ours
        chosen = interception.upstream.alpn
        if chosen is None:
            return () if asked else ours
        return (chosen,) if not ours or "h2" in asked else ours

    async def _shake(
        self,
        bridge: Bridge,
        hello: ClientHello,
        data: bytes,
        interception: Interception,
        asked: tuple[str, ...],
    ) -> TLSStream:
        """Perform the client's handshake in place of the server that it wants to reach."""
        client, pinning = bridge.client, self.settings.pinning
        offered = self._offered(hello, interception, asked)
        context = await self.certificates.context(interception.name, interception.certificate, offered)
        session = open_session(client, context, server_side=True)
        try:
            async with asyncio.timeout(self.settings.handshake_timeout):
                await session.handshake(data)
        except (ssl.SSLError, TLSError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"TLS handshake as {interception.name} timed out") from None
            if pinning is not None and is_rejection(error):
                pinning.rejected(_client_of(bridge), hello.server_name or bridge.target.host)
            if isinstance(error, ssl.SSLError):
                await session.send_alert()
                await drain(client)
                reason: Exception = tls_error(error)
            else:
                reason = error
            raise TLSError(f"TLS handshake as {interception.name} failed: {reason}") from error
        client.extensions.set(hello)
        client.extensions.set(TLSInfo(session.ssl_object, hello))
        return session

    def _trial(self, bridge: Bridge, hello: ClientHello, session: TLSStream) -> HandshakeObserver | None:
        pinning = self.settings.pinning
        if pinning is None:
            return None
        return HandshakeObserver(
            pinning, _client_of(bridge), hello.server_name or bridge.target.host, session
        )

    async def _inside(
        self, session: TLSStream, interception: Interception, trial: HandshakeObserver | None
    ) -> None:
        try:
            await self._speak(session, interception, trial)
            if trial is not None:
                trial.closed(None)
        except Exception as error:
            if trial is not None:
                trial.closed(error)
            if should_close_gracefully(error):
                await session.aclose()
            raise
        await session.aclose()

    async def _speak(
        self, session: TLSStream, interception: Interception, trial: HandshakeObserver | None
    ) -> None:
        chosen = session.ssl_object.selected_alpn_protocol()
        if chosen is None:
            start, _, data = await sniff(session, self.settings.server_first_timeout)
            if start is Sniffed.ENDED:
                return
            session.unread(data)
        else:
            start = Sniffed.HTTP if chosen in self.alpn else Sniffed.OTHER
        if start is Sniffed.HTTP:
            session.extensions.set(interception)
            await self.handler(session)
            return
        if trial is not None:
            trial.accepted()
        stream = await interception.open()
        await _relay_and_close(
            self._bytes, Bridge(session, interception.target, UpgradeStreams([stream], interception.open))
        )


async def _relay_and_close(relay: Relay, bridge: Bridge) -> None:
    """Run a relay over a bridge that this module made, and close the bridge."""
    try:
        await relay(bridge)
        await bridge.aclose()
    finally:
        bridge.abort()


def _client_of(bridge: Bridge) -> str:
    peer = bridge.extensions.get(PeerAddress)
    return "" if peer is None else peer.host


async def _blocked(request: Request) -> Response:
    raise RefusedError(f"{request.authority} is blocked by a rule")


def build_relay(
    where: str,
    ca: CertificateAuthority,
    layers: Sequence[Middleware[Request, Response]],
    made: MitmSettings,
    client: RequestHandler | None = None,
) -> MitmRelay:
    """Build the relay of `mitm.relay` and `mitm.proxy`; `client` sends requests that did not come over a bridge."""
    exchange = hooked(layers, Upstream(client, bool(layers)), where)
    if made.rules.need_decision:
        exchange = RequestRules(exchange, Upstream(client, False), made.rules)
    if made.portal_host is not None:
        exchange = CertificatePortal(exchange, ca, made.portal_host)
    handler = made.server(exchange)
    alpn = alpn_protocols(handler) or ("http/1.1",)
    leaves = CertificateCache(ca, made.certificate_cache_size, made.keylog)
    return MitmRelay(exchange, handler, made.server(_blocked), made.tls(raw_connector), leaves, made, alpn)


@layer_factory("mitm.relay", "relay")
def relay(
    ca: CertificateAuthority, *layers: Middleware[Request, Response], **options: Unpack[Options]
) -> Relay:
    """Intercept the traffic of a bridge; works behind any listener that takes a relay.

    TLS is terminated with a certificate that `ca` signs for the client's server name. HTTP and WebSocket, over TLS
    or not, pass through the layers, the first outermost, to the bridge's target; everything else is relayed as
    bytes, each chunk through the `on_chunk` hook if given. Layers find an `Interception` in a request's extensions;
    `ws.inspect(hook)` is the layer for WebSocket messages. If there are layers, content codings that
    `Body.decoded` cannot decode are removed from Accept-Encoding.

    The first of the `rules` that decides is applied, else `default` (`"intercept"`, `"passthrough"` or `"block"`);
    `pinning` detects clients that reject the certificates. `passthrough_relay` relays what is passed through, by
    default `tcp.relay()`.

    With `connect_upstream_first` (the default) the upstream is connected before the client's handshake completes: the
    certificate then copies its names and validity, and the client is offered the protocol that it chose. Otherwise
    it is connected when a request needs it. `verify` enables verification of upstreams (True), or names the CAs to
    trust, a file or directory; alternatively `tls` makes the connector, such as `partial(tls.connect, cert=...)`.
    `upstream_tls` sets whether upstreams are connected over TLS; None (the default) does as the client does.
    `revoked_fingerprints` are SHA-256 fingerprints of certificates to reject. If an upstream is unreachable,
    untrusted, or requires a client certificate that `tls` does not provide, the client gets an error page (502)
    inside its TLS session; `on_tls_error="passthrough"` passes the client through if TLS to the upstream fails.

    A client that waits for the server to speak first, as in SMTP or SSH, is detected only with
    `server_first_timeout`, in seconds; its bytes are then relayed. `handshake_timeout`, in seconds, applies to the
    client's handshake. `server` is the `http.server(...)` to use, for its timeouts. `portal_host` (`llama.internal`)
    serves a page that explains how to trust `ca`; None disables it. The latest `certificate_cache_size` (1024) are
    cached, at most 64 with `keylog`. `keylog` is that of `tls.server`, for clients and upstreams; it does not apply
    to connectors that `tls` makes.

    A layer or hook that fails ends only its own exchange, WebSocket or connection, and its traceback is logged. One
    that blocks is cancelled when its client disconnects; `server=http.server(handler_timeout=30)` limits the time
    that layers have to answer.

        tcp.forward("192.0.2.7:443", relay=mitm.relay(CertificateAuthority.open("ca"), layer))
    """
    made = settings("mitm.relay", options)
    return build_relay("mitm.relay", ca, layers, made)

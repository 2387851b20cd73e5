"""The forward proxy: clients name their target by CONNECT or by a request in absolute form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ConfigError, ProtocolError, RefusedError
from llama._core.extensions import Extensions
from llama._core.stack import check_accepts, layer_factory
from llama._core.target import Bridge, Connector, Relay, Target
from llama.http._client.client import client as http_client
from llama.http._h1.wire.encode import encode_request
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._messages.origin import Origin, origin_of
from llama.http._messages.upgrade import UpgradedConnection
from llama.http._proxy.hop_by_hop import forward_request, forward_response
from llama.http._proxy.reverse import pseudonym
from llama.http._proxy.rules import Rules, TargetRule
from llama.tcp import connect as tcp_connect
from llama.tcp import relay as tcp_relay
from llama.tcp._policy.target_patterns import TargetPatterns

MAX_LOOPS = 8  # a request is part of a loop once Via names this proxy this many times
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ForwardProxy:
    """A request handler that forwards each request to the target that it names."""

    connect: Connector
    relay: Relay
    client: RequestHandler
    rules: Rules
    via: str | None

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.proxy()"

    async def __call__(self, request: Request, /) -> Response:
        if request.method == "CONNECT" and not request.upgrade_protocol:
            return await self._tunnel(request)
        if not request.is_absolute_form:
            raise ProtocolError("requests to a forward proxy must have an absolute URL")
        if "via" in request.headers.names:
            self._check_loop(request)
        hops: str | None = None
        if request.method in ("OPTIONS", "TRACE") and "max-forwards" in request.headers:
            hops = _decrement_max_forwards(request.headers["max-forwards"])
            if hops is None:
                return _last_hop(request)
        rules, origin = self.rules, origin_of(request.scheme, request.authority)
        target = origin.target
        target = (
            rules.check_address(request, target)
            if rules.rule is None
            else await rules.check_target(request, target)
        )
        sent = self._forward(request, origin, target)
        if hops is not None:
            sent.headers["Max-Forwards"] = hops
        return forward_response(await self.client(sent), self.via)

    async def _tunnel(self, request: Request) -> Response:
        target = await self.rules.check_target(request, Target.parse(request.authority))
        if request._connection_extensions is not None:
            target = target.fork(request.extensions)
        stream = await self.connect(target)
        upgrade = UpgradedConnection(stream, target, self.relay, self.connect)
        response = Response(200, upgrade=upgrade)
        response.on_close(upgrade.abort)
        return response

    def _forward(self, request: Request, origin: Origin, target: Target) -> Request:
        """Return the request to send to an allowed target."""
        sent = forward_request(request)
        if self.via is not None:
            sent.headers._lines.append(f"Via: {request.version} {self.via}")
            sent.headers._keys.append("via")
        if target is not origin.target:
            # Do not reuse a pooled connection that was opened for a client with more rights.
            origin = Origin(origin.scheme, target, key="narrowed:")
        if sent._extensions is None:
            sent._extensions = Extensions()
        sent._extensions.set(origin)
        return sent

    def _check_loop(self, request: Request) -> None:
        if self.via is None:
            return
        passed = [each.split()[1:2] for each in request.headers.tokens("via")]
        if passed.count([self.via.lower()]) >= MAX_LOOPS:
            raise RefusedError(
                f"loop detected: the request has passed {self.via} {MAX_LOOPS} times", status=508
            )


def _decrement_max_forwards(text: str) -> str | None:
    """Return Max-Forwards for the next hop, or None at the last hop (RFC 9110 section 7.6.2)."""
    if not text.isdecimal() or len(text) > 9:
        raise ProtocolError(f"expected a number in Max-Forwards, got {text[:20]!r}")
    return str(int(text) - 1) if int(text) else None


def _last_hop(request: Request) -> Response:
    """Return the response to OPTIONS or TRACE with Max-Forwards: 0."""
    if request.method == "OPTIONS":
        return Response(200, {"Allow": "CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE"})
    headers = request.headers.copy()
    headers.discard(*_SECRET)
    seen = encode_request("TRACE", request.url, headers, 0)
    return Response(200, {"Content-Type": "message/http"}, seen)


@layer_factory("http.proxy", "service")
def proxy(
    *,
    connect: Connector | None = None,
    relay: Relay | None = None,
    client: RequestHandler | None = None,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] = (),
    rule: TargetRule | None = None,
    private: bool | None = None,
    via: str | None = "llama",
) -> RequestHandler:
    """A forward proxy, for CONNECT and for requests with an absolute URL.

    `connect` connects to targets, by default `tcp.connect()`; `relay` copies the bytes of a tunnel that CONNECT opened,
    by default `tcp.relay()`; `client` sends all other requests, by default `http.client(connect)`.

    `allow` and `deny` list targets: `HOST`, `*.DOMAIN`, `NETWORK` or `*`, each with or without `:PORT`. `rule` is a
    function of the request and the target, async or not, that returns whether the request may reach the target.
    `private` allows (True) or denies (False) loopback, private and other non-public addresses; None allows them to
    clients that connected to a loopback address or a Unix socket. Targets that are not allowed raise RefusedError
    (403). `via` is the name of this proxy in the Via field (None: no Via field).

        stack(http.server(), http.proxy_auth({"john": "secret"}), http.proxy(deny=["*:25"]))
    """
    connect = connect or tcp_connect()
    relay = relay or tcp_relay()
    client = client or http_client(connect)
    check_accepts(connect, Target, "http.proxy(connect=)")
    check_accepts(relay, Bridge, "http.proxy(relay=)")
    check_accepts(client, Request, "http.proxy(client=)")
    if isinstance(allow, str) or isinstance(deny, str):
        raise ConfigError("http.proxy(): expected lists of targets for allow and deny, got a string")
    denied = TargetPatterns(deny)
    rules = Rules(
        None if allow is None else TargetPatterns(allow), denied if denied.patterns else None, rule, private
    )
    return ForwardProxy(connect, relay, client, rules, pseudonym(via, "http.proxy"))

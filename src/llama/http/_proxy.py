"""The forward proxy: clients name their targets, by CONNECT or by a whole URL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ConfigError, ProtocolError, Refused
from llama._extensions import Extensions
from llama._stack import check_takes, factory
from llama._target import Bridge, Connector, Relay, Target
from llama.http._client import client as http_client
from llama.http._h1_client_upgrade import Upgraded
from llama.http._hop_by_hop import incoming, outgoing
from llama.http._message import Exchange, Request, Response
from llama.http._origin import Origin, origin_of
from llama.http._proxy_rules import Rules, TargetRule
from llama.http._reverse_proxy import pseudonym
from llama.http.wire._h1_encode import encode_request
from llama.tcp import connect as tcp_connect
from llama.tcp import relay as tcp_relay
from llama.tcp._target_set import TargetSet

LAPS = 8  # so often a request may have passed a proxy of this name
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Proxy:
    """Reaches the targets that requests name."""

    connect: Connector
    relay: Relay
    client: Exchange
    rules: Rules
    via: str | None

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.proxy()"

    async def __call__(self, request: Request, /) -> Response:
        if request.method == "CONNECT" and not request.protocol:
            return await self._tunnel(request)
        if not request.absolute:
            raise ProtocolError("this is a proxy: a request to it names a whole URL")
        if "via" in request.headers.names:
            self._check_laps(request)
        hops: str | None = None
        if request.method in ("OPTIONS", "TRACE") and "max-forwards" in request.headers:
            hops = _one_less(request.headers["max-forwards"])
            if hops is None:
                return _last_hop(request)
        rules, origin = self.rules, origin_of(request.scheme, request.authority)
        target = origin.target
        target = (
            rules.admit_place(request, target) if rules.rule is None else await rules.admit(request, target)
        )
        sent = self._sent(request, origin, target)
        if hops is not None:
            sent.headers["Max-Forwards"] = hops
        return incoming(await self.client(sent), self.via)

    async def _tunnel(self, request: Request) -> Response:
        target = await self.rules.admit(request, Target.parse(request.authority))
        if request._connection is not None:
            target = target.fork(request.extensions)
        stream = await self.connect(target)
        upgrade = Upgraded(stream, target, self.relay, self.connect)
        response = Response(200, upgrade=upgrade)
        response.on_close(upgrade.abort)
        return response

    def _sent(self, request: Request, origin: Origin, target: Target) -> Request:
        """What is sent to a target that may be reached."""
        sent = outgoing(request)
        if self.via is not None:
            sent.headers._lines.append(f"Via: {request.version} {self.via}")
            sent.headers._keys.append("via")
        if target is not origin.target:
            # A connection that was opened for a client with more rights is not for this one.
            origin = Origin(origin.scheme, target, key="narrowed:")
        if sent._extensions is None:
            sent._extensions = Extensions()
        sent._extensions.set(origin)
        return sent

    def _check_laps(self, request: Request) -> None:
        if self.via is None:
            return
        passed = [each.split()[1:2] for each in request.headers.tokens("via")]
        if passed.count([self.via.lower()]) >= LAPS:
            raise Refused(f"the request has passed {self.via} {LAPS} times: it runs in a circle", status=508)


def _one_less(text: str) -> str | None:
    """Max-Forwards for the next hop, None at the last one (RFC 9110 section 7.6.2)."""
    if not text.isdecimal() or len(text) > 9:
        raise ProtocolError(f"Max-Forwards {text[:20]!r} is no number")
    return str(int(text) - 1) if int(text) else None


def _last_hop(request: Request) -> Response:
    """The answer to OPTIONS and TRACE where they may go no further."""
    if request.method == "OPTIONS":
        return Response(200, {"Allow": "CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE"})
    headers = request.headers.copy()
    headers.discard(*_SECRET)
    seen = encode_request("TRACE", request.url, headers, 0)
    return Response(200, {"Content-Type": "message/http"}, seen)


@factory("http.proxy", "service")
def proxy(
    *,
    connect: Connector | None = None,
    relay: Relay | None = None,
    client: Exchange | None = None,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] = (),
    rule: TargetRule | None = None,
    private: bool | None = None,
    via: str | None = "llama",
) -> Exchange:
    """Reach the targets that clients name: a forward proxy, for CONNECT and for requests with a whole URL.

    `connect` reaches targets, by default `tcp.connect()`; `relay` carries the bytes of a CONNECT, by default
    `tcp.relay()`; `client` sends the other requests, by default `http.client(connect)`.

    `allow` and `deny` are targets, `HOST`, `*.DOMAIN`, `NETWORK` or `*`, each with `:PORT` or without; `rule` is
    asked with the request and the target. `private` tells whether loopback, private and other addresses that are
    not public may be reached: None means by clients that come in at a loopback address or a Unix socket. Who may
    not is Refused (403). `via` is this proxy's name in the Via field, None for none.

        stack(http.server(), http.proxy_auth({"john": "secret"}), http.proxy(deny=["*:25"]))
    """
    connect = connect or tcp_connect()
    relay = relay or tcp_relay()
    client = client or http_client(connect)
    check_takes(connect, Target, "http.proxy(connect=)")
    check_takes(relay, Bridge, "http.proxy(relay=)")
    check_takes(client, Request, "http.proxy(client=)")
    if isinstance(allow, str) or isinstance(deny, str):
        raise ConfigError("http.proxy(): expected lists of targets for allow and deny")
    denied = TargetSet(deny)
    rules = Rules(
        None if allow is None else TargetSet(allow), denied if denied.patterns else None, rule, private
    )
    return Proxy(connect, relay, client, rules, pseudonym(via, "http.proxy"))

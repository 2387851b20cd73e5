"""The intercepting forward proxy: layers for requests in absolute form and for those inside CONNECT tunnels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Unpack, cast

from llama._core.errors import RefusedError, UnreachableError
from llama._core.service import Middleware
from llama._core.stack import check_accepts, describe, layer_factory
from llama._core.stream import Stream
from llama._core.target import Connector, Target
from llama.http import Request, RequestHandler, Response, TargetRule
from llama.http import client as http_client
from llama.http import proxy as http_proxy
from llama.http._messages.origin import origin_of
from llama.http._messages.upgrade import UpgradedConnection
from llama.http._proxy.forward import ForwardProxy
from llama.mitm._pages import CertificatePortal
from llama.mitm._relay import MitmRelay, build_relay
from llama.mitm._rules import ConnectionInfo
from llama.mitm._settings import Options, settings
from llama.mitm._timed_connect import timed
from llama.tcp import connect as tcp_connect
from llama.tcp import forward
from llama.tls import CertificateAuthority


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class MitmProxy:
    """A forward proxy that intercepts its traffic."""

    proxy: ForwardProxy
    without_hooks: RequestHandler
    relay: MitmRelay
    connect: Connector

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"mitm.proxy({describe(self.relay.request_handler)})"

    async def __call__(self, request: Request, /) -> Response:
        exchange = self.relay.request_handler
        magic = isinstance(exchange, CertificatePortal) and exchange.is_for(request)
        if request.method == "CONNECT" and not request.upgrade_protocol:
            return await self._tunnel(request, magic)
        if magic:
            return await exchange(request)
        return await self._whole(request)

    async def _whole(self, request: Request) -> Response:
        """Forward a request in absolute form, which is not encrypted: passing it through only skips the layers."""
        if request.is_absolute_form and self.relay.settings.rules.need_decision:
            target = origin_of(request.scheme, request.authority).target
            action = self.relay.settings.rules.decide(ConnectionInfo(target, None, request.extensions))
            if action == "block":
                raise RefusedError(f"{target} is blocked by a rule")
            if action == "passthrough":
                return await self.without_hooks(request)
        return await self.proxy(request)

    async def _tunnel(self, request: Request, magic: bool) -> Response:
        target = Target.parse(request.authority)
        if magic:
            return Response(200, upgrade=forward(target, connect=_nobody, relay=self.relay))
        target = await self.proxy.rules.check_target(request, target)
        target = target.fork(request.extensions)
        action = self.relay.settings.rules.decide_early(ConnectionInfo(target, None, request.extensions))
        if action == "block":
            raise RefusedError(f"{target} is blocked by a rule")
        if action == "passthrough":
            upgrade = UpgradedConnection(
                await self.connect(target), target, self.relay.settings.passthrough_relay, self.connect
            )
            response = Response(200, upgrade=upgrade)
            response.on_close(upgrade.abort)
            return response
        # Connect later, in the relay: a failure can then be answered by a page inside the client's TLS.
        return Response(200, upgrade=forward(target, connect=self.connect, relay=self.relay))


async def _nobody(target: Target) -> Stream:
    raise UnreachableError(f"{target.host} is served by this proxy only")


@layer_factory("mitm.proxy", "service")
def proxy(
    ca: CertificateAuthority,
    *layers: Middleware[Request, Response],
    connect: Connector | None = None,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] = (),
    rule: TargetRule | None = None,
    private: bool | None = None,
    via: str | None = None,
    **options: Unpack[Options],
) -> RequestHandler:
    """An intercepting forward proxy: requests in absolute form and inside CONNECT tunnels pass through the layers.

    `connect`, `allow`, `deny`, `rule`, `private` and `via` are those of `http.proxy`, the other options those of
    `mitm.relay`. The target of a CONNECT is connected after the 200, so that a failure is answered by a page
    inside the client's TLS. For a target that a rule passes through or blocks by name, the CONNECT itself is
    answered with the error (502, 403).

        stack(http.server(), mitm.proxy(CertificateAuthority.open("ca"), layer))
    """
    connect = connect or tcp_connect()
    check_accepts(connect, Target, "mitm.proxy(connect=)")
    made = settings("mitm.proxy", options)
    plain = timed(connect)
    client = http_client(plain, tls=timed(made.tls(plain)))
    relay = build_relay("mitm.proxy", ca, layers, made, client)
    allow = None if allow is None else tuple(allow)
    deny = tuple(deny)

    def outer(asked: RequestHandler) -> RequestHandler:
        return http_proxy(
            connect=connect, client=asked, allow=allow, deny=deny, rule=rule, private=private, via=via
        )

    return MitmProxy(cast("ForwardProxy", outer(relay.request_handler)), outer(client), relay, connect)

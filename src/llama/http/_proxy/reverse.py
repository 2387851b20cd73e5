"""The reverse proxy: a request handler that forwards each request to one of its upstreams.

It picks an upstream by a balancing policy, rewrites the target and the fields for it, and retries on another upstream
when a failure shows that the first one has not acted on the request. A request is never sent twice if that could have
an effect: before anything was sent any request is retried, later only an idempotent one with its body in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, cast

from llama._core.errors import (
    ConfigError,
    LlamaError,
    OverloadedError,
    ProtocolError,
    TLSError,
    UnreachableError,
)
from llama._core.extensions import Extensions
from llama._core.stack import check_accepts, layer_factory
from llama._core.target import Connector
from llama.http._client.client import Client
from llama.http._client.client import client as http_client
from llama.http._h1.client import NoResponseError
from llama.http._h1.extended_connect import NotSwitched, needs_extended_connect
from llama.http._h1.wire.head import is_authority
from llama.http._messages.body import to_body
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._messages.normalized_path import decoded, has_dot_segments, without_prefix
from llama.http._messages.origin import split_url
from llama.http._messages.retryable import is_retryable
from llama.http._proxy.balance import POLICIES, InFlight, LoadBalancer, Upstream
from llama.http._proxy.forwarded_fields import FORWARDED, add_forwarded
from llama.http._proxy.hop_by_hop import HOP_BY_HOP, append_unchecked, forward_request, forward_response
from llama.layers._retry_budget import RetryBudget

Upstreams: TypeAlias = str | Iterable[str] | Mapping[str, float]
Policy: TypeAlias = Literal["round_robin", "least_connections", "random_of_two"]
_PSEUDONYM = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z:-]+")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_DROPPED_HEADERS = HOP_BY_HOP | FORWARDED
MIN_RETRIES_PER_PERIOD = 10.0


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """The configured changes to the path, Host and Via of each request."""

    host: str | None
    strip_prefix: str
    add_prefix: str
    via: str | None
    is_prefixed: bool

    def path(self, path: str, upstream: Upstream) -> str | None:
        """Return the path for an upstream, or None if the path is not below the prefix to strip."""
        if path == "*":
            return path
        path, question, query = path.partition("?")
        prefix = upstream.path + self.add_prefix
        if self.strip_prefix or prefix:
            rest = without_prefix(path, decoded(self.strip_prefix))
            if rest is None:
                return None
            path = rest
        return f"{prefix}{path if path[:1] == '/' else f'/{path}'}{question}{query}"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits for retries on other upstreams, and the thresholds for ejecting one."""

    retries: int
    budget: RetryBudget | None
    max_failures: int
    ejection_time: float


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ReverseProxy:
    """A request handler that forwards requests to upstreams."""

    client: RequestHandler
    balance: LoadBalancer
    rewriting: PathRewrite
    retrying: RetryPolicy

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.reverse_proxy({', '.join(map(repr, self.balance.upstreams))})"

    async def __call__(self, request: Request, /) -> Response:
        sent = self._outgoing(request)
        unfit = self._without_upgrade_support(request)
        upstream = self.balance.next(unfit)
        if upstream in unfit:
            raise ProtocolError(
                f"{upstream} does not support upgrades: cannot upgrade to {request.upgrade_protocol}",
                status=502,
            )
        if self.retrying.budget is not None:
            self.retrying.budget.deposit()
        tried: list[Upstream] = []
        while True:
            if not self._target_upstream(sent, request, upstream):
                return Response(404, {"Content-Type": "text/plain"}, b"404 Not Found\n")
            turn = InFlight(upstream) if self.balance.counts else None
            try:
                response = await self.client(sent)
            except BaseException as error:
                if turn is not None:  # a traceback that is kept would keep the turn alive
                    turn.end()
                if not isinstance(error, LlamaError | OSError):
                    raise
                self._record_failure(upstream, error)
                tried.append(upstream)
                if not self._is_retried(error, sent, tried):
                    raise
                upstream = self.balance.next((*tried, *unfit))
                if upstream in unfit:
                    raise
                sent = self._prepare_retry(request)
                continue
            if upstream.failures:
                upstream.record_success()
            if turn is not None:
                response.on_close(turn.end)
            return self._incoming(response)

    def _without_upgrade_support(self, request: Request) -> Sequence[Upstream]:
        """Return the upstreams that cannot serve this request: upgrades over HTTP/3 are not supported."""
        if not needs_extended_connect(request):
            return ()
        return [each for each in self.balance.upstreams if each.origin.scheme == "h3"]

    def _incoming(self, response: Response) -> Response:
        answer = forward_response(response, self.rewriting.via)
        if "alt-svc" in answer.headers.names:  # it names the upstream's ports, which clients cannot use
            answer.headers.discard("Alt-Svc")
        return answer

    def _outgoing(self, request: Request) -> Request:
        sent = forward_request(request, _DROPPED_HEADERS)
        headers = sent.headers
        add_forwarded(headers, request)
        rewriting = self.rewriting
        if rewriting.strip_prefix:
            append_unchecked(headers, "X-Forwarded-Prefix", rewriting.strip_prefix)
        if rewriting.via is not None:
            headers._lines.append(f"Via: {request.version} {rewriting.via}")
            headers._keys.append("via")
        if rewriting.host is not None and rewriting.host != "upstream":
            sent.authority = rewriting.host
        return sent

    def _prepare_retry(self, request: Request) -> Request:
        """Return a fresh copy to send after a failed attempt: the client may have modified the first one."""
        sent = self._outgoing(request)
        if (data := sent._body.buffered) is not None:
            sent._body = to_body(bytes(data))  # the first copy may be partly read
        return sent

    def _target_upstream(self, sent: Request, request: Request, upstream: Upstream) -> bool:
        """Address a request to an upstream; return False if its path is not below the prefix."""
        rewriting = self.rewriting
        if rewriting.is_prefixed:
            path = rewriting.path(request.path, upstream)
            if path is None:
                return False
            sent.path = path
        if rewriting.host == "upstream":
            sent.authority = upstream.origin.authority
        if sent._extensions is None:
            sent._extensions = Extensions()
        sent._extensions.set(upstream.origin)
        return True

    def _record_failure(self, upstream: Upstream, error: Exception) -> None:
        """Count a failure of an upstream, except errors of the request body or the pool and refused upgrades."""
        if isinstance(error, OverloadedError | NotSwitched) or (
            isinstance(error, LlamaError) and error.status < 500
        ):
            return
        upstream.record_failure(error, self.retrying.max_failures, self.retrying.ejection_time)

    def _is_retried(self, error: Exception, sent: Request, tried: Sequence[Upstream]) -> bool:
        if len(tried) > self.retrying.retries or len(tried) >= len(self.balance.upstreams):
            return False
        unsent = isinstance(error, UnreachableError | OverloadedError)
        # A TLSError can come from the handshake, before anything was sent, or from the established session.
        if not unsent and not (isinstance(error, NoResponseError | TLSError) and is_retryable(sent)):
            return False
        return self.retrying.budget is None or self.retrying.budget.try_withdraw()


@layer_factory("http.reverse_proxy", "service")
def reverse_proxy(
    upstreams: Upstreams, *, client: RequestHandler | None = None, connect: Connector | None = None,
    balance: Policy = "round_robin", host: str | None = None, strip_prefix: str = "", add_prefix: str = "",
    via: str | None = "llama", retries: int = 1, retry_budget: float | None = 0.2, max_failures: int = 3,
    ejection_time: float = 10.0,
) -> RequestHandler:  # fmt: skip
    """Forward requests to one or more upstreams.

    An upstream is a URL: `http://HOST:PORT`, `https://`, `h2c://`, `h3://`, `http+unix:PATH` or `unix:PATH`. `balance`
    distributes requests among several; a mapping gives each URL a weight. An upstream that fails `max_failures` times
    in a row is ejected for `ejection_time` seconds: used only if no other is available. A request is retried on up
    to `retries` other upstreams if nothing was sent, or if it is idempotent and got no response. `retry_budget`
    limits retries to a share of all requests (None: no limit).

    `client` sends the requests, by default `http.client(connect)`; it holds the timeouts, limits and TLS settings.
    Host is kept; `host="upstream"` sends the upstream's authority, any other text replaces it. `strip_prefix` is
    removed from the beginning of the path (404 if it is not below), then `add_prefix` is prepended. `via` is the
    pseudonym in Via, or None.

    X-Forwarded-For, -Proto, -Host and Forwarded are replaced, not extended; `http.forwarded` selects the proxies whose
    values are trusted. Upgrades such as WebSocket are forwarded (except to `h3://`), upgrades to h2c are not; CONNECT
    gets 405. Failures raise errors with status 502, 503 or 504. `client=http.h3_client(fallback=http.client())` uses
    HTTP/3 for upstreams that announce it by Alt-Svc.

        stack(http.server(), http.reverse_proxy({"http://10.0.0.1:8000": 2, "http://10.0.0.2:8000": 1}))
    """
    if client is not None and connect is not None:
        raise ConfigError("http.reverse_proxy(): client= and connect= are mutually exclusive")
    asking = client if client is not None else http_client(connect)
    check_accepts(asking, Request, "http.reverse_proxy(client=)")
    if retries < 0 or max_failures < 1 or ejection_time < 0:
        raise ConfigError("http.reverse_proxy(): expected retries >= 0, rest >= 0 and max_failures >= 1")
    parsed = _upstreams(upstreams)
    if isinstance(asking, Client):
        _check_h3(asking, parsed)
    made = POLICIES[_checked(balance, POLICIES)](parsed)
    prefixed = bool(strip_prefix or add_prefix or any(each.path for each in made.upstreams))
    rewriting = PathRewrite(
        _host(host),
        _prefix(strip_prefix),
        _prefix(add_prefix),
        pseudonym(via, "http.reverse_proxy"),
        prefixed,
    )
    budget = None if retry_budget is None else RetryBudget(retry_budget, MIN_RETRIES_PER_PERIOD)
    return ReverseProxy(asking, made, rewriting, RetryPolicy(retries, budget, max_failures, ejection_time))


def _upstreams(to: Upstreams) -> list[Upstream]:
    if isinstance(to, Mapping):
        weights = {str(url): float(weight) for url, weight in cast("Mapping[str, float]", to).items()}
    else:
        weights = dict.fromkeys([to] if isinstance(to, str) else to, 1.0)
    if not weights:
        raise ConfigError("http.reverse_proxy(): expected at least one upstream")
    for url, weight in weights.items():
        if weight <= 0:
            raise ConfigError(f"http.reverse_proxy(): expected a weight above 0 for {url}, got {weight:g}")
    return [Upstream(*split_url(url), weight) for url, weight in weights.items()]


def _check_h3(client: Client, upstreams: Iterable[Upstream]) -> None:
    for each in upstreams:
        if each.origin.scheme == "h3" and (why := client.state.h3.why_unavailable) is not None:
            raise ConfigError(f"cannot use upstream {each}: {why}")


def _checked(balance: str, known: Iterable[str]) -> str:
    if balance not in known:
        raise ConfigError(f"http.reverse_proxy(balance={balance!r}): expected one of {', '.join(known)}")
    return balance


def _prefix(text: str) -> str:
    if text and (_PREFIX.fullmatch(text.rstrip("/")) is None or has_dot_segments(text)):
        raise ConfigError(f"http.reverse_proxy(): expected a path prefix such as /api, got {text!r}")
    return text.rstrip("/")


def _host(host: str | None) -> str | None:
    if host is not None and not (host and is_authority(host)):
        raise ConfigError(f"http.reverse_proxy(host={host!r}): expected a host, 'upstream' or None")
    return host


def pseudonym(via: str | None, who: str) -> str | None:
    """Return `via` if it is a valid pseudonym for a Via field, or None; raise ConfigError otherwise."""
    if via is not None and _PSEUDONYM.fullmatch(via) is None:
        raise ConfigError(f"{who}(via={via!r}): expected a name without spaces, or None")
    return via

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

from llama._core.errors import ConfigError, LlamaError, Overloaded, ProtocolError, TLSError, Unreachable
from llama._core.extensions import Extensions
from llama._core.stack import check_takes, factory
from llama._core.target import Connector
from llama.http._client.client import Client
from llama.http._client.client import client as http_client
from llama.http._h1.client import NoAnswer
from llama.http._h1.extended_connect import NotSwitched, needs_extended_connect
from llama.http._h1.wire.head import is_authority
from llama.http._messages.body import body_of
from llama.http._messages.message import Exchange, Request, Response
from llama.http._messages.normalized_path import decoded, has_dot_segments, without_prefix
from llama.http._messages.origin import split_url
from llama.http._messages.retryable import is_replayable
from llama.http._proxy.balance import POLICIES, Balance, Turn, Upstream
from llama.http._proxy.forwarded_fields import FORWARDED, add_forwarded
from llama.http._proxy.hop_by_hop import HOP_BY_HOP, incoming, outgoing, put
from llama.layers._retry_budget import Budget

To: TypeAlias = str | Iterable[str] | Mapping[str, float]
Policy: TypeAlias = Literal["round_robin", "least_connections", "random_of_two"]
_PSEUDONYM = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z:-]+")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_GONE = HOP_BY_HOP | FORWARDED
RETRY_RESERVE = 10.0


@dataclass(frozen=True, slots=True)
class Rewriting:
    """The configured changes to the path, Host and Via of each request."""

    host: str | None
    strip: str
    add: str
    via: str | None
    is_prefixed: bool

    def path(self, path: str, upstream: Upstream) -> str | None:
        """Return the path for an upstream, or None if the path is not below the prefix to strip."""
        if path == "*":
            return path
        path, question, query = path.partition("?")
        prefix = upstream.path + self.add
        if self.strip or prefix:
            rest = without_prefix(path, decoded(self.strip))
            if rest is None:
                return None
            path = rest
        return f"{prefix}{path if path[:1] == '/' else f'/{path}'}{question}{query}"


@dataclass(frozen=True, slots=True)
class Retrying:
    """Limits for retries on other upstreams, and the thresholds for ejecting one."""

    retries: int
    budget: Budget | None
    max_failures: int
    rest: float


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ReverseProxy:
    """A request handler that forwards requests to upstreams."""

    client: Exchange
    balance: Balance
    rewriting: Rewriting
    retrying: Retrying

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.reverse_proxy({', '.join(map(repr, self.balance.upstreams))})"

    async def __call__(self, request: Request, /) -> Response:
        sent = self._outgoing(request)
        unfit = self._unfit(request)
        upstream = self.balance.next(unfit)
        if upstream in unfit:
            raise ProtocolError(
                f"{upstream} does not support upgrades: cannot upgrade to {request.protocol}", status=502
            )
        if self.retrying.budget is not None:
            self.retrying.budget.called()
        tried: list[Upstream] = []
        while True:
            if not self._address(sent, request, upstream):
                return Response(404, {"Content-Type": "text/plain"}, b"404 Not Found\n")
            turn = Turn(upstream) if self.balance.counts else None
            try:
                response = await self.client(sent)
            except BaseException as error:
                if turn is not None:  # a traceback that is kept would keep the turn alive
                    turn.end()
                if not isinstance(error, LlamaError | OSError):
                    raise
                self._note(upstream, error)
                tried.append(upstream)
                if not self._is_retried(error, sent, tried):
                    raise
                upstream = self.balance.next((*tried, *unfit))
                if upstream in unfit:
                    raise
                sent = self._again(request)
                continue
            if upstream.failures:
                upstream.note_success()
            if turn is not None:
                response.on_close(turn.end)
            return self._incoming(response)

    def _unfit(self, request: Request) -> Sequence[Upstream]:
        """Return the upstreams that cannot serve this request: upgrades over HTTP/3 are not supported."""
        if not needs_extended_connect(request):
            return ()
        return [each for each in self.balance.upstreams if each.origin.scheme == "h3"]

    def _incoming(self, response: Response) -> Response:
        answer = incoming(response, self.rewriting.via)
        if "alt-svc" in answer.headers.names:  # it names the upstream's ports, which clients cannot use
            answer.headers.discard("Alt-Svc")
        return answer

    def _outgoing(self, request: Request) -> Request:
        sent = outgoing(request, _GONE)
        headers = sent.headers
        add_forwarded(headers, request)
        rewriting = self.rewriting
        if rewriting.strip:
            put(headers, "X-Forwarded-Prefix", rewriting.strip)
        if rewriting.via is not None:
            headers._lines.append(f"Via: {request.version} {rewriting.via}")
            headers._keys.append("via")
        if rewriting.host is not None and rewriting.host != "upstream":
            sent.authority = rewriting.host
        return sent

    def _again(self, request: Request) -> Request:
        """Return a fresh copy to send after a failed attempt: the client may have modified the first one."""
        sent = self._outgoing(request)
        if (data := sent._body.data) is not None:
            sent._body = body_of(bytes(data))  # the first copy may be partly read
        return sent

    def _address(self, sent: Request, request: Request, upstream: Upstream) -> bool:
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

    def _note(self, upstream: Upstream, error: Exception) -> None:
        """Count a failure of an upstream, except errors of the request body or the pool and refused upgrades."""
        if isinstance(error, Overloaded | NotSwitched) or (
            isinstance(error, LlamaError) and error.status < 500
        ):
            return
        upstream.note_failure(error, self.retrying.max_failures, self.retrying.rest)

    def _is_retried(self, error: Exception, sent: Request, tried: Sequence[Upstream]) -> bool:
        if len(tried) > self.retrying.retries or len(tried) >= len(self.balance.upstreams):
            return False
        unsent = isinstance(error, Unreachable | Overloaded)
        # A TLSError can come from the handshake, before anything was sent, or from the established session.
        if not unsent and not (isinstance(error, NoAnswer | TLSError) and is_replayable(sent)):
            return False
        return self.retrying.budget is None or self.retrying.budget.take()


@factory("http.reverse_proxy", "service")
def reverse_proxy(
    to: To,
    *,
    client: Exchange | None = None,
    connect: Connector | None = None,
    balance: Policy = "round_robin",
    host: str | None = None,
    strip: str = "",
    add: str = "",
    via: str | None = "llama",
    retries: int = 1,
    retry_budget: float | None = 0.2,
    max_failures: int = 3,
    rest: float = 10.0,
) -> Exchange:
    """Forward requests to one or more upstreams.

    An upstream is a URL: `http://HOST:PORT`, `https://`, `h2c://`, `h3://`, `http+unix:PATH` or `unix:PATH`. `balance`
    distributes requests among several; a mapping gives each URL a weight. An upstream that fails `max_failures` times
    in a row is ejected for `rest` seconds: used only if no other is available. A request is retried on up to `retries`
    other upstreams if nothing was sent, or if it is idempotent and got no response. `retry_budget` limits retries to a
    share of all requests (None: no limit).

    `client` sends the requests, by default `http.client(connect)`; it holds the timeouts, limits and TLS settings.
    Host is kept; `host="upstream"` sends the upstream's authority, any other text replaces it. `strip` is removed from
    the beginning of the path (404 if it is not below), then `add` is prepended. `via` is the pseudonym in Via, or None.

    X-Forwarded-For, -Proto, -Host and Forwarded are replaced, not extended; `http.forwarded` selects the proxies whose
    values are trusted. Upgrades such as WebSocket are forwarded (except to `h3://`), upgrades to h2c are not; CONNECT
    gets 405. Failures raise errors with status 502, 503 or 504. `client=http.h3_client(fallback=http.client())` uses
    HTTP/3 for upstreams that announce it by Alt-Svc.

        stack(http.server(), http.reverse_proxy({"http://10.0.0.1:8000": 2, "http://10.0.0.2:8000": 1}))
    """
    if client is not None and connect is not None:
        raise ConfigError("http.reverse_proxy(): client= and connect= are mutually exclusive")
    asking = client if client is not None else http_client(connect)
    check_takes(asking, Request, "http.reverse_proxy(client=)")
    if retries < 0 or max_failures < 1 or rest < 0:
        raise ConfigError("http.reverse_proxy(): expected retries >= 0, rest >= 0 and max_failures >= 1")
    upstreams = _upstreams(to)
    if isinstance(asking, Client):
        _check_h3(asking, upstreams)
    made = POLICIES[_checked(balance, POLICIES)](upstreams)
    prefixed = bool(strip or add or any(each.path for each in made.upstreams))
    rewriting = Rewriting(
        _host(host), _prefix(strip), _prefix(add), pseudonym(via, "http.reverse_proxy"), prefixed
    )
    budget = None if retry_budget is None else Budget(retry_budget, RETRY_RESERVE)
    return ReverseProxy(asking, made, rewriting, Retrying(retries, budget, max_failures, rest))


def _upstreams(to: To) -> list[Upstream]:
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
        if each.origin.scheme == "h3" and (why := client.state.h3.obstacle) is not None:
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

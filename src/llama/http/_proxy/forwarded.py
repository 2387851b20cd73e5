"""The original client of a request that came through trusted proxies (RFC 7239)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from llama._core.errors import ConfigError
from llama._core.server import PeerAddress
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._h1.wire.head import is_authority
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._proxy.forwarded_fields import FORWARDED, ForwardedFor
from llama.layers._peer_key import packed_address
from llama.tcp import Network
from llama.tcp._policy.networks import Networks

MAX_ELEMENTS = 32  # the maximum number of hops to follow
_ELEMENT = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^";,\s]*)\s*([;,]|$)')


class ForwardedElement:
    """The parsed forwarding fields: one element for each hop, the client's first."""

    __slots__ = ("hosts", "nodes", "protos")

    def __init__(self, nodes: list[str], protos: list[str], hosts: list[str]) -> None:
        self.nodes = nodes
        self.protos = protos
        self.hosts = hosts


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Forwarded:
    """A request handler that takes the client's address from trusted proxies."""

    inner: RequestHandler
    is_trusted: Callable[[str], bool]
    header: str
    host: bool

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.forwarded()"

    def __call__(self, request: Request, /) -> Awaitable[Response]:
        headers = request.headers
        if not FORWARDED.isdisjoint(headers.names):
            peer = request.client
            if peer is None or not self.is_trusted(peer.host):
                headers.discard(*FORWARDED)
            else:
                self._apply_trusted(request, peer)
        return self.inner(request)

    def _apply_trusted(self, request: Request, peer: PeerAddress) -> None:
        headers = request.headers
        said = _said_by_rfc(headers) if self.header == "forwarded" else _said_by_custom(headers)
        position = len(said.nodes)
        client, way = peer, list[str]()
        while position and len(way) < MAX_ELEMENTS and self.is_trusted(client.host):
            found = _peer(said.nodes[position - 1])
            if found is None:
                break
            position -= 1
            client = found
            way.insert(0, found.host)
        request.client = client
        request.extensions.set(ForwardedFor(tuple(way)))
        proto = _at(said.protos, position, len(said.nodes))
        if proto in ("http", "https"):
            request.scheme = proto
        host = _at(said.hosts, position, len(said.nodes))
        if self.host and host and is_authority(host):
            request.authority = host
        gone = FORWARDED - ({"forwarded"} if self.header == "forwarded" else _CUSTOM)
        headers.discard(*gone)


_CUSTOM = frozenset({"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})


def _at(values: list[str], position: int, count: int) -> str:
    """Return the value for one hop, or the last one (the peer's) if there is not one value for each hop."""
    if not values:
        return ""
    return values[position] if len(values) == count and position < count else values[-1]


def _said_by_custom(headers: Headers) -> ForwardedElement:
    return ForwardedElement(
        _parts(headers, "x-forwarded-for"),
        [each.lower() for each in _parts(headers, "x-forwarded-proto")],
        _parts(headers, "x-forwarded-host"),
    )


def _parts(headers: Headers, name: str) -> list[str]:
    if name not in headers.names:
        return []
    return [part.strip() for value in headers.get_all(name) for part in value.split(",")]


def _said_by_rfc(headers: Headers) -> ForwardedElement:
    text = ",".join(headers.get_all("forwarded"))
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(text):
        match = _ELEMENT.match(text, position)
        if match is None:  # malformed: no element can be attributed to a hop
            return ForwardedElement([], [], [])
        value = match[2]
        if value[:1] == '"':
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        elements[-1][match[1].lower()] = value
        if match[3] == ",":
            elements.append({})
        position = match.end()
    return ForwardedElement(
        [each.get("for", "") for each in elements],
        [each.get("proto", "").lower() for each in elements],
        [each.get("host", "") for each in elements],
    )


def _peer(node: str) -> PeerAddress | None:
    """Parse an IP address with or without a port; return None for anything else."""
    if node[:1] == "[":
        host, _, rest = node[1:].partition("]")
        port = rest[1:] if rest[:1] == ":" else ""
    elif node.count(":") == 1:
        host, _, port = node.partition(":")
    else:
        host, port = node, ""
    if packed_address(host) is None:
        return None
    return PeerAddress(host, int(port) if port.isascii() and port.isdecimal() and int(port) < 65536 else 0)


@layer_factory("http.forwarded")
def forwarded(
    trust: Iterable[Network],
    *,
    header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for",
    host: bool = False,
) -> Middleware[Request, Response]:
    """Set `request.client` and `request.scheme` from the fields of proxies in trusted networks.

    `trust` lists networks as `tcp.allow` does. The client is the last address in the chain that is not trusted, so a
    client cannot forge its address. `header` is the field that the proxies set, and the only one that is read:
    X-Forwarded-For (with X-Forwarded-Proto) or Forwarded (RFC 7239). With `host`, the forwarded host becomes the
    request's authority; use it only with proxies that always set it. All such fields are removed from requests of
    other peers. `http.reverse_proxy` sends the whole chain to its upstream.

        stack(http.server(), http.forwarded(["10.0.0.0/8"]), application)
    """
    if header not in ("x-forwarded-for", "forwarded"):
        raise ConfigError(f"http.forwarded(header={header!r}): expected 'x-forwarded-for' or 'forwarded'")
    if isinstance(trust, str):
        raise ConfigError(f"http.forwarded(): expected a list of networks, got {trust!r}")
    networks = Networks(trust)
    is_trusted = lru_cache(1024)(networks.__contains__)

    def build(inner: RequestHandler) -> RequestHandler:
        return Forwarded(inner, is_trusted, header, host)

    return named_layer("http.forwarded()", build, input_type=Request, inner_type=Request)

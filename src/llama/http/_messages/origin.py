"""Origins: the destination of a request, as a scheme and a target."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from llama._core.errors import ConfigError, ProtocolError
from llama._core.target import Target, split_address
from llama.http._h3_extra import has_qh3, require_qh3

_FORM = re.compile(r"(https?|h2c|h3(?!\+))(\+unix)?:(?://([^/?#]*))?([^?#]*)")
_PORTS = {"http": 80, "https": 443, "h2c": 80, "h3": 443}
_SECURE = frozenset({"https", "h3"})
_SCHEMES = {"": "http", "ws": "http", "wss": "https"}  # by URL scheme of a WebSocket (RFC 6455 section 4.1)
_EXPECTED = "expected http://, https://, h2c:// or h3://HOST[:PORT], http+unix:PATH or unix:PATH"


class Origin:
    """A scheme, `http`, `https`, `h2c` (cleartext HTTP/2) or `h3` (HTTP/3), and the target to connect to.

    In a request's extensions it overrides the Host field as the destination of `http.client`.
    """

    __slots__ = ("_http1_only", "authority", "is_http1_only", "pool_key", "scheme", "target")

    def __init__(self, scheme: str, target: Target, *, key: str = "") -> None:
        self.scheme = scheme
        self.target = target
        self.pool_key = f"{scheme}://{key}{target}".lower() if target.port else f"{scheme}://{key}{target}"
        """The key for sharing connections: origins with equal keys share them."""
        self.authority = _authority(scheme, target)
        """The value for the Host field."""
        self.is_http1_only = False
        """Whether only HTTP/1.1 is used."""
        self._http1_only: Origin | None = None

    @property
    def http1_only(self) -> Origin:
        """The same origin restricted to HTTP/1.1, with separate connections."""
        if self._http1_only is None:
            self._http1_only = origin = Origin(self.scheme, self.target)
            origin.pool_key = f"{self.pool_key} over HTTP/1.1"
            origin.is_http1_only = True
        return self._http1_only

    @property
    def http_scheme(self) -> str:
        """The scheme of its requests: `http` or `https`."""
        return "https" if self.scheme in _SECURE else "http"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin) and self.pool_key == other.pool_key

    def __hash__(self) -> int:
        return hash(self.pool_key)

    def __repr__(self) -> str:
        return f"{self.scheme}://{self.target}"

    @classmethod
    def parse(cls, url: str) -> Origin:
        """Parse a URL without a path, in the forms of `split_url`; raise ConfigError if it is invalid."""
        origin, path = split_url(url)
        if path:
            raise ConfigError(f"URL {url!r} has a path: {_EXPECTED}")
        return origin


def _authority(scheme: str, target: Target) -> str:
    if target.host.startswith("unix:"):
        return "localhost"
    host = f"[{target.host}]" if ":" in target.host else target.host
    return host if target.port == _PORTS[scheme] else f"{host}:{target.port}"


def split_url(url: str) -> tuple[Origin, str]:
    """Split `http://HOST:PORT/PATH`, `http+unix://%2FSOCKET/PATH`, `http+unix:SOCKET` or `unix:SOCKET` into origin
    and path; raise ConfigError if the URL is invalid."""
    if url.startswith("unix:") and len(url) > 5:
        return Origin("http", Target(url, 0)), ""
    match = _FORM.fullmatch(url)
    if match is None:
        raise ConfigError(f"invalid upstream URL {url!r}: {_EXPECTED}")
    scheme, unix, authority, path = match[1], match[2], match[3], match[4]
    if scheme == "h3":
        require_qh3(f"{scheme}://")
    if unix:
        socket, path = (unquote(authority), path) if authority else (path, "")
        if not socket:
            raise ConfigError(f"upstream URL {url!r} has no socket path: {_EXPECTED}")
        return Origin(scheme, Target(f"unix:{socket}", 0)), path.rstrip("/")
    if "@" in (authority or ""):  # the part before it may contain a password: do not show it
        raise ConfigError(f"the URL of {authority.rpartition('@')[2]!r} has a user: {_EXPECTED}")
    if not authority:
        raise ConfigError(f"invalid upstream URL {url!r}: {_EXPECTED}")
    host, port = split_address(authority, _PORTS[scheme])
    if not host or not port:
        raise ConfigError(f"upstream URL {url!r} has no valid host and port: {_EXPECTED}")
    return Origin(scheme, Target(host, port)), path.rstrip("/")


@lru_cache(4096)
def origin_of(scheme: str, authority: str) -> Origin:
    """Return the origin for the scheme and authority of a request; raise ProtocolError (400) if they are invalid."""
    scheme = _SCHEMES.get(scheme, scheme)
    if scheme not in _PORTS:
        raise ProtocolError(f"unsupported scheme {scheme[:40]!r}")
    if scheme == "h3" and not has_qh3():
        raise ProtocolError(f"scheme {scheme!r} needs an extra: pip install proxy-llama[http3]")
    try:
        host, port = split_address(authority.removesuffix(":"), _PORTS[scheme])
    except ConfigError as error:
        raise ProtocolError(f"invalid authority: {error}") from None
    if not host or not port or host.startswith("unix:"):  # clients must not reach local sockets
        raise ProtocolError(f"expected an authority with a host, got {authority[:60]!r}")
    return Origin(scheme, Target(host, port))

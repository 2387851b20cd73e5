"""Origins: where a client's request goes, by scheme and target."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from llama._errors import ConfigError, ProtocolError
from llama._target import Target, split_address
from llama.http._h3_needed import has_qh3, need_qh3

_FORM = re.compile(r"(https?|h2c|h3(?!\+))(\+unix)?:(?://([^/?#]*))?([^?#]*)")
_PORTS = {"http": 80, "https": 443, "h2c": 80, "h3": 443}
_SECURE = frozenset({"https", "h3"})
_SCHEMES = {"": "http", "ws": "http", "wss": "https"}  # what a WebSocket's begins with (RFC 6455 section 4.1)
_EXPECTED = "expected http://, https://, h2c:// or h3://HOST[:PORT], http+unix:PATH or unix:PATH"


class Origin:
    """A scheme, `http`, `https`, `h2c` (HTTP/2 in the clear) or `h3` (HTTP/3), and the target that answers for it.

    In a request's extensions it is where `http.client` sends the request, whatever its Host says.
    """

    __slots__ = ("_over_h1", "authority", "is_over_h1", "key", "scheme", "target")

    def __init__(self, scheme: str, target: Target, *, key: str = "") -> None:
        self.scheme = scheme
        self.target = target
        self.key = f"{scheme}://{key}{target}".lower() if target.port else f"{scheme}://{key}{target}"
        """Connections are shared by who has the same key."""
        self.authority = _authority(scheme, target)
        """What the Host field calls it."""
        self.is_over_h1 = False
        """Whether it is spoken to over HTTP/1.1 alone."""
        self._over_h1: Origin | None = None

    @property
    def over_h1(self) -> Origin:
        """The same over HTTP/1.1 alone, with connections of its own."""
        if self._over_h1 is None:
            self._over_h1 = origin = Origin(self.scheme, self.target)
            origin.key = f"{self.key} over HTTP/1.1"
            origin.is_over_h1 = True
        return self._over_h1

    @property
    def http_scheme(self) -> str:
        """What a request calls it: `http` or `https`."""
        return "https" if self.scheme in _SECURE else "http"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"{self.scheme}://{self.target}"

    @classmethod
    def parse(cls, url: str) -> Origin:
        """Read a URL without a path, as `split_url` does; ConfigError otherwise."""
        origin, path = split_url(url)
        if path:
            raise ConfigError(f"{url!r} has a path: {_EXPECTED}")
        return origin


def _authority(scheme: str, target: Target) -> str:
    if target.host.startswith("unix:"):
        return "localhost"
    host = f"[{target.host}]" if ":" in target.host else target.host
    return host if target.port == _PORTS[scheme] else f"{host}:{target.port}"


def split_url(url: str) -> tuple[Origin, str]:
    """The origin and the path of `http://HOST:PORT/PATH`, `http+unix://%2FSOCKET/PATH`, `http+unix:SOCKET` or
    `unix:SOCKET`; ConfigError otherwise."""
    if url.startswith("unix:") and len(url) > 5:
        return Origin("http", Target(url, 0)), ""
    match = _FORM.fullmatch(url)
    if match is None:
        raise ConfigError(f"{url!r} is no upstream: {_EXPECTED}")
    scheme, unix, authority, path = match[1], match[2], match[3], match[4]
    if scheme == "h3":
        need_qh3(f"{scheme}://")
    if unix:
        socket, path = (unquote(authority), path) if authority else (path, "")
        if not socket:
            raise ConfigError(f"{url!r} names no socket: {_EXPECTED}")
        return Origin(scheme, Target(f"unix:{socket}", 0)), path.rstrip("/")
    if "@" in (authority or ""):  # what stands before it may be a password, which is not shown
        raise ConfigError(f"the URL of {authority.rpartition('@')[2]!r} names a user: {_EXPECTED}")
    if not authority:
        raise ConfigError(f"{url!r} is no upstream: {_EXPECTED}")
    host, port = split_address(authority, _PORTS[scheme])
    if not host or not port:
        raise ConfigError(f"{url!r} names no host and port: {_EXPECTED}")
    return Origin(scheme, Target(host, port)), path.rstrip("/")


@lru_cache(4096)
def origin_of(scheme: str, authority: str) -> Origin:
    """The origin that a request's own scheme and authority name; ProtocolError (400) where they name none."""
    scheme = _SCHEMES.get(scheme, scheme)
    if scheme not in _PORTS:
        raise ProtocolError(f"scheme {scheme[:40]!r} is not spoken here")
    if scheme == "h3" and not has_qh3():
        raise ProtocolError(f"scheme {scheme!r} is not spoken here: pip install proxy-llama[http3]")
    try:
        host, port = split_address(authority.removesuffix(":"), _PORTS[scheme])
    except ConfigError as error:
        raise ProtocolError(f"no origin: {error}") from None
    if not host or not port or host.startswith("unix:"):  # a client names no socket of this machine
        raise ProtocolError(f"{authority[:60]!r} names no host")
    return Origin(scheme, Target(host, port))

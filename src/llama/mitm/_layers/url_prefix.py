"""URLs by their beginnings, for layers that answer for some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from llama._core.errors import ConfigError, ProtocolError
from llama.http import Request
from llama.http._messages.normalized_path import check_literal, without_prefix
from llama.layers._hostname import hostname, port_of

T = TypeVar("T")
_PORTS = {"http": 80, "https": 443}


def normal(scheme: str, authority: str, path: str) -> str:
    """A URL with its host in one spelling and no default port; the path stays as sent."""
    return f"{_origin(scheme, authority)}{path or '/'}"


def _origin(scheme: str, authority: str) -> str:
    host, port = hostname(authority), port_of(authority)
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}" if port in (None, _PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


@dataclass(frozen=True, slots=True)
class _Prefix:
    """The beginning of a URL."""

    url: str
    origin: str
    path: str
    """Decoded, without the slash at its end."""
    is_directory: bool
    """Whether it ends in a slash, so that the URL without it does not match."""
    query: str | None
    """The beginning of the query; None for any."""

    def rest(self, origin: str, path: str, query: str | None) -> str | None:
        """What follows in a URL with this path and query, as sent; None where it begins otherwise."""
        if origin != self.origin:
            return None
        if self.query is not None:
            if self._below(path) != ("/" if self.is_directory else ""):
                return None
            return _rest_of_query(query, self.query)
        rest = self._below(path)
        if rest is None or (self.is_directory and not rest):
            return None
        rest = rest[1:] if self.is_directory else rest
        return rest if query is None else f"{rest}?{query}"

    def _below(self, path: str) -> str | None:
        if not self.path:
            return path
        try:
            return without_prefix(path, self.path)
        except ProtocolError:  # an observer passes malformed URLs on
            rest = path[len(self.path) :] if path.startswith(self.path) else None
            return rest if rest is not None and rest[:1] in ("", "/") else None


def _rest_of_query(query: str | None, beginning: str) -> str | None:
    if query is None or not query.startswith(beginning):
        return None
    rest = query[len(beginning) :]
    return rest if beginning[-1:] in ("", "/", "?") or rest[:1] in ("", "/", "?") else None


class Prefixes(Generic[T]):
    """What belongs to URLs that begin alike; the longest beginning counts, and ends where a part of a path does."""

    __slots__ = ("_found",)

    def __init__(self, where: str, given: Mapping[str, T]) -> None:
        if not given:
            raise ConfigError(f"{where}: expected URLs, and what to do with them")
        self._found = sorted(
            ((_parse(where, url), value) for url, value in given.items()), key=lambda each: -len(each[0].url)
        )

    def __str__(self) -> str:
        return ", ".join(prefix.url for prefix, _ in self._found)

    def find(self, request: Request) -> tuple[T, str] | None:
        """What belongs to a request's URL, and what follows the beginning there."""
        origin = _origin(request.scheme or "http", request.authority)
        path, question, query = request.path.partition("?")
        for prefix, value in self._found:
            rest = prefix.rest(origin, path or "/", query if question else None)
            if rest is not None:
                return value, rest
        return None


def _parse(where: str, url: str) -> _Prefix:
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if not mark or scheme not in _PORTS or not authority:
        raise ConfigError(f"{where}: {url!r} is no URL: expected http://HOST/PATH or https://HOST/PATH")
    path, question, query = (slash + path).partition("?")
    path = check_literal(path or "/", where)
    return _Prefix(
        normal(scheme, authority, path + question + query),
        _origin(scheme, authority),
        path.removesuffix("/"),
        path.endswith("/"),
        query if question else None,
    )

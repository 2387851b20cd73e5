"""URLs by their beginnings, for layers that answer for some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from llama._errors import ConfigError
from llama.http import Request

T = TypeVar("T")
_PORTS = {"http": ":80", "https": ":443"}


def normal(scheme: str, authority: str, path: str) -> str:
    """A URL with its host in lower case and no port that goes without saying."""
    host = authority.lower().removesuffix(_PORTS.get(scheme, ":"))
    return f"{scheme}://{host}{path or '/'}"


class Prefixes(Generic[T]):
    """What belongs to URLs that begin alike; the longest beginning counts, and ends where a part of a path does."""

    __slots__ = ("_found",)

    def __init__(self, where: str, given: Mapping[str, T]) -> None:
        if not given:
            raise ConfigError(f"{where}: expected URLs, and what to do with them")
        self._found = sorted(
            ((_parse(where, url), value) for url, value in given.items()), key=lambda each: -len(each[0])
        )

    def __str__(self) -> str:
        return ", ".join(url for url, _ in self._found)

    def find(self, request: Request) -> tuple[T, str] | None:
        """What belongs to a request's URL, and what follows the beginning there."""
        url = normal(request.scheme or "http", request.authority, request.path)
        for prefix, value in self._found:
            rest = url[len(prefix) :]
            if url.startswith(prefix) and (prefix[-1] in "/?" or rest[:1] in ("", "/", "?")):
                return value, rest
        return None


def _parse(where: str, url: str) -> str:
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if not mark or scheme not in _PORTS or not authority:
        raise ConfigError(f"{where}: {url!r} is no URL: expected http://HOST/PATH or https://HOST/PATH")
    return normal(scheme, authority, slash + path)

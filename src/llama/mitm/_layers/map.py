"""Answers from elsewhere: from files here, or from another server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias, cast
from urllib.parse import quote

from llama._core.errors import ConfigError, ProtocolError
from llama._core.service import Middleware
from llama._core.stack import check_accepts, layer_factory, named_layer
from llama.http import Origin, Request, RequestHandler, Response, static
from llama.http import client as http_client
from llama.http._messages.normalized_path import has_dot_segments
from llama.http._messages.origin import split_url
from llama.http._proxy.hop_by_hop import forward_request, forward_response
from llama.mitm._layers.synthetic import mark_synthetic
from llama.mitm._layers.url_prefix import Prefixes

Local: TypeAlias = str | os.PathLike[str] | RequestHandler


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class MapLocal:
    """Answers for some URLs without the upstream."""

    inner: RequestHandler
    places: Prefixes[tuple[RequestHandler, str | None]]

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"mitm.map_local({self.places})"

    async def __call__(self, request: Request, /) -> Response:
        found = self.places.find(request)
        if found is None:
            return await self.inner(request)
        (exchange, path), rest = found
        if path is None:
            return mark_synthetic(await exchange(request), "local")
        asked = forward_request(request)
        asked.path = path if path != "/" else f"/{rest.removeprefix('/')}"
        return mark_synthetic(await exchange(asked), "local")


def _local(where: Local) -> tuple[RequestHandler, str | None]:
    """Who answers, and the path to ask for: `/` stands for what follows the URL's beginning, None for all."""
    if callable(where):
        check_accepts(where, Request, "mitm.map_local()")
        return where, None
    path = Path(where)
    if path.is_dir():
        return static(path), "/"
    if not path.is_file():
        raise ConfigError(f"mitm.map_local(): {os.fspath(where)}: no such file or directory")
    return static(path.parent, dotfiles=True), f"/{quote(path.name)}"


@layer_factory("mitm.map_local")
def map_local(urls: Mapping[str, Local]) -> Middleware[Request, Response]:
    """Answer for URLs that begin alike without the upstream: from a file, a directory, or by an exchange.

    Files are served as `http.static` does: below a directory is found what follows the URL's beginning. The longest
    beginning counts. Raises ConfigError for what is no URL, file or directory.

        mitm.map_local({"https://a.example/app.js": "app.js", "https://a.example/img/": "images"})
    """
    places = Prefixes("mitm.map_local()", {url: _local(where) for url, where in urls.items()})

    def build(inner: RequestHandler) -> RequestHandler:
        return MapLocal(inner, places)

    return named_layer(f"mitm.map_local({places})", build, input_type=Request, inner_type=Request)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class MapRemote:
    """Asks another server for some URLs."""

    inner: RequestHandler
    places: Prefixes[tuple[Origin, str]]
    client: RequestHandler
    keep_host: bool

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"mitm.map_remote({self.places})"

    async def __call__(self, request: Request, /) -> Response:
        found = self.places.find(request)
        if found is None:
            return await self.inner(request)
        (origin, path), rest = found
        if has_dot_segments(f"/{rest.partition('?')[0]}"):
            raise ProtocolError(f"path {request.path[:60]!r} has dot segments")
        asked = forward_request(request)
        asked.scheme = origin.scheme
        joint = "" if rest[:1] in ("", "/", "?") or path.endswith("/") else "/"
        asked.path = f"{path}{joint}{rest}" or "/"
        if asked.path[0] == "?":
            asked.path = f"/{asked.path}"
        if not self.keep_host:
            asked.authority = origin.authority
        asked.extensions.set(origin)
        return forward_response(await self.client(asked), None)


def _remote(url: str) -> tuple[Origin, str]:
    origin, path = split_url(url)
    return origin, path + ("/" if url.endswith("/") else "")


@layer_factory("mitm.map_remote")
def map_remote(
    urls: Mapping[str, str], *, client: RequestHandler | None = None, keep_host: bool = False
) -> Middleware[Request, Response]:
    """Ask another server for URLs that begin alike: the beginning is replaced.

    `client` reaches it, by default `http.client()`. Its own host is in the Host field; with `keep_host` it is what
    the client sent. Raises ConfigError for what is no URL.

        mitm.map_remote({"https://a.example/api/": "http://127.0.0.1:8000/"})
    """
    places = Prefixes("mitm.map_remote()", {url: _remote(to) for url, to in urls.items()})
    asked = client or cast("RequestHandler", http_client())
    check_accepts(asked, Request, "mitm.map_remote(client=)")

    def build(inner: RequestHandler) -> RequestHandler:
        return MapRemote(inner, places, asked, keep_host)

    return named_layer(f"mitm.map_remote({places})", build, input_type=Request, inner_type=Request)

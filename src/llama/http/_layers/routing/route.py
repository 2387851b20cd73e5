"""Routing of requests by method, path, host, header fields and query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias
from urllib.parse import parse_qsl

from llama._core.errors import ConfigError
from llama._core.stack import check_accepts, display_name, layer_factory
from llama.http._messages.headers import checked_name
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._messages.normalized_path import (
    check_literal,
    decoded,
    end_of_segment,
    is_contested,
    other_readings,
    pattern,
    respelled,
)
from llama.layers._hostname import hostname

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")
_METHOD = re.compile(r"[A-Z][A-Z-]*")
_MAX_QUERY_FIELDS = 1000
_MAX_READINGS = 512  # maximum comparisons for one contested path; above it, the path is normalized


class PathParameters(dict[str, str]):
    """The path parameters of a route, from the normalized path and thus decoded once; in a request's extensions."""


@dataclass(frozen=True, slots=True)
class RouteMatcher:
    """The condition of a route."""

    method: str
    path: str
    pattern: re.Pattern[str]
    host: str
    headers: tuple[tuple[str, str | None], ...]
    query: tuple[tuple[str, str | None], ...]

    def __repr__(self) -> str:
        return f"http.when({f'{self.method} {self.path}'.strip()!r})"

    def place(self, request: Request) -> re.Match[str] | None:
        """Return the match of the path if everything but the method matches, else None."""
        match = self.pattern.fullmatch(request.normalized_path)
        return match if match is not None and self.fits(request) else None

    def fits(self, request: Request) -> bool:
        """Return whether the host, the header fields and the query match."""
        if self.host and not _is_host(self.host, request.hostname):
            return False
        for name, value in self.headers:
            if not (name in request.headers if value is None else value in request.headers.get_all(name)):
                return False
        return not self.query or self._has_query(request.query)

    def accepts_method(self, method: str) -> bool:
        """Return whether the method matches; GET includes HEAD."""
        return not self.method or method == self.method or (method == "HEAD" and self.method == "GET")

    def _has_query(self, query: str) -> bool:
        try:
            given = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError:
            return False
        names = {name for name, _ in given}
        return all(name in names if value is None else (name, value) in given for name, value in self.query)


def _is_host(wanted: str, name: str) -> bool:
    if wanted.startswith("*."):
        return name.endswith(wanted[1:]) and len(name) > len(wanted) - 1
    return name == wanted


@layer_factory("http.when", "condition")
def when(
    pattern: str,
    *,
    host: str = "",
    headers: Mapping[str, str | None] | None = None,
    query: Mapping[str, str | None] | None = None,
) -> RouteMatcher:
    """A condition for a route: a method and a path such as `GET /users/{id}`, or a path for every method.

    `{id}` matches one segment, `{rest...}` at the end matches the rest of the path with its slashes: `/a/{rest...}`
    also matches `/a`. `host` is a host name without a port, or `*.example.com` for all subdomains. `headers` and
    `query` map names to a required value, or to None for any value. Raises ConfigError for a malformed condition.

    Paths are compared with `Request.normalized_path`, hosts with `Request.hostname`. Parameters (`;v=1`), dots and
    spaces at the end of a segment are ignored, because some servers ignore them.

        stack(http.server(), http.route((http.when("GET /v2/{rest...}", host="a.example"), application)))
    """
    method, space, path = pattern.rpartition(" ")
    if space and _METHOD.fullmatch(method) is None:
        raise ConfigError(f"http.when({pattern!r}): expected a method such as GET, got {method!r}")
    fields = tuple((headers or {}).items())
    for name, _ in fields:
        checked_name(name)
    return RouteMatcher(method, path, _pattern(path), hostname(host), fields, tuple((query or {}).items()))


def _pattern(path: str) -> re.Pattern[str]:
    where = "http.route()"
    if not path.startswith("/"):
        raise ConfigError(f"{where}: expected a path that begins with a slash, got {path!r}")
    if "?" in path:
        raise ConfigError(f"{where}: path {path!r} has a query: use http.when(query=)")
    parts: list[str] = []
    end = 0
    for match in _PARAMETER.finditer(path):
        text = _literal(path[end : match.start()], path)
        end = match.end()
        if not match[2]:
            parts += [pattern(text), f"(?P<{match[1]}>[^/]+)"]
            continue
        if end != len(path):
            raise ConfigError(f"{where}: {match[0]} must be at the end of {path!r}")
        if text[-1:] == "/" and (parts or len(text) > 1):
            text = text[:-1]
            parts += [pattern(text), end_of_segment(text), f"(?:/(?P<{match[1]}>.*))?"]
        else:
            parts += [pattern(text), f"(?P<{match[1]}>.*)"]
    text = _literal(path[end:], path)
    parts += [pattern(text), end_of_segment(text)]
    check_literal(_PARAMETER.sub("x", path), where)
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise ConfigError(f"{where}: path {path!r}: {error}") from None


def _literal(text: str, path: str) -> str:
    if "{" in text or "}" in text:
        raise ConfigError(f"http.route(): expected a path such as /users/{{id}}, got {path!r}")
    return decoded(text)


To: TypeAlias = tuple[str | RouteMatcher, RequestHandler]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Route:
    """Passes each request to the handler of the first route that matches."""

    routes: tuple[tuple[RouteMatcher, RequestHandler], ...]
    default: RequestHandler | None

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.route({', '.join(f'({test!r}, {display_name(inner)})' for test, inner in self.routes)})"

    async def __call__(self, request: Request, /) -> Response:
        allowed: list[str] = []
        path = request.normalized_path
        if path != request.path.partition("?")[0]:
            self._settle(request, path)
        for test, exchange in self.routes:
            match = test.pattern.fullmatch(path)
            if match is None or not test.fits(request):
                continue
            if test.accepts_method(request.method):
                if given := match.groupdict(""):
                    request.extensions.set(PathParameters(given))
                return await exchange(request)
            allowed += ["GET", "HEAD"] if test.method == "GET" else [test.method]
        if allowed:
            allow = ", ".join(dict.fromkeys(allowed))
            return Response(405, {"Allow": allow, "Content-Type": "text/plain"}, b"405 Method Not Allowed\n")
        if self.default is not None:
            return await self.default(request)
        return Response(404, {"Content-Type": "text/plain"}, b"404 Not Found\n")

    def _settle(self, request: Request, path: str) -> None:
        """Normalize the path in the request if an upstream could interpret it as the path of another route."""
        sent, question, query = request.path.partition("?")
        if not is_contested(sent):
            return
        others = other_readings(sent)
        if others is not None and len(others) * len(self.routes) <= _MAX_READINGS:
            tests = [
                test for test, _ in self.routes if test.fits(request) and not test.pattern.fullmatch(path)
            ]
            if not any(test.pattern.fullmatch(other) for other in others for test in tests):
                return
        request.path = respelled(sent) + question + query


@layer_factory("http.route", "service")
def route(*routes: To, default: RequestHandler | None = None) -> RequestHandler:
    """Pass each request to the request handler of the first route that matches.

    A route is a pair of a condition and a request handler; the condition is text such as `GET /users/{id}`, or an
    `http.when`. Paths are compared decoded and normalized (`Request.normalized_path`); a path that cannot be normalized
    is rejected with 400. The handler receives the path as sent, unless a server could interpret it as the path of
    another route, as `/admin/../public`: then it is normalized. The path parameters are `http.PathParameters` in the
    extensions, decoded. If only the method does not match, the response is 405 with Allow; if nothing matches, the
    request goes to `default`, or gets 404.

        stack(http.server(), http.route(("GET /users/{id}", application), ("/files/{path...}", application)))
    """
    made: list[tuple[RouteMatcher, RequestHandler]] = []
    for test, exchange in routes:
        check_accepts(exchange, Request, "http.route()")
        made.append((test if isinstance(test, RouteMatcher) else when(test), exchange))
    if default is not None:
        check_accepts(default, Request, "http.route()")
    return Route(tuple(made), default)

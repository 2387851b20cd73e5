"""Chooses an exchange by method, path, host, header and query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias
from urllib.parse import parse_qsl, unquote

from llama._errors import ConfigError
from llama._stack import check_takes, factory, name_of
from llama.http._headers import checked_name
from llama.http._message import Exchange, Request, Response

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}")
_METHOD = re.compile(r"[A-Z][A-Z-]*")
_MAX_QUERY_FIELDS = 1000


class PathParameters(dict[str, str]):
    """What the parameters of a route's path stand for, percent-decoded, in a request's extensions."""


@dataclass(frozen=True, slots=True)
class When:
    """Which requests a route is for."""

    method: str
    path: str
    pattern: re.Pattern[str]
    host: str
    headers: tuple[tuple[str, str | None], ...]
    query: tuple[tuple[str, str | None], ...]

    def __repr__(self) -> str:
        return f"http.when({f'{self.method} {self.path}'.strip()!r})"

    def place(self, request: Request) -> re.Match[str] | None:
        """The path's match where everything but the method fits, else None."""
        path = request.path.partition("?")[0]
        if not path and request.method != "CONNECT":
            path = "/"
        match = self.pattern.fullmatch(path)
        if match is None or (self.host and not _is_host(self.host, request.authority)):
            return None
        for name, value in self.headers:
            if not (name in request.headers if value is None else value in request.headers.get_all(name)):
                return None
        return match if not self.query or self._has_query(request.query) else None

    def takes(self, method: str) -> bool:
        """Whether it is for this method; what is for GET is for HEAD."""
        return not self.method or method == self.method or (method == "HEAD" and self.method == "GET")

    def _has_query(self, query: str) -> bool:
        try:
            given = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError:
            return False
        names = {name for name, _ in given}
        return all(name in names if value is None else (name, value) in given for name, value in self.query)


def _is_host(wanted: str, authority: str) -> bool:
    name = re.sub(r":\d*$", "", authority).lower().removesuffix(".")
    if wanted.startswith("*."):
        return name.endswith(wanted[1:]) and len(name) > len(wanted) - 1
    return name == wanted


@factory("http.when", "condition")
def when(
    what: str,
    *,
    host: str = "",
    headers: Mapping[str, str | None] | None = None,
    query: Mapping[str, str | None] | None = None,
) -> When:
    """Which requests a route is for: `GET /users/{id}`, or a path alone for every method.

    `{id}` stands for one segment, `{rest...}` at the end for all that follows, slashes included. `host` is a name
    without a port, or `*.example.com` for those below it. `headers` and `query` map names to the value that one
    of that name has, or to None where any does. ConfigError says what is malformed.

        stack(http.server(), http.route((http.when("GET /v2/{rest...}", host="a.example"), application)))
    """
    method, space, path = what.rpartition(" ")
    if space and _METHOD.fullmatch(method) is None:
        raise ConfigError(f"http.when({what!r}): {method!r} is no method, such as GET")
    fields = tuple((headers or {}).items())
    for name, _ in fields:
        checked_name(name)
    return When(method, path, _pattern(path), host.lower(), fields, tuple((query or {}).items()))


def _pattern(path: str) -> re.Pattern[str]:
    if not path.startswith("/"):
        raise ConfigError(f"http.route(): path {path!r} does not begin with a slash")
    parts: list[str] = []
    end = 0
    for match in _PARAMETER.finditer(path):
        if match[2] and match.end() != len(path):
            raise ConfigError(f"http.route(): {match[0]} is not at the end of {path!r}")
        parts += [re.escape(path[end : match.start()]), f"(?P<{match[1]}>{'.*' if match[2] else '[^/]+'})"]
        end = match.end()
    rest = path[end:]
    if "{" in rest or "}" in rest or "?" in path:
        raise ConfigError(f"http.route(): path {path!r} is malformed: expected such as /users/{{id}}")
    try:
        return re.compile("".join([*parts, re.escape(rest)]), re.DOTALL)
    except re.error as error:
        raise ConfigError(f"http.route(): path {path!r}: {error}") from None


To: TypeAlias = tuple[str | When, Exchange]


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Route:
    """Gives each request to the first exchange that it is for."""

    routes: tuple[tuple[When, Exchange], ...]
    default: Exchange | None

    __takes__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.route({', '.join(f'({test!r}, {name_of(inner)})' for test, inner in self.routes)})"

    async def __call__(self, request: Request, /) -> Response:
        allowed: list[str] = []
        for test, exchange in self.routes:
            match = test.place(request)
            if match is None:
                continue
            if test.takes(request.method):
                if given := match.groupdict():
                    request.extensions.set(PathParameters({k: unquote(v) for k, v in given.items()}))
                return await exchange(request)
            allowed += ["GET", "HEAD"] if test.method == "GET" else [test.method]
        if allowed:
            allow = ", ".join(dict.fromkeys(allowed))
            return Response(405, {"Allow": allow, "Content-Type": "text/plain"}, b"405 Method Not Allowed\n")
        if self.default is not None:
            return await self.default(request)
        return Response(404, {"Content-Type": "text/plain"}, b"404 Not Found\n")


@factory("http.route", "service")
def route(*routes: To, default: Exchange | None = None) -> Exchange:
    """Give each request to the first exchange that it is for: by method, path, and what `http.when` knows.

    Paths are compared as they were sent, case and escapes included: put `http.normalize_path()` before. What the
    parameters stand for is `http.PathParameters` in the extensions. Where only the method is another, the answer is
    405 with Allow; else that of `default`, or 404.

        stack(http.server(), http.route(("GET /users/{id}", application), ("/files/{path...}", application)))
    """
    made: list[tuple[When, Exchange]] = []
    for test, exchange in routes:
        check_takes(exchange, Request, "http.route()")
        made.append((test if isinstance(test, When) else when(test), exchange))
    if default is not None:
        check_takes(default, Request, "http.route()")
    return Route(tuple(made), default)

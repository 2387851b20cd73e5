"""Rewrites the paths of requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from llama._core.errors import ConfigError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._messages.normalized_path import decoded, has_dot_segments, respelled, without_prefix

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Rewrite:
    """Rewrites the paths of requests."""

    inner: RequestHandler
    strip_prefix: str
    add_prefix: str
    pattern: re.Pattern[str] | None
    replacement: str
    name: str

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return self.name

    async def __call__(self, request: Request, /) -> Response:
        path, question, query = request.path.partition("?")
        if path.startswith("/") or (not path and request.method not in ("CONNECT", "OPTIONS")):
            changed = self._changed(path)
            if changed is None:
                return Response(404, {"Content-Type": "text/plain"}, b"404 Not Found\n")
            request.path = changed + question + query
        return await self.inner(request)

    def _changed(self, path: str) -> str | None:
        if self.strip_prefix or self.add_prefix:
            rest = without_prefix(path, self.strip_prefix)
            if rest is None:
                return None
            path = self.add_prefix + (rest or "/")
        if self.pattern is not None:
            changed, count = self.pattern.subn(self.replacement, respelled(path))
            if count:
                changed = changed if changed.startswith("/") else f"/{changed}"
                path = quote(changed, safe=_PRINTABLE).replace("?", "%3F")
        return path


@layer_factory("http.rewrite")
def rewrite(
    pattern: str | None = None, replacement: str = "", *, strip_prefix: str = "", add_prefix: str = ""
) -> Middleware[Request, Response]:
    r"""Rewrite the paths of requests: strip a prefix, add a prefix, then replace the matches of a regular expression.

    `strip_prefix` is removed from the beginning of the path (404 if the path is not below it), then `add_prefix` is
    prepended. Every match of `pattern` is replaced by `replacement`, in which `\1` is the first group:
    `http.rewrite(r"^/(\d+)$", r"/user/\1")`. Both `strip_prefix` and `pattern` are compared with the normalized path
    (`Request.normalized_path`), for `pattern` with special characters percent-encoded. The rest after the prefix, a
    path without a match, and the query stay as sent. Dot segments after the prefix are rejected with 400. An
    expression that backtracks on long paths blocks the event loop.

        stack(http.server(), http.rewrite(strip_prefix="/api", add_prefix="/v2"), application)
    """
    name = f"http.rewrite({_arguments(pattern, replacement, strip_prefix, add_prefix)})"
    for prefix in (strip_prefix, add_prefix):
        if _PREFIX.fullmatch(prefix) is None or has_dot_segments(prefix):
            raise ConfigError(f"{name}: expected a path prefix such as /api, got {prefix!r}")
    compiled = None
    if pattern is not None:
        try:
            compiled = re.compile(pattern)
            compiled.sub(replacement, "")
        except (re.error, IndexError) as error:
            raise ConfigError(f"{name}: {error}") from None

    def build(inner: RequestHandler) -> RequestHandler:
        return Rewrite(
            inner, decoded(strip_prefix.rstrip("/")), add_prefix.rstrip("/"), compiled, replacement, name
        )

    return named_layer(name, build, input_type=Request, inner_type=Request)


def _arguments(pattern: str | None, replacement: str, strip: str, add: str) -> str:
    given = [repr(pattern), repr(replacement)] if pattern is not None else []
    given += [f"{name}={value!r}" for name, value in (("strip_prefix", strip), ("add_prefix", add)) if value]
    return ", ".join(given)

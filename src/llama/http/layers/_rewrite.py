"""Changes the paths of requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from llama._errors import ConfigError, ProtocolError
from llama._service import Middleware
from llama._stack import factory, named_layer
from llama.http._message import Exchange, Request, Response

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")
_DOTS = re.compile(r"/(?:\.|%2[eE]){1,2}(?:[/\\]|%2[fF]|%5[cC]|$)")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Rewrite:
    """Changes the paths of requests."""

    inner: Exchange
    strip: str
    add: str
    pattern: re.Pattern[str] | None
    replacement: str
    name: str

    __takes__: ClassVar[type] = Request

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
        if self.strip or self.add:
            if _DOTS.search(path):  # they would lead out of what the prefix is for
                raise ProtocolError(f"path {path[:60]!r} has dot segments")
            if not path.startswith(self.strip) or path[len(self.strip) :][:1] not in ("", "/"):
                return None
            path = self.add + (path[len(self.strip) :] or "/")
        if self.pattern is not None:
            path = self.pattern.sub(self.replacement, path)
            path = quote(path if path.startswith("/") else f"/{path}", safe=_PRINTABLE).replace("?", "%3F")
        return path


@factory("http.rewrite")
def rewrite(
    pattern: str | None = None, replacement: str = "", *, strip: str = "", add: str = ""
) -> Middleware[Request, Response]:
    r"""Change the paths of requests: a prefix taken off, one put there, then what a regular expression finds.

    `strip` is taken off the beginning, and paths that are not below it get 404; `add` is put there. Every match of
    `pattern` becomes `replacement`, in which `\1` is its first group: `http.rewrite(r"^/(\d+)$", r"/user/\1")`. The
    path is taken as it was sent, escapes included; the query stays. A path with dot segments gets 400 where a prefix
    changes. Expressions come from you: one that takes long for a long path takes long for everyone.

        stack(http.server(), http.rewrite(strip="/api", add="/v2"), application)
    """
    name = f"http.rewrite({_arguments(pattern, replacement, strip, add)})"
    for prefix in (strip, add):
        if _PREFIX.fullmatch(prefix) is None or _DOTS.search(prefix):
            raise ConfigError(f"{name}: {prefix!r} is no path prefix: expected one such as /api")
    compiled = None
    if pattern is not None:
        try:
            compiled = re.compile(pattern)
            compiled.sub(replacement, "")
        except (re.error, IndexError) as error:
            raise ConfigError(f"{name}: {error}") from None

    def build(inner: Exchange) -> Exchange:
        return Rewrite(inner, strip.rstrip("/"), add.rstrip("/"), compiled, replacement, name)

    return named_layer(name, build, takes=Request, gives=Request)


def _arguments(pattern: str | None, replacement: str, strip: str, add: str) -> str:
    given = [repr(pattern), repr(replacement)] if pattern is not None else []
    given += [f"{name}={value!r}" for name, value in (("strip", strip), ("add", add)) if value]
    return ", ".join(given)

"""Path normalization for requests (RFC 3986 section 6.2.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ProtocolError
from llama._core.service import Middleware
from llama._core.stack import layer_factory, named_layer
from llama.http._messages.message import Request, RequestHandler, Response

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NEEDS_NORMALIZING = re.compile(r"%|//|/\.|\\")


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class NormalizePath:
    """Normalizes the paths of requests."""

    inner: RequestHandler
    merge_slashes: bool

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return "http.normalize_path()"

    async def __call__(self, request: Request, /) -> Response:
        if _NEEDS_NORMALIZING.search(request.path):
            path, question, query = request.path.partition("?")
            request.path = normalized(path, merge_slashes=self.merge_slashes) + question + query
        return await self.inner(request)


def normalized(path: str, *, merge_slashes: bool = True) -> str:
    """Return a path without dot segments, needless escapes and repeated slashes; raise ProtocolError if unsafe."""
    if _BAD_ESCAPE.search(path) or "%00" in path:
        raise ProtocolError(f"path {path[:60]!r} has a malformed escape or a NUL")
    path = _ESCAPE.sub(_unescape, path)
    if merge_slashes:
        path = re.sub("//+", "/", path)
    if not path.startswith("/"):
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if not kept:
                raise ProtocolError(f"path {path[:60]!r} climbs above the root")
            kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _unescape(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if char in _UNRESERVED else match[0].upper()


@layer_factory("http.normalize_path")
def normalize_path(*, merge_slashes: bool = True) -> Middleware[Request, Response]:
    """Normalize the path of each request (RFC 3986 section 6.2.2), so that no other spelling bypasses path rules.

    Dot segments are resolved, unreserved characters are unescaped, and other escapes are converted to upper case (`%2f`
    becomes `%2F`). Repeated slashes become one, unless `merge_slashes` is False. A path that climbs above the root, or
    contains a malformed escape or a NUL, is rejected with 400.

        stack(http.server(), http.normalize_path(), application)
    """

    def build(inner: RequestHandler) -> RequestHandler:
        return NormalizePath(inner, merge_slashes)

    return named_layer("http.normalize_path()", build, input_type=Request, inner_type=Request)

"""The Request of an ASGI scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import quote, unquote

from llama._asgi.types import Event, Receive, Scope
from llama._core.errors import TruncatedError
from llama._core.extensions import Extensions
from llama._core.server import LocalAddress, PeerAddress
from llama.http import Body, Headers, Request

_SAFE = "/:@!$&'()*+,;=~%-._"
_HTTP = {"ws": "http", "wss": "https"}
Informer = Callable[[int, Headers], Awaitable[None]]


class ReceivedBody(Body):
    """A request body, received from the ASGI server one message at a time as it is read."""

    __slots__ = ("_ended", "_first", "_receive")

    def __init__(
        self, receive: Receive, length: int | None, ended: Callable[[], object], first: bytes = b""
    ) -> None:
        super().__init__(length)
        self._receive = receive
        self._ended = ended
        self._first = first

    async def read_chunk(self) -> bytes:
        if first := self._first:
            self._first = b""
            return first
        while not self.ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise TruncatedError("the client disconnected before the end of its request body", status=400)
            if not message.get("more_body", False):
                self.ended = True
                self._ended()
            if part := bytes(message.get("body", b"")):
                return part
        return b""


def headers_of(scope: Scope) -> Headers:
    """Return the header fields in order."""
    return Headers([(bytes(n).decode("latin-1"), bytes(v).decode("latin-1")) for n, v in scope["headers"]])


def request_of(
    scope: Scope, method: str, headers: Headers, body: Body, informer: Informer | None = None
) -> Request:
    """Return the Request of a scope; its path is relative to the mount point."""
    query = bytes(scope.get("query_string", b"")).decode("latin-1")
    request = Request(method, "/", headers)
    request.headers = headers
    request.path = f"{path_of(scope)}?{query}" if query else path_of(scope)
    scheme: str = scope.get("scheme", "http")
    request.scheme = _HTTP.get(scheme, scheme)
    request.version = scope.get("http_version", "1.1")
    request._body = body
    request._connection_extensions = Extensions(*_addresses(scope))
    request._send_informational = informer
    return request


def _addresses(scope: Scope) -> list[object]:
    found: list[object] = []
    for kind, name in ((PeerAddress, "client"), (LocalAddress, "server")):
        if address := cast("list[Any] | None", scope.get(name)):
            found.append(kind(address[0], address[1] or 0))
    return found


def path_of(scope: Scope) -> str:
    """Return the path below `root_path`, in its original escaping if the scope has `raw_path`."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    raw = bytes(scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
    if unquote(raw) != path:  # some middleware changed `path` but not `raw_path`
        raw = quote(path, safe=_SAFE.replace("%", ""))
    if not root or not (path == root or path.startswith(f"{root}/")):
        return raw or "/"
    return _strip_root(raw, root) or "/"


def _strip_root(raw: str, root: str) -> str:
    """Return a path without its prefix `root`, escaped or not."""
    if raw.startswith(root) and raw[len(root) : len(root) + 1] in ("", "/"):
        return raw[len(root) :]
    end = 0
    while end < len(raw) and unquote(raw[:end]) != root:
        end = raw.find("/", end + 1)
        if end < 0:
            return ""
    return raw[end:]


async def first_message(receive: Receive, headers: Headers) -> Event | None:
    """Receive the first part of a body without length fields, since it may be the whole body; else None."""
    if "content-length" in headers or "transfer-encoding" in headers:
        return None
    return await receive()

"""A request, as an ASGI server tells of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import quote, unquote

from llama._asgi._types import Event, Receive, Scope
from llama._errors import Truncated
from llama._extensions import Extensions
from llama._server import Local, Peer
from llama.http import Body, Headers, Request

_SAFE = "/:@!$&'()*+,;=~%-._"
_HTTP = {"ws": "http", "wss": "https"}
Informer = Callable[[int, Headers], Awaitable[None]]


class ReceivedBody(Body):
    """A body that an ASGI server passes on, message by message, when it is asked for."""

    __slots__ = ("_ended", "_first", "_receive")

    def __init__(
        self, receive: Receive, length: int | None, ended: Callable[[], object], first: bytes = b""
    ) -> None:
        super().__init__(length)
        self._receive = receive
        self._ended = ended
        self._first = first

    async def chunk(self) -> bytes:
        if first := self._first:
            self._first = b""
            return first
        while not self.ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Truncated("the client left within the body of its request", status=400)
            if not message.get("more_body", False):
                self.ended = True
                self._ended()
            if part := bytes(message.get("body", b"")):
                return part
        return b""


def headers_of(scope: Scope) -> Headers:
    """The fields, in their order."""
    return Headers([(bytes(n).decode("latin-1"), bytes(v).decode("latin-1")) for n, v in scope["headers"]])


def request_of(
    scope: Scope, method: str, headers: Headers, body: Body, informer: Informer | None = None
) -> Request:
    """The request of a scope; its path is what comes below the place where this application is mounted."""
    query = bytes(scope.get("query_string", b"")).decode("latin-1")
    request = Request(method, "/", headers)
    request.headers = headers
    request.path = f"{path_of(scope)}?{query}" if query else path_of(scope)
    scheme: str = scope.get("scheme", "http")
    request.scheme = _HTTP.get(scheme, scheme)
    request.version = scope.get("http_version", "1.1")
    request._body = body
    request._connection = Extensions(*_places(scope))
    request._informer = informer
    return request


def _places(scope: Scope) -> list[object]:
    found: list[object] = []
    for kind, name in ((Peer, "client"), (Local, "server")):
        if address := cast("list[Any] | None", scope.get(name)):
            found.append(kind(address[0], address[1] or 0))
    return found


def path_of(scope: Scope) -> str:
    """The path below `root_path`, as it was sent where the server tells that."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    raw = bytes(scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
    if unquote(raw) != path:  # some layer has changed the path alone
        raw = quote(path, safe=_SAFE.replace("%", ""))
    if not root or not (path == root or path.startswith(f"{root}/")):
        return raw or "/"
    return _below(raw, root) or "/"


def _below(raw: str, root: str) -> str:
    """What is left of a path when the escaped or plain `root` is taken off its beginning."""
    if raw.startswith(root) and raw[len(root) : len(root) + 1] in ("", "/"):
        return raw[len(root) :]
    end = 0
    while end < len(raw) and unquote(raw[:end]) != root:
        end = raw.find("/", end + 1)
        if end < 0:
            return ""
    return raw[end:]


async def first_message(receive: Receive, headers: Headers) -> Event | None:
    """The first part of a body whose length no field tells, for it may be all; None where fields do."""
    if "content-length" in headers or "transfer-encoding" in headers:
        return None
    return await receive()

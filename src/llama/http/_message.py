"""Requests and responses, of any HTTP version."""

from __future__ import annotations

import inspect
import re
from asyncio.events import _get_running_loop as running_loop
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import quote

from llama._extensions import Extensions
from llama._server import Peer
from llama._service import Service
from llama._stack import kind
from llama._stream import Stream
from llama.http._body import EMPTY, Body, Content, body_of
from llama.http._forgotten import Callback, SharedEnd
from llama.http._headers import Headers, Pairs
from llama.http._path import normalized
from llama.layers._hostname import hostname

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]+)([^#]*)(?:#.*)?", re.DOTALL)
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_FRAMING = ("content-length", "transfer-encoding")

HeaderSource: TypeAlias = Headers | Mapping[str, str] | Pairs
Informer: TypeAlias = Callable[[int, Headers], Awaitable[None]]


class Message:
    """What requests and responses have in common: a header, a body and trailers."""

    __slots__ = ("_body", "_extensions", "_trailers", "headers", "version")

    headers: Headers
    version: str
    """The HTTP version it came in: "1.0", "1.1", "2" or "3"."""
    _body: Body
    _trailers: Headers | None
    _extensions: Extensions | None

    @property
    def body(self) -> Body:
        """What it carries. Assigning another drops Content-Length, so that the framing follows."""
        body = self._body
        if body.headers is None and body is not EMPTY:
            body.headers = self.headers
        return body

    @body.setter
    def body(self, content: Content) -> None:
        self._set_body(content)

    def _set_body(self, content: Content) -> None:
        body = body_of(content)
        if body is self._body:
            return
        self._body = body
        self.headers.discard(*_FRAMING)
        if body.is_decoded:
            self.headers.discard("content-encoding")

    def replace_body(self, body: Body, /) -> None:
        """Put another body in the place of this one that gives the very same bytes: the framing stays."""
        body.length = self._body.length
        self._body = body

    @property
    def trailers(self) -> Headers | None:
        """The fields after the body: those set here, or those that came, once the body has ended."""
        return self._trailers if self._trailers is not None else self._body.trailers

    @trailers.setter
    def trailers(self, value: Headers | None) -> None:
        self._trailers = value

    @property
    def extensions(self) -> Extensions:
        """What is known of this exchange, by type; that of the connection among it."""
        if self._extensions is None:
            self._extensions = Extensions()
        return self._extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._extensions = value


@kind
class Request(Message):
    """A request. It keeps its parts as they were sent; the same for every HTTP version.

    `url` is absolute ("https://example.com/a?b"), a path ("/a?b"), "*", or host:port for CONNECT. A Host
    field is made of an absolute one unless `headers` has one. What a URL cannot hold is percent-encoded.
    """

    __slots__ = ("_client", "_connection", "_informer", "absolute", "method", "path", "protocol", "scheme")

    def __init__(self, method: str, url: str, headers: HeaderSource = (), body: Content = b"") -> None:
        self.method = method
        self.headers = Headers(headers)
        self.version = "1.1"
        self.scheme = ""
        """"http" or "https"; empty where it is not known."""
        self.absolute = False
        """Whether the target named its scheme and authority, as clients do towards a forward proxy."""
        self.protocol = ""
        """What an upgrade or an extended CONNECT asks for, such as "websocket"; else empty."""
        self._body = body_of(body)
        self._trailers = None
        self._extensions = None
        self._connection: Extensions | None = None
        self._client: Peer | None = None
        self._informer: Informer | None = None
        self.path = ""
        """The path with the query, as sent: "/a?b", "*", or empty (CONNECT, or a URL without a path)."""
        self._set_url(url)

    def _set_url(self, url: str) -> None:
        if self.method == "CONNECT":
            self.headers.setdefault("Host", url)
            return
        match = _URL.fullmatch(url)
        if match is None:
            self.path = quote(url, safe=_PRINTABLE)
            return
        self.absolute = True
        self.scheme = match[1].lower()
        authority = match[2] if match[2].isascii() else match[2].encode("idna").decode()
        if "host" not in self.headers:
            self.headers.insert(0, "Host", authority)
        self.path = quote(match[3], safe=_PRINTABLE)

    @property
    def authority(self) -> str:
        """The host, with the port if named, that this is for: the Host field, always."""
        return self.headers.get("host", "")

    @authority.setter
    def authority(self, value: str) -> None:
        if "host" in self.headers:
            self.headers["Host"] = value
        else:
            self.headers.insert(0, "Host", value)

    @property
    def url(self) -> str:
        """The absolute URL; host:port for CONNECT."""
        if self.method == "CONNECT":
            return self.authority
        path = "" if self.path == "*" else self.path
        return f"{self.scheme or 'http'}://{self.authority}{path}"

    @property
    def client(self) -> Peer | None:
        """The client's address: that of the connection, or what was assigned because a trusted proxy told it."""
        if self._client is None and self._connection is not None:
            self._client = self._connection.get(Peer)
        return self._client

    @client.setter
    def client(self, value: Peer | None) -> None:
        self._client = value

    @property
    def hostname(self) -> str:
        """The host of `authority`, for rules: in lower case, without port, user, brackets, escapes or trailing dots."""
        return hostname(self.authority)

    @property
    def normalized_path(self) -> str:
        """The path without its query, for rules: each %XX decoded once, dot segments and doubled slashes resolved.

        A backslash and an encoded slash count as slashes. An empty path is "/", but for CONNECT. ProtocolError (400)
        for NUL, malformed escapes and climbing above the root. `path` stays as sent.
        """
        path = self.path.partition("?")[0]
        if not path and self.method != "CONNECT":
            return "/"
        return normalized(path)

    @property
    def query(self) -> str:
        """What follows the first "?" of the path."""
        return self.path.partition("?")[2]

    @property
    def extensions(self) -> Extensions:
        """What is known of this exchange, by type; what was known of the connection is among it."""
        if self._extensions is None:
            self._extensions = self._connection.fork() if self._connection is not None else Extensions()
        return self._extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._extensions = value

    async def inform(self, status: int, headers: HeaderSource = ()) -> None:
        """Send an informational response (1xx, such as 103 early hints) before the final one.

        Nothing is sent where the client's protocol has none (HTTP/1.0), or where no server made this request.
        """
        if not 100 <= status < 200 or status == 101:
            raise ValueError(f"{status} is not an informational status that can be sent on")
        if self._informer is not None:
            await self._informer(status, headers if isinstance(headers, Headers) else Headers(headers))

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"


class Response(Message):
    """A response. Whoever holds it owns it, and calls `aclose` when it is not passed on.

    `upgrade` takes the connection over after the head was sent: a handler, run with the stream in the
    server's own task. It answers CONNECT and Upgrade requests; the server then picks the status (101 or 200).
    """

    __slots__ = ("_on_close", "reason", "status", "upgrade")

    def __init__(
        self,
        status: int = 200,
        headers: HeaderSource = (),
        body: Content = b"",
        upgrade: Service[Stream, None] | None = None,
    ) -> None:
        self._on_close: SharedEnd | None = None
        self.status = status
        self.reason = ""
        """The words after the status in HTTP/1; empty for the usual ones."""
        self.headers = Headers(headers)
        self.version = "1.1"
        self.upgrade = upgrade
        self._body = body_of(body)
        self._trailers = None
        self._extensions = None

    def on_close(self, callback: Callback, /) -> None:
        """Call back, and await what it returns, once this exchange has ended.

        That is when it was closed, and at the latest when nobody holds the response or its body any more.
        """
        if self._on_close is None:
            self._on_close = SharedEnd()
            self._on_close.loop = running_loop()
        self._on_close.append(callback)

    @property
    def body(self) -> Body:
        """What it carries. Assigning another drops Content-Length, so that the framing follows."""
        body = self._body
        if body.headers is None and body is not EMPTY:
            body.headers = self.headers
        if self._on_close is not None and body.data is None:
            body.shared_end = self._on_close  # a layer may keep the body alone: the exchange goes on with it
        return body

    @body.setter
    def body(self, content: Content) -> None:
        self._set_body(content)

    async def aclose(self) -> None:
        """Free the body, the upstream behind it, and an upgrade that was not run. Again does nothing."""
        try:
            await self._body.aclose()
        finally:
            if self._on_close is not None:
                await self._run_callbacks()

    async def _run_callbacks(self) -> None:
        callbacks, self._on_close = self._on_close or SharedEnd(), None
        try:
            while callbacks:
                result = callbacks.pop()()
                if inspect.isawaitable(result):
                    await result
        finally:
            if callbacks:  # one failed: the others still run
                self._on_close = callbacks
                await self._run_callbacks()

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


Exchange: TypeAlias = Service[Request, Response]
"""Answers requests: HTTP of any version."""

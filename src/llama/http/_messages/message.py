"""HTTP requests and responses, independent of the HTTP version."""

from __future__ import annotations

import inspect
import re
from asyncio.events import _get_running_loop as running_loop
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import quote

from llama._core.extensions import Extensions
from llama._core.server import PeerAddress
from llama._core.service import Service
from llama._core.stack import register_input_type
from llama._core.stream import Stream
from llama.http._codings.accept import accepts_codings
from llama.http._messages.body import EMPTY, Body, Content, EditedBody, content_codings, to_body
from llama.http._messages.finalizers import Callback, CloseCallbacks
from llama.http._messages.headers import Headers, Pairs
from llama.http._messages.normalized_path import normalized
from llama.layers._hostname import hostname

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]+)([^#]*)(?:#.*)?", re.DOTALL)
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_MAX_LOGGED = 500
_FRAMING = ("content-length", "transfer-encoding")

HeaderSource: TypeAlias = Headers | Mapping[str, str] | Pairs
SendInformational: TypeAlias = Callable[[int, Headers], Awaitable[None]]


class Message:
    """The base class of requests and responses: headers, a body and trailers."""

    __slots__ = ("_body", "_extensions", "_trailers", "headers", "version")

    headers: Headers
    version: str
    """The HTTP version of the received message: "1.0", "1.1", "2" or "3"."""
    _body: Body
    _trailers: Headers | None
    _extensions: Extensions | None

    @property
    def body(self) -> Body:
        """What it carries. Assigning another drops Content-Length, so that the framing follows.

        A body that `Body.map` or `Body.replace` made of this one keeps its Content-Encoding. It passes unchanged, with
        a warning, where its content coding is unknown or wrong.
        """
        body = self._body
        if body.headers is None and body is not EMPTY:
            body.headers = self.headers
        return body

    @body.setter
    def body(self, content: Content) -> None:
        self._set_body(content)

    def _set_body(self, content: Content) -> None:
        body = to_body(content)
        if type(body) is EditedBody:
            body = self._encoded(body)
        if body is self._body:
            return
        self._body = body
        self.headers.discard(*_FRAMING)
        if body.is_decoded:
            self.headers.discard("content-encoding")

    def _encoded(self, body: EditedBody) -> Body:
        """Encode an edited body again as this message says; the decoded one where it is another message's."""
        if content_codings(self.headers) != (body.codings if body.keeps_codings else []):
            return body
        exchange, accepted = self._exchange()
        return body.encoded(exchange, keeps_codings=accepts_codings(accepted, body.codings))

    def _exchange(self) -> tuple[str, Sequence[str]]:
        """A name for the log, and the values of Accept-Encoding of the receiver, where they are known."""
        return "", ()

    def replace_body(self, body: Body, /) -> None:
        """Replace the body by one with exactly the same bytes, and keep the framing fields."""
        body.length = self._body.length
        self._body = body

    @property
    def trailers(self) -> Headers | None:
        """The trailer fields: those assigned here, else those received, which are available after the body's end."""
        return self._trailers if self._trailers is not None else self._body.trailers

    @trailers.setter
    def trailers(self, value: Headers | None) -> None:
        self._trailers = value

    @property
    def extensions(self) -> Extensions:
        """Typed data about this exchange, including that of its connection."""
        if self._extensions is None:
            self._extensions = Extensions()
        return self._extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._extensions = value


@register_input_type
class Request(Message):
    """A request, the same for every HTTP version. Its parts stay as they were sent.

    `url` is absolute ("https://example.com/a?b"), a path ("/a?b"), "*", or host:port for CONNECT. An absolute
    URL sets the Host field unless `headers` has one. Characters that a URL must not contain are percent-encoded.
    """

    __slots__ = (
        "_client",
        "_connection_extensions",
        "_send_informational",
        "is_absolute_form",
        "method",
        "path",
        "scheme",
        "upgrade_protocol",
    )

    def __init__(self, method: str, url: str, headers: HeaderSource = (), body: Content = b"") -> None:
        self.method = method
        self.headers = Headers(headers)
        self.version = "1.1"
        self.scheme = ""
        """"http" or "https"; empty if unknown."""
        self.is_absolute_form = False
        """Whether the target is in absolute-form, with scheme and authority, as clients send it to a forward proxy."""
        self.upgrade_protocol = ""
        """The protocol that an Upgrade or an extended CONNECT requests, such as "websocket"; else empty."""
        self._body = to_body(body)
        self._trailers = None
        self._extensions = None
        self._connection_extensions: Extensions | None = None
        self._client: PeerAddress | None = None
        self._send_informational: SendInformational | None = None
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
        self.is_absolute_form = True
        self.scheme = match[1].lower()
        authority = match[2] if match[2].isascii() else match[2].encode("idna").decode()
        if "host" not in self.headers:
            self.headers.insert(0, "Host", authority)
        self.path = quote(match[3], safe=_PRINTABLE)

    @property
    def authority(self) -> str:
        """The target host, with its port if the request has one. Always the value of the Host field."""
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
    def client(self) -> PeerAddress | None:
        """The client's address: that of the connection, or one assigned from a trusted proxy's forwarding fields."""
        if self._client is None and self._connection_extensions is not None:
            self._client = self._connection_extensions.get(PeerAddress)
        return self._client

    @client.setter
    def client(self, value: PeerAddress | None) -> None:
        self._client = value

    @property
    def hostname(self) -> str:
        """The host of `authority` for use in rules: lower case, without port, user, brackets, escapes or final dots."""
        return hostname(self.authority)

    @property
    def normalized_path(self) -> str:
        """The path without its query for use in rules: each %XX decoded once, dot segments and double slashes resolved.

        A backslash and an encoded slash count as slashes. An empty path is "/", except for CONNECT. Raises
        ProtocolError (400) for NUL, malformed escapes and paths that climb above the root. `path` stays as sent.
        """
        path = self.path.partition("?")[0]
        if not path and self.method != "CONNECT":
            return "/"
        return normalized(path)

    @property
    def query(self) -> str:
        """The query: the part of the path after its first "?"."""
        return self.path.partition("?")[2]

    @property
    def extensions(self) -> Extensions:
        """Typed data about this exchange, including that of its connection."""
        if self._extensions is None:
            self._extensions = (
                self._connection_extensions.fork()
                if self._connection_extensions is not None
                else Extensions()
            )
        return self._extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._extensions = value

    def _exchange(self) -> tuple[str, Sequence[str]]:
        return f"request {_described(self)}", ()

    async def send_informational(self, status: int, headers: HeaderSource = ()) -> None:
        """Send an informational response (1xx, such as 103 early hints) before the final one.

        Does nothing if the client's version has none (HTTP/1.0), or if the request does not come from a server.
        Raises ValueError for 101 and for a status outside 100-199.
        """
        if not 100 <= status < 200 or status == 101:
            raise ValueError(f"expected an informational status, 100 to 199 but not 101, got {status}")
        if self._send_informational is not None:
            await self._send_informational(
                status, headers if isinstance(headers, Headers) else Headers(headers)
            )

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"


class Response(Message):
    """A response. Its holder owns it, and either passes it on or calls `aclose`.

    `upgrade` is a connection handler that takes over the connection: the server sends the head, then runs the
    handler with the stream in its own task. It answers CONNECT and Upgrade requests; the server sets the status
    (200 or 101).
    """

    __slots__ = ("_on_close", "reason", "status", "upgrade")

    def __init__(
        self,
        status: int = 200,
        headers: HeaderSource = (),
        body: Content = b"",
        upgrade: Service[Stream, None] | None = None,
    ) -> None:
        self._on_close: CloseCallbacks | None = None
        self.status = status
        self.reason = ""
        """The reason phrase in HTTP/1; empty for the standard one."""
        self.headers = Headers(headers)
        self.version = "1.1"
        self.upgrade = upgrade
        self._body = to_body(body)
        self._trailers = None
        self._extensions = None

    def on_close(self, callback: Callback, /) -> None:
        """Call `callback`, and await its result if awaitable, once this exchange has ended.

        It ends when the response is closed, and at the latest when neither it nor its body is referenced any more.
        """
        if self._on_close is None:
            self._on_close = CloseCallbacks()
            self._on_close.loop = running_loop()
        self._on_close.append(callback)

    @property
    def body(self) -> Body:
        """What it carries. Assigning another drops Content-Length, so that the framing follows.

        A body that `Body.map` or `Body.replace` made of this one keeps its Content-Encoding if the client accepts it.
        It passes unchanged, with a warning, where its content coding is unknown or wrong.
        """
        body = self._body
        if body.headers is None and body is not EMPTY:
            body.headers = self.headers
            body._is_of_response = True
        if self._on_close is not None and body.buffered is None:
            body.close_callbacks = (
                self._on_close
            )  # a layer may keep only the body, which then keeps the exchange
        return body

    @body.setter
    def body(self, content: Content) -> None:
        self._set_body(content)

    async def aclose(self) -> None:
        """Release the body, its upstream connection, and an upgrade that was not run. Idempotent."""
        try:
            await self._body.aclose()
        finally:
            if self._on_close is not None:
                await self._run_callbacks()

    async def _run_callbacks(self) -> None:
        callbacks, self._on_close = self._on_close or CloseCallbacks(), None
        try:
            while callbacks:
                result = callbacks.pop()()
                if inspect.isawaitable(result):
                    await result
        finally:
            if callbacks:  # one raised: run the others
                self._on_close = callbacks
                await self._run_callbacks()

    def _exchange(self) -> tuple[str, Sequence[str]]:
        request = self._extensions.get(_AnsweredRequest) if self._extensions is not None else None
        return ("response", ()) if request is None else (f"response to {request.text}", request.accepted)

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


class _AnsweredRequest(NamedTuple):
    """The request of a response, without a reference to it."""

    text: str
    accepted: tuple[str, ...]
    """The values of its Accept-Encoding."""


def note_request(request: Request, response: Response, accepted: Sequence[str] | None = None) -> Response:
    """Remember the request of an encoded response: for warnings, and for encoding it again after an edit."""
    if "content-encoding" in response.headers._keys:
        if accepted is None:
            accepted = request.headers.get_all("accept-encoding")
        response.extensions.set(_AnsweredRequest(_described(request), tuple(accepted)))
    return response


def _described(request: Request) -> str:
    client = f" from {request.client}" if request.client is not None else ""
    return f"{request.method} {request.url[:_MAX_LOGGED]}{client}"


RequestHandler: TypeAlias = Service[Request, Response]
"""A request handler: takes a Request, returns a Response. The same for every HTTP version."""

"""The HTTP server: a layer that turns a request handler into a connection handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._core.errors import ProtocolError
from llama._core.service import Layer
from llama._core.stack import layer_factory, named_layer
from llama._core.stream import Stream
from llama.http._h1.request_head_reader import PriorKnowledgePreface
from llama.http._h1.server import H1Connection
from llama.http._h2.server import H2Connection
from llama.http._limits import DEFAULT_H2_LIMITS, DEFAULT_LIMITS, H2Limits, Limits
from llama.http._messages.error_response import ErrorHandler, named_page, plain_text_error
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._server_settings import ServerSettings
from llama.tls import TLSInfo


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class HttpServer:
    """A connection handler that serves HTTP/1.1 and HTTP/2 with a request handler."""

    inner: RequestHandler
    settings: ServerSettings
    scheme: str | None

    __input_type__: ClassVar[type] = Stream
    __alpn__: ClassVar[tuple[str, ...]] = ("h2", "http/1.1", "http/1.0")

    def __repr__(self) -> str:
        return "http.server()"

    async def __call__(self, stream: Stream, /) -> None:
        tls = stream.extensions.get(TLSInfo)
        scheme = self.scheme or ("http" if tls is None else "https")
        alpn = None if tls is None else tls.alpn
        if alpn != "h2":
            try:
                await H1Connection(stream, self.inner, self.settings, scheme).run()
                return
            except PriorKnowledgePreface:
                if alpn is not None:
                    raise ProtocolError(
                        "the client sent the HTTP/2 preface after ALPN selected HTTP/1.1", status=505
                    ) from None
        await H2Connection(stream, self.inner, self.settings, scheme).run()


@layer_factory("http.server")
def server(
    *,
    first_byte_timeout: float | None = None,
    head_timeout: float | None = None,
    body_timeout: float | None = None,
    idle_timeout: float | None = None,
    handler_timeout: float | None = None,
    write_timeout: float | None = None,
    max_requests: int | None = None,
    half_close: bool = False,
    error_handler: ErrorHandler = plain_text_error,
    proxy_name: str = "llama",
    limits: Limits = DEFAULT_LIMITS,
    h2: H2Limits | None = None,
    scheme: str | None = None,
) -> Layer[Request, Response, Stream, None]:
    """Serve HTTP/1.1 and HTTP/2: `stack(http.server(), application)` is a connection handler.

    Uses HTTP/2 if ALPN selected it or the client sends its preface (prior knowledge). Upgrade to h2c is ignored.

    Timeouts in seconds, None for no limit: `first_byte_timeout` for the first byte of a connection, `idle_timeout`
    between requests (both close without a response), `head_timeout` for the rest of a head, `body_timeout` for each
    read of a body (both 408), `handler_timeout` for the handler's response (504), `write_timeout` for each 64 KiB
    that the client accepts (aborts the connection). `max_requests` limits the requests per connection.

    A half-close by the client during a request counts as a disconnect and cancels the handler; with `half_close` the
    client still gets its response. `error_handler` makes the response from an exception, a status and the request (None
    if its head was invalid); `proxy_name` names this server in Proxy-Status. `limits` bounds the parts of a message,
    `h2` the resources of HTTP/2 clients. `scheme` sets the requests' scheme: by default "https" over TLS, else "http".

    An exception of the handler is answered with its `status` and `retry_after`, a timeout with 504, any other
    with 500. An unread request body is drained, up to 64 KiB and one second; if it is longer, the connection closes.
    """
    page = named_page(error_handler, proxy_name, "http.server")
    settings = ServerSettings(
        first_byte_timeout,
        head_timeout,
        body_timeout,
        idle_timeout,
        handler_timeout,
        write_timeout,
        max_requests,
        half_close,
        *(page, limits, h2 or _alike(limits)),
    )

    def build(inner: RequestHandler) -> HttpServer:
        return HttpServer(inner, settings, scheme)

    return named_layer("http.server()", build, input_type=Stream, inner_type=Request)


def _alike(limits: Limits) -> H2Limits:
    """Derive the HTTP/2 limits from those for HTTP/1.1."""
    if limits == DEFAULT_LIMITS:
        return DEFAULT_H2_LIMITS
    return H2Limits(
        max_header_list_size=limits.max_head,
        max_headers=limits.max_headers,
        max_path=limits.max_start_line,
        max_header_block=limits.max_head + limits.max_head // 2,
    )

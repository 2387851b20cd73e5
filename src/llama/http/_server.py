"""The HTTP server: the layer that makes a handler of an exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama._errors import ProtocolError
from llama._service import Layer
from llama._stack import factory, named_layer
from llama._stream import Stream
from llama.http._error_page import ErrorPage, named_page, plain_page
from llama.http._h1_reader import PriorKnowledge
from llama.http._h1_server import H1Connection
from llama.http._h2_server import H2Connection
from llama.http._message import Exchange, Request, Response
from llama.http._settings import Settings
from llama.http.wire._h1_fields import DEFAULT_LIMITS, Limits
from llama.http.wire._h2_limits import DEFAULT_H2_LIMITS, H2Limits
from llama.tls import TLSInfo


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class HttpServer:
    """Speaks HTTP on each connection, and asks an exchange for the answers."""

    inner: Exchange
    settings: Settings
    scheme: str | None

    __takes__: ClassVar[type] = Stream
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
            except PriorKnowledge:
                if alpn is not None:
                    raise ProtocolError(
                        "the preface of HTTP/2, where HTTP/1.1 was agreed on", status=505
                    ) from None
        await H2Connection(stream, self.inner, self.settings, scheme).run()


@factory("http.server")
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
    error_page: ErrorPage = plain_page,
    proxy_name: str = "llama",
    limits: Limits = DEFAULT_LIMITS,
    h2: H2Limits | None = None,
    scheme: str | None = None,
) -> Layer[Request, Response, Stream, None]:
    """Serve HTTP/1.1 and 2: `stack(http.server(), application)` is a handler of connections.

    HTTP/2 is spoken where TLS agreed on it (ALPN) or the client begins with it; an Upgrade to h2c is not taken.

    Seconds, None for no bound: `first_byte_timeout` for a new connection, `idle_timeout` between requests (both
    close in silence), `head_timeout` for the rest of a head and `body_timeout` for each next piece of a body (408),
    `handler_timeout` for the answer (504), `write_timeout` for each 64 KiB that the client takes (the connection
    is broken off). `max_requests` is how many one connection may send.

    A client that closes its side during an exchange is gone, and the exchange is cancelled; `half_close` lets it
    wait for the answer. `error_page` makes the response for an exception, a status and the request (None if it
    could not be read); `proxy_name` is its Proxy-Status. `limits` bounds the parts of a message, `h2` what clients of
    HTTP/2 may do. `scheme` is what requests are told of their own; by default "https" over TLS and else "http".

    An exception of the exchange is answered by the `status` and `retry_after` it carries, a timeout by 504, any
    other by 500. A body that was not read is drained, up to 64 KiB and a second, or the connection closes.
    """
    page = named_page(error_page, proxy_name, "http.server")
    settings = Settings(
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

    def build(inner: Exchange) -> HttpServer:
        return HttpServer(inner, settings, scheme)

    return named_layer("http.server()", build, takes=Stream, gives=Request)


def _alike(limits: Limits) -> H2Limits:
    """The limits of HTTP/2 where those of HTTP/1.1 were given."""
    if limits == DEFAULT_LIMITS:
        return DEFAULT_H2_LIMITS
    return H2Limits(
        header_list=limits.head, fields=limits.fields, path=limits.line, block=limits.head + limits.head // 2
    )

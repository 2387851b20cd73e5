"""The response that an ASGI application sends, message by message."""

from __future__ import annotations

import asyncio

from llama._asgi.types import ASGIProtocolError, Event
from llama._core.errors import StreamClosedError, TruncatedError
from llama.http import Body, Headers, Request, Response


class AppBody(Body):
    """A body that an application sends; it buffers one chunk, then the application waits."""

    __slots__ = ("_chunk", "_closed", "_error", "_finished", "_reader", "_trailers", "_writer")

    def __init__(self) -> None:
        super().__init__()
        self._chunk = b""
        self._closed = False
        self._finished = False
        self._error: Exception | None = None
        self._trailers: Headers | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def trailers(self) -> Headers | None:
        return self._trailers

    def read_chunk_nowait(self) -> bytes:
        chunk, self._chunk = self._chunk, b""
        if chunk:
            _wake(self._writer)
        return chunk

    async def read_chunk(self) -> bytes:
        while not (chunk := self.read_chunk_nowait()):
            if self._error is not None:
                raise self._error
            if self._finished or self._closed:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return chunk

    async def put(self, data: bytes) -> None:
        """Add a chunk; raises StreamClosedError (an OSError) once the body is no longer read."""
        while self._chunk and not self._closed:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        if self._closed:
            raise StreamClosedError("the client disconnected, or the response was closed")
        if data:
            self._chunk = data
            _wake(self._reader)

    def finish(self, trailers: Headers | None = None, error: Exception | None = None) -> None:
        """Mark the end of the body."""
        self._finished = True
        self._trailers = trailers
        self._error = error
        _wake(self._reader)

    async def aclose(self) -> None:
        self._closed = True
        self._chunk = b""
        _wake(self._writer)
        _wake(self._reader)


class ResponseSender:
    """Builds one Response from the `http.response.*` messages, with its body complete or streamed."""

    def __init__(self, request: Request, prefix: str = "http.response") -> None:
        self.response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._request = request
        self._prefix = prefix
        self._body_kind = prefix + ".body"
        self._head: tuple[int, Headers] | None = None
        self._body: AppBody | None = None
        self._trailers: Headers | None = None
        self.finished = False

    async def send(self, message: Event) -> None:
        """Take one message.

        Raises ASGIProtocolError if it is out of order, StreamClosedError once the client has disconnected.
        """
        if self.response.cancelled():
            raise StreamClosedError("the client has left")
        kind: str = message["type"]
        if kind == self._body_kind and self._head is not None and not self.finished:
            if self._body is None and self._trailers is None and not message.get("more_body", False):
                self.finished = True  # a complete body, the common case
                self._deliver(bytes(message.get("body", b"")))
            else:
                await self._send_body(message)
            return
        match kind.removeprefix(self._prefix + "."):
            case "start" if self._head is None:
                self._start(message)
            case "trailers" if self._body is not None and self._trailers is not None and not self.finished:
                self._trailers.extend(_header_pairs(message))
                if not message.get("more_trailers", False):
                    self.finished = True
                    self._body.finish(self._trailers)
            case "early_hint" if self._head is None:
                links = [("Link", bytes(link).decode("latin-1")) for link in message.get("links", ())]
                await self._request.send_informational(103, links)
            case _:
                raise ASGIProtocolError(kind, "out of turn")

    def _start(self, message: Event) -> None:
        self._head = message["status"], Headers(_header_pairs(message))
        if message.get("trailers", False):
            self._trailers = Headers()

    async def _send_body(self, message: Event) -> None:
        data, more = bytes(message.get("body", b"")), message.get("more_body", False)
        if self._body is None:
            self._body = AppBody()
            self._deliver(self._body)
        await self._body.put(data)
        if not more and self._trailers is None:
            self.finished = True
            self._body.finish()

    def _deliver(self, body: Body | bytes) -> None:
        status, headers = self._head or (500, Headers())
        response = Response(status, (), body)
        response.headers = headers
        self.response.set_result(response)

    def finish(self, error: Exception | None) -> bool:
        """Handle the end of the application; returns False if its error did not reach the client."""
        if not self.response.done():
            self.response.set_exception(error or RuntimeError("the application returned without a response"))
            return True
        if self._body is not None and not self.finished:
            self._body.finish(
                error=error or TruncatedError("the application returned before the end of its response")
            )
            return True
        return error is None


def _header_pairs(message: Event) -> list[tuple[str, str]]:
    headers = message.get("headers", ())
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

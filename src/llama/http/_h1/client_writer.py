"""Sending an HTTP/1.1 request: its encoded head, and its body concurrently with the response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llama._core.errors import LlamaError, OverloadedError, ProtocolError, TruncatedError, UnreachableError
from llama._core.stream import Stream
from llama.http._h1.wire.encode import encode_chunk, encode_last_chunk, encode_request, request_framing
from llama.http._h1.wire.framing import CHUNKED
from llama.http._messages.body import EMPTY
from llama.http._messages.headers import checked_value
from llama.http._messages.message import Request
from llama.http._messages.origin import Origin
from llama.layers._shared_timeout import SharedTimeout

COALESCE_LIMIT = 65536
_BODILESS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
_METHODS_WITH_BODY = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that the encoder changes or drops, or that determine the framing of the body."""


def encode_head(request: Request, origin: Origin) -> tuple[bytes, int]:
    """Return the encoded head of a request to an origin, and the framing of its body: bytes or CHUNKED."""
    headers = request.headers
    names = headers._keys
    body = request._body
    path = request.path
    if (
        body is EMPTY
        and request.method in _BODILESS
        and path[:1] == "/"
        and path.isascii()
        and path.isprintable()
        and " " not in path
        and "host" in names
        and not request.upgrade_protocol
        and _METHODS_WITH_BODY.isdisjoint(names)
    ):  # most requests
        fields = "\r\n".join(headers._lines)
        return f"{request.method} {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode("latin-1"), 0
    bare = body is EMPTY and "content-length" not in names
    framing = 0 if bare else request_framing(headers, body.length)
    extra = "" if "host" in names else f"Host: {origin.authority}\r\n"
    if request.upgrade_protocol:
        extra += "Connection: Upgrade\r\n"
        if "upgrade" not in names:
            extra += f"Upgrade: {checked_value(request.upgrade_protocol)}\r\n"
    elif "te" in names:
        extra += "Connection: TE\r\n"
    elif "connection" in names and "close" in headers.tokens("connection"):
        extra += "Connection: close\r\n"
    if path[:1] != "/":
        path = _target(request)
    return encode_request(request.method, path, headers, framing, extra), framing


def _target(request: Request) -> str:
    """Return a target that does not start with "/": `*`, CONNECT's authority, or "/" added (RFC 9112 section 3.2)."""
    if request.method == "CONNECT":
        return request.authority
    if request.method == "OPTIONS" and request.path in ("", "*"):
        return "*"
    return f"/{request.path}"


class WriteTimedOut(Exception):
    """The server accepted no data within the write timeout."""


async def write_with_timeout(stream: Stream, data: bytes | memoryview, deadlines: SharedTimeout) -> None:
    """Write in pieces of 64 KiB; raise Late if one of them takes too long."""
    view = memoryview(data)
    for start in range(0, len(view), COALESCE_LIMIT):
        call = deadlines.enter()
        try:
            await stream.write(view[start : start + COALESCE_LIMIT])
        except asyncio.CancelledError:
            if not call.consume_cancellation():
                raise
            raise WriteTimedOut from None
        finally:
            deadlines.exit(call)


class RequestBodySender:
    """Sends a body while the response may already arrive; `run` is its task.

    If the body fails, it aborts the connection, so that the server cannot take the body for complete; `error` is the
    reason. If the connection accepts no more data, it stops without an abort: the response may have arrived.
    """

    __slots__ = (
        "_broken",
        "_deadlines",
        "_framing",
        "_late",
        "_left",
        "_request",
        "_stream",
        "complete",
        "count",
        "error",
        "writing",
    )

    def __init__(
        self,
        stream: Stream,
        request: Request,
        framing: int,
        broken: Callable[[], object],
        deadlines: SharedTimeout | None,
        late: Callable[[WriteTimedOut], Exception],
    ) -> None:
        self._stream = stream
        self._request = request
        self._framing = framing
        self._left = framing
        self._broken = broken
        self._deadlines = deadlines
        self._late = late
        self.count = 0
        """The number of bytes that the connection accepted."""
        self.writing = False
        """Whether it is waiting for the server to accept data."""
        self.complete = False
        self.error: Exception | None = None

    @property
    def progress(self) -> tuple[int, bool]:
        """A value that changes whenever the upload makes progress."""
        return self.count, self.complete

    @property
    def awaits_body(self) -> bool:
        """Whether it is waiting for the body's source, not for the server."""
        return not (self.complete or self.writing)

    async def run(self, head: bytes, part: bytes) -> None:
        """Send `head`, the `part` of the body that was already read, and the rest of the body."""
        try:
            body = self._request._body
            if head:
                await self._write(head)
            if body.buffered is not None:
                await self._send_all(body.buffered)
            else:
                if part:
                    await self._send(part)
                while chunk := await self._next():
                    await self._send(chunk)
            await self._finish()
        except _PeerStoppedReading:
            return

    async def _next(self) -> bytes:
        try:
            return await self._request._body.read_chunk()
        except Exception as error:
            raise self._fail(_as_body_error(error)) from None

    async def _send_all(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(data), COALESCE_LIMIT):
            await self._send(view[start : start + COALESCE_LIMIT])

    async def _send(self, chunk: bytes | memoryview) -> None:
        if self._framing == CHUNKED:
            await self._write(encode_chunk(bytes(chunk)))
            return
        self._left -= len(chunk)
        if self._left < 0:
            raise self._length_mismatch("is longer than")
        await self._write(chunk)

    async def _finish(self) -> None:
        if self._framing == CHUNKED:
            await self._write(encode_last_chunk(self._request.trailers))
        elif self._left:
            raise self._length_mismatch(f"ended {self._left} bytes before")
        self.complete = True

    async def _write(self, data: bytes | memoryview) -> None:
        self.writing = True
        try:
            if self._deadlines is None:
                await self._stream.write(data)
            else:
                await write_with_timeout(self._stream, data, self._deadlines)
        except WriteTimedOut as error:
            raise self._fail(self._late(error)) from None
        except (LlamaError, OSError) as error:
            raise _PeerStoppedReading from error
        self.writing = False
        self.count += len(data)

    def _length_mismatch(self, how: str) -> _PeerStoppedReading:
        text = f"the body {how} its Content-Length of {self._framing}"
        return self._fail(ProtocolError(text, status=500))

    def _fail(self, error: Exception) -> _PeerStoppedReading:
        self.error = error
        self._broken()
        return _PeerStoppedReading()


def _as_body_error(error: Exception) -> Exception:
    """Convert an error of the body, so that it is not mistaken for one of the connection and the request retried."""
    if isinstance(error, UnreachableError | OverloadedError):
        status, after, text = error.status, error.retry_after, str(error)
    elif isinstance(error, OSError) and not isinstance(error, LlamaError | TimeoutError):
        status, after, text = 400, None, error.strerror or str(error)
    else:
        return error
    cut = TruncatedError(f"the body of the request failed: {text}", status=status, retry_after=after)
    cut.__cause__ = error
    return cut


class _PeerStoppedReading(Exception):
    """The upload has stopped."""

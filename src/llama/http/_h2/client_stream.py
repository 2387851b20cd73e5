"""One exchange of an HTTP/2 client: a stream, the request sent on it, and the response received on it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from llama._core.errors import LlamaError, ProtocolError, StreamClosedError, TruncatedError
from llama._core.shutdown import Shutdown
from llama.http._h1.client import MAX_INFORMATIONAL, NoResponseError
from llama.http._h1.extended_connect import NotSwitched, accept_key
from llama.http._h2.body import H2Body, H2ResponseBody
from llama.http._h2.messages import fields_of_trailers, response_from
from llama.http._h2.tunnel import H2Tunnel, reset_error
from llama.http._h2.wire import frames
from llama.http._h2.wire.fields import ResponseHead
from llama.http._h2.wire.frames import code_name
from llama.http._h2.wire.hpack_table import Field
from llama.http._h2.wire.states import CLOSED
from llama.http._h2.wire.stream import UNKNOWN
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._h2.writer import H2Writer
from llama.http._messages.body import EMPTY, BytesBody
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, Response
from llama.http._messages.origin import Origin
from llama.http._messages.upgrade import UpgradedConnection


class UnprocessedError(NoResponseError):
    """The server did not process the request, so it can be sent on another connection (RFC 9113 section 8.7).

    `is_body_there` is true if none of the request's body has been consumed, or if it can be read again.
    """

    def __init__(self, message: str, *, is_body_there: bool = True) -> None:
        super().__init__(message)
        self.is_body_there = is_body_there


class NoExtendedConnect(NotSwitched):
    """The server's SETTINGS do not allow extended CONNECT. The request was not sent."""

    def __init__(self, origin: Origin, protocol: str) -> None:
        super().__init__(f"{origin} takes no upgrade to {protocol} over HTTP/2", status=502)


class ClientConnection(Protocol):
    """The connection that a stream belongs to."""

    writer: H2Writer
    origin: Origin
    tasks: Shutdown
    body_timeout: float | None

    def on_stream_closed(self, exchange: H2ClientStream, /) -> None:
        """The exchange has ended."""
        ...


class H2ClientStream:
    """The client side of one stream: handles the stream's events, uploads the body, builds the response."""

    __slots__ = (
        "_began",
        "_body",
        "_error",
        "_head",
        "_informed",
        "_over",
        "_request",
        "_session",
        "_tunnel",
        "_upload",
        "_upload_error",
        "_waiter",
        "stream",
        "writer",
    )  # fmt: skip

    def __init__(self, session: ClientConnection, request: Request) -> None:
        self.writer = session.writer
        self.stream: H2Stream
        self._session = session
        self._request = request
        self._head: ResponseHead | None = None
        self._body: H2Body | None = None
        self._error: Exception | None = None
        self._informed: deque[ResponseHead] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._upload: asyncio.Task[None] | None = None
        self._upload_error: Exception | None = None
        self._tunnel: H2Tunnel | None = None
        self._over = False
        self._began = False

    def open(self, fields: list[Field], *, end: bool) -> None:
        """Open the stream."""
        self.stream = self.writer.protocol.open(
            self, fields, end=end, is_bodiless=self._request.method == "HEAD"
        )
        self.writer.flush()

    # events from the engine

    def response(self, head: ResponseHead, ended: bool, /) -> None:
        """The response's head arrived."""
        self._head = head
        if self._is_switch(head):
            self.stream.expected = (
                UNKNOWN  # Content-Length is meaningless for a tunnel (RFC 9110 section 9.3.6)
            )
        if not ended:
            self._body = H2Body(self, head.length, self._session.body_timeout, self._timeout_error)
        self._wake()
        if ended:
            self._finish()

    def interim(self, head: ResponseHead, /) -> None:
        """An informational response arrived."""
        self._informed.append(head)
        if len(self._informed) > MAX_INFORMATIONAL:
            self.fail(ProtocolError(f"more than {MAX_INFORMATIONAL} informational responses", status=502))
            return
        self._wake()

    def data(self, data: bytes, ended: bool, /) -> None:
        """Bytes of the response's body arrived."""
        if data and self._body is not None:
            self._body.feed(data)
        if ended:
            self._finish()
            self._end_body(None)

    def trailers(self, headers: Headers, /) -> None:
        """The response ended with trailers."""
        self._finish()
        self._end_body(headers)

    def _end_body(self, trailers: Headers | None) -> None:
        if self._body is not None:
            self._after_upload(partial(self._body.finish, trailers))

    def _after_upload(self, callback: Callable[[], object]) -> None:
        """Call `callback` once the upload has stopped reading the request's body.

        The caller may use or close that body as soon as it sees the end of the response.
        """
        upload = self._upload
        if upload is None or upload.done() or self._is_uploading(upload):
            callback()
        else:
            upload.add_done_callback(lambda _: callback())

    async def wait_upload(self) -> None:
        """Wait until the upload no longer reads the request's body."""
        upload = self._upload
        if upload is not None and not upload.done() and not self._is_uploading(upload):
            await asyncio.wait((upload,))

    def reset(self, code: int, by_peer: bool, /) -> None:
        """The stream was reset."""
        self.writer.stream_reset(self.stream)
        name = code_name(code)
        if self._tunnel is not None and self._body is not None:
            self._body.fail(reset_error())
        elif self._head is None:
            who = self._session.origin
            if by_peer and code == frames.REFUSED_STREAM:
                there = not self._began or self._request._body.buffered is not None
                self._on_lost(UnprocessedError(f"{who} refused the request: {name}", is_body_there=there))
            elif by_peer:
                self._on_lost(TruncatedError(f"{who} reset the stream before its response: {name}"))
            else:
                self._on_lost(ProtocolError(f"a malformed response from {who}", status=502))
        else:
            self._on_lost(TruncatedError(f"{self._session.origin} broke the response off: {name}"))
        self._finish()

    def window(self) -> None:
        """The stream's send window has grown."""
        self.writer.window(self.stream)

    def on_connection_lost(self, error: Exception | None) -> None:
        """The connection was lost."""
        reason = f": {error}" if error is not None else ""
        if self._tunnel is not None and self._body is not None:
            self._body.fail(reset_error())
        elif isinstance(error, TimeoutError):
            self._on_lost(error)
        elif self._head is None:
            self._on_lost(
                NoResponseError(f"{self._session.origin} closed the connection before its response{reason}")
            )
        else:
            self._on_lost(
                TruncatedError(f"the connection to {self._session.origin} broke within a body{reason}")
            )
        self._finish()

    def fail(self, error: Exception) -> None:
        """End the exchange with an error and reset the stream."""
        self._on_lost(error)
        self.reset_stream(frames.CANCEL)

    def _on_lost(self, error: Exception) -> None:
        if self._upload_error is not None:
            error = self._upload_error
        if self._error is None:
            self._error = error
        if self._body is not None:
            self._after_upload(partial(self._body.fail, error))
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _finish(self) -> None:
        """End the exchange: the response is complete or failed, so stop uploading the request."""
        if self._over or (self._tunnel is not None and self.stream.state < CLOSED):
            return
        self._over = True
        upload = self._upload
        if upload is not None and not upload.done() and not self._is_uploading(upload):
            upload.cancel()
        self.writer.protocol.reset(self.stream, frames.CANCEL)
        self.writer.flush()
        self._session.on_stream_closed(self)

    @staticmethod
    def _is_uploading(upload: asyncio.Task[None]) -> bool:
        """Whether the upload task itself is the caller, which must not wait for itself."""
        return asyncio.current_task() is upload

    # calls from the response's body and from a tunnel

    def on_read(self) -> None:
        """Do nothing: only a server has to send 100 (Continue)."""

    def release_credit(self, count: int) -> None:
        """Return flow-control credit for the bytes that were read."""
        engine = self.writer.protocol
        engine.consumed(self.stream, count)
        if engine.pending:
            self.writer.flush()

    def on_discard(self) -> None:
        """Reset the stream: the response's body was dropped."""
        if not self._over:
            self.reset_stream(frames.CANCEL)

    def reset_stream(self, code: int, /) -> None:
        """Reset the stream and end the exchange."""
        self.writer.protocol.reset(self.stream, code)
        self.writer.flush()
        self.writer.stream_reset(self.stream)
        self._finish()

    def half_closed(self) -> None:
        """This side of a tunnel has ended; end the exchange if the server's side has too."""
        if self.stream.state >= CLOSED:
            self._finish()

    def _timeout_error(self, seconds: float) -> Exception:
        error = TimeoutError(f"no body bytes from {self._session.origin} for {seconds} s")
        self.reset_stream(frames.CANCEL)
        return error

    # the request's body

    async def send_body(self, framing: int) -> None:
        """Send the body: directly if it is in memory and fits into the window, else in a task of its own."""
        data = self._request._body.buffered
        if (
            data is not None
            and framing == len(data) <= self.writer.protocol.room(self.stream)
            and not self._request._trailers
        ):
            await self.writer.send(self.stream, data, end=True)
            return
        self._upload = self._session.tasks.spawn(self._send_all(framing), name="send an HTTP/2 body")

    async def _send_all(self, framing: int) -> None:
        try:
            await self._send_chunks(framing)
        except StreamClosedError:
            return  # the stream was reset; the response reports it
        except Exception as error:
            if isinstance(error, OSError) and not isinstance(error, LlamaError | TimeoutError):
                cut = TruncatedError(
                    f"the body of the request broke off: {error.strerror or error}", status=400
                )
                cut.__cause__ = error
                error = cut
            self._upload_error = error
            self.fail(error)

    async def _send_chunks(self, framing: int) -> None:
        request, link, stream = self._request, self.writer, self.stream
        body = request._body
        left = framing
        while chunk := body.read_chunk_nowait() or await body.read_chunk():
            self._began = True
            left -= len(chunk)
            if framing > 0 and left < 0:
                raise ProtocolError(f"the body is longer than its Content-Length of {framing}", status=500)
            await link.send(stream, chunk, end=False)
        if framing > 0 and left:
            text = f"the body ended {left} bytes before its Content-Length of {framing}"
            raise ProtocolError(text, status=500)
        trailers = fields_of_trailers(request)
        if trailers:
            link.send_headers(stream, trailers, end=True)
        else:
            await link.send(stream, b"", end=True)

    @property
    def upload_waits(self) -> bool:
        """Whether the request's body is still being sent."""
        return self._upload is not None and not self._upload.done()

    # the response

    async def wait_response(self) -> Response:
        """Return the response once its head has arrived; forward informational responses before it."""
        request = self._request
        while True:
            while self._informed:
                head = self._informed.popleft()
                if head.status != 100 or "expect" in request.headers.names:
                    await request.send_informational(head.status, head.headers)
            if self._head is not None:
                if self._over and self._upload is not None:
                    await self.wait_upload()
                return self._response(self._head)
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _response(self, head: ResponseHead) -> Response:
        request, body = self._request, self._body
        response = response_from(head, EMPTY, "2")
        if self._is_switch(head):
            self._switch(request, response)
        elif body is not None and body.is_whole and not body.has_trailers:
            response._body = BytesBody(body.rest_nowait())  # can be read more than once
        elif body is not None:
            response._body = H2ResponseBody(body, self)
        return response

    def _is_switch(self, head: ResponseHead) -> bool:
        return head.status < 300 and (
            self._request.method == "CONNECT" or self._request.upgrade_protocol != ""
        )

    def _switch(self, request: Request, response: Response) -> None:
        """Turn the stream into a tunnel for the upgraded protocol."""
        body = self._body
        if body is None:
            self._body = body = H2Body(self, None, None, self._timeout_error)
            body.finish()
        body.without_timeout()
        self._tunnel = tunnel = H2Tunnel(self, body, request.upgrade_protocol or "tunnel")
        response.upgrade = upgrade = UpgradedConnection(tunnel, self._session.origin.target)
        response.on_close(upgrade.abort)
        key = request.headers.get("sec-websocket-key")
        if request.upgrade_protocol and request.method != "CONNECT":
            response.status = 101
            if key is not None:
                response.headers["Sec-WebSocket-Accept"] = accept_key(key)

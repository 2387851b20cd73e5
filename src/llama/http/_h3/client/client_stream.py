"""One exchange of an HTTP/3 client."""

from __future__ import annotations

import asyncio

from llama._core.errors import LlamaError, ProtocolError, TruncatedError
from llama._core.shutdown import Shutdown
from llama.http._h1.client import NoResponseError
from llama.http._h2.client_stream import UnprocessedError
from llama.http._h3.client.pool import PooledH3Connection
from llama.http._h3.fields import decode_response, encode_request, encode_trailers
from llama.http._h3.settings import H3ClientSettings
from llama.http._h3.stream import H3_REQUEST_CANCELLED, WRITE_SLICE, H3Body, H3Stream
from llama.http._h3.tunnel import H3Tunnel
from llama.http._messages.body import Body
from llama.http._messages.message import Request, Response
from llama.http._messages.upgrade import UpgradedConnection


class H3ClientStream:
    """One request on a connection, and its response."""

    def __init__(self, dialled: PooledH3Connection, settings: H3ClientSettings, tasks: Shutdown) -> None:
        self._dialled = dialled
        self._settings = settings
        self._tasks = tasks
        self._upload: asyncio.Task[None] | None = None
        self._began = False
        """Whether any of the request's body was consumed."""
        self._clock: asyncio.Timeout | None = None
        """The head timeout. It runs only while waiting for the server, not for the request's body."""
        self.response_started = False
        """Whether an interim response or a head has arrived."""

    async def send(self, request: Request) -> Response:
        """Send a request and wait for the head of the response, whose body then owns the channel."""
        dialled = self._dialled
        channel = dialled.open()
        owner = StreamOwner(dialled, channel)
        try:
            async with asyncio.timeout(self._settings.response_header_timeout) as self._clock:
                self._start(channel, request)
                response = await self._head(channel, request)
        except BaseException as error:
            told = self._on_error(channel, error)
            owner.close(H3_REQUEST_CANCELLED)
            if told is error:
                raise
            raise told from error
        finally:
            self._clock = None
        return self._on_response(channel, owner, request, response)

    def _on_error(self, channel: H3Stream, error: BaseException) -> BaseException:
        """Translate an error so that the caller can decide whether to resend the request."""
        origin, link = self._dialled.origin, self._dialled.link
        if isinstance(error, TimeoutError) and error is not channel.error:
            return TimeoutError(f"{origin}: no response within {self._settings.response_header_timeout} s")
        if self.response_started or not isinstance(error, TruncatedError):
            return error
        if channel.rejected or (link.goaway is not None and channel.number >= link.goaway):
            text = f"{origin} did not process the request: {error}"
            return UnprocessedError(text, is_body_there=not self._began)
        return NoResponseError(f"{origin}: {error}") if link.closed.done() else error

    def _start(self, channel: H3Stream, request: Request) -> None:
        fields, length = encode_request(request, self._dialled.origin.authority)
        if not length:
            channel.send_fields(fields, end=request.method != "CONNECT")
            return
        channel.send_fields(fields)
        self._upload = self._tasks.spawn(self._send_body(channel, request, length))

    def _wait_for_peer(self, waiting: bool) -> None:
        clock, seconds = self._clock, self._settings.response_header_timeout
        if clock is not None and seconds is not None and not clock.expired():
            clock.reschedule(asyncio.get_running_loop().time() + seconds if waiting else None)

    async def _send_all(self, channel: H3Stream, request: Request, length: int) -> None:
        left, body = length, request._body
        data = body.buffered
        while chunk := await self._chunk(body) if data is None else data:
            left -= len(chunk)
            if length > 0 and left < 0:
                raise ProtocolError(f"the body is longer than its Content-Length of {length}", status=500)
            await self._write(channel, chunk)
            if data is not None:
                break
        if length > 0 and left:
            text = f"the body ended {left} bytes before its Content-Length of {length}"
            raise ProtocolError(text, status=500)
        if trailers := request.trailers:
            channel.send_fields(encode_trailers(trailers), end=True)
        else:
            await channel.send(b"", end=True)

    async def _write(self, channel: H3Stream, chunk: bytes) -> None:
        seconds = self._settings.write_timeout
        if seconds is None:
            await channel.send(chunk)
            return
        for start in range(0, len(chunk), WRITE_SLICE):
            try:
                async with asyncio.timeout(seconds):
                    await channel.send(chunk[start : start + WRITE_SLICE])
            except TimeoutError:
                text = f"{self._dialled.origin} took nothing of the request for {seconds:g} s"
                raise TimeoutError(text) from None

    async def _chunk(self, body: Body) -> bytes:
        self._wait_for_peer(False)
        self._began = True
        chunk = body.read_chunk_nowait() or await body.read_chunk()
        self._wait_for_peer(True)
        return chunk

    async def _send_body(self, channel: H3Stream, request: Request, length: int) -> None:
        try:
            await self._send_all(channel, request, length)
        except Exception as error:
            if (
                channel.stopped and channel.error is None
            ):  # the server needs no more of the body and may still respond
                channel.sent_end = True
            elif channel.error is None and not channel.sent_end:
                if isinstance(error, OSError) and not isinstance(error, LlamaError | TimeoutError):
                    text = f"the body of the request broke off: {error.strerror or error}"
                    channel.fail(TruncatedError(text, status=400))
                else:
                    channel.fail(error)
        finally:
            if not channel.sent_end:
                channel.abort(H3_REQUEST_CANCELLED)

    async def _head(self, channel: H3Stream, request: Request) -> Response:
        limits = self._settings.limits
        while True:
            while channel.informed:
                self.response_started = True
                interim, _ = decode_response(channel.informed.popleft(), limits)
                if interim.status != 100 or "expect" in request.headers.names:
                    await request.send_informational(interim.status, interim.headers)
            if channel.fields is not None:
                self.response_started = True
                response, length = decode_response(channel.fields, limits)
                if request.method == "CONNECT" and 200 <= response.status < 300:
                    length = None
                elif request.method == "HEAD" or response.status in (204, 304):
                    length = 0
                channel.declare(length)
                return response
            if channel.error is not None:
                raise channel.error
            if channel.ended:
                raise TruncatedError("the stream ended before its response")
            await channel.wait()

    def _on_response(
        self, channel: H3Stream, owner: StreamOwner, request: Request, response: Response
    ) -> Response:
        if request.method == "CONNECT" and 200 <= response.status < 300:
            stream = H3Tunnel(channel)
            upgraded = UpgradedConnection(
                stream, self._dialled.origin.target, gone=lambda: owner.close(H3_REQUEST_CANCELLED)
            )
            response.upgrade = upgraded
            response.on_close(upgraded.abort)
            return response
        if channel.ended and not (channel.unread or channel.trailers):
            owner.close(H3_REQUEST_CANCELLED)
            return response
        response._body = H3Body(channel, self._settings.body_timeout, owner)
        upload = self._upload
        if upload is not None:
            response.on_close(upload.cancel)
        return response


class StreamOwner:
    """Closes a channel exactly once."""

    __slots__ = ("_channel", "_dialled")

    def __init__(self, dialled: PooledH3Connection, channel: H3Stream) -> None:
        self._dialled: PooledH3Connection | None = dialled
        self._channel = channel

    def close(self, code: int) -> None:
        """End the exchange: reset with this code any direction that has not ended. Idempotent."""
        dialled, self._dialled = self._dialled, None
        if dialled is not None:
            self._channel.close(code)

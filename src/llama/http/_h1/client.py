"""The client side of one HTTP/1.1 connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from llama._core.errors import LlamaError, ProtocolError, TruncatedError
from llama._core.shutdown import Shutdown, detached_task
from llama._core.stream import NonblockingStream, Stream
from llama.http._client_settings import ClientSettings
from llama.http._h1.client_writer import (
    COALESCE_LIMIT,
    RequestBodySender,
    WriteTimedOut,
    encode_head,
    write_with_timeout,
)
from llama.http._h1.extended_connect import NotSwitched, check_accept_key, to_h1_upgrade
from llama.http._h1.response_body import ResponseBody
from llama.http._h1.wire.body import decoder
from llama.http._h1.wire.fields import HeadBuffer
from llama.http._h1.wire.framing import CHUNKED, UNTIL_CLOSE
from llama.http._h1.wire.head import ResponseHead, parse_response
from llama.http._messages.body import EMPTY, Body, BytesBody
from llama.http._messages.message import Request, Response
from llama.http._messages.origin import Origin
from llama.http._messages.upgrade import UpgradedConnection
from llama.layers._shared_timeout import SharedTimeout

MAX_INFORMATIONAL = 32  # the maximum number of informational responses to one request
EXPECT_CONTINUE_TIMEOUT = 1.0  # seconds to wait for 100 (Continue) before the body is sent without it
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_new = Response.__new__


class NoResponseError(TruncatedError):
    """The connection ended before a byte of the response came."""


def _is_requested(protocol: str, request: Request) -> bool:
    return bool(request.upgrade_protocol) and protocol in request.upgrade_protocol.split(", ")


async def _arrival(body: Body) -> None:
    """Wait until part of the body has arrived or its source has failed; reading the body raises that error again."""
    with suppress(LlamaError, OSError):
        await body.wait_for_data()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    if running := [each for each in tasks if not each.done()]:
        for each in running:
            each.cancel()
        await asyncio.wait(running)


class ClientTimeouts:
    """The deadlines shared by all connections of a client."""

    __slots__ = ("body", "head", "write")

    def __init__(self, settings: ClientSettings) -> None:
        self.head = (
            None
            if settings.response_header_timeout is None
            else SharedTimeout(settings.response_header_timeout)
        )
        self.body = None if settings.body_timeout is None else SharedTimeout(settings.body_timeout)
        self.write = None if settings.write_timeout is None else SharedTimeout(settings.write_timeout)


class H1Client:
    """A connection to an origin with one exchange at a time. It owns its stream.

    It calls `on_available` when it can be reused for another request, and `on_closed` when it has ended.
    """

    __slots__ = (
        "_buffer",
        "_may_keep_alive",
        "_ready",
        "_response_started",
        "_rest",
        "_settings",
        "_tasks",
        "_timers",
        "_upload",
        "_upload_task",
        "origin",
        "reused",
        "stream",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        origin: Origin,
        settings: ClientSettings,
        timers: ClientTimeouts,
        tasks: Shutdown,
    ) -> None:
        self.stream = stream
        self.origin = origin
        self.reused = False
        """Whether it has completed an exchange before."""
        self._ready = stream if isinstance(stream, NonblockingStream) else None
        self._settings = settings
        self._timers = timers
        self._tasks = tasks
        self._buffer = HeadBuffer(settings.limits)
        self._rest = b""
        self._response_started = False
        self._may_keep_alive = False
        self._upload: RequestBodySender | None = None
        self._upload_task: asyncio.Task[None] | None = None

    def on_available(self) -> None:
        """Handle that the connection can be reused; the default discards it."""
        self.discard()

    def on_closed(self) -> None:
        """Handle that the connection has ended; the default does nothing."""

    def is_reusable(self) -> bool:
        """Whether an idle connection can be reused: the server has sent neither bytes nor its end."""
        if self._ready is None:
            return True
        try:
            return self._ready.read_nowait(1) is None
        except (LlamaError, OSError):
            return False

    def discard(self) -> None:
        """Abort the connection immediately."""
        if self._upload_task is not None:
            self._upload_task.cancel()
        self.stream.abort()
        self.on_closed()

    async def discard_and_wait(self) -> None:
        """Abort the connection, and wait until the task that reads the request's body has ended."""
        self.discard()
        await self._end_upload()

    async def _end_upload(self) -> None:
        task, self._upload_task = self._upload_task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait((task,))

    # the exchange

    async def send(self, request: Request) -> Response:
        """Send a request and return its response, whose body may still be arriving.

        Raises NoResponseError if the connection ends before the first byte of the response, and errors of the
        request's body.
        """
        if request.upgrade_protocol and request.method == "CONNECT":
            return await self._extended(request)
        self._response_started = False
        self._may_keep_alive = True
        self._upload = None
        try:
            raw, framing = encode_head(request, self.origin)
        except BaseException:
            self.on_available()
            raise
        try:
            if framing or self._timers.head is not None:
                head = await self._exchange(request, raw, framing)
            else:  # most requests: no body, no timeout
                if not self._write_soon(request, raw):
                    await self._write(raw)
                head = await self._next_head(request)
                if head.status < 200 and head.status != 101:
                    head = await self._final_response(request, head)
            return (
                self._response(request, head)
                if self._upload is None
                else await self._on_response_head(request, head)
            )
        except BaseException as error:
            await self.discard_and_wait()
            cause = self._translate_error(error)
            if cause is error:
                raise
            try:
                raise cause from error
            finally:
                del (
                    cause
                )  # breaks the cycle of frame and traceback, which only the garbage collector would free

    async def _extended(self, request: Request) -> Response:
        """Send an extended CONNECT as an HTTP/1.1 Upgrade."""
        asking = to_h1_upgrade(request)
        response = await self.send(asking)
        if (
            response.upgrade is None and response.status < 300
        ):  # to an extended CONNECT it would open a tunnel
            await response.aclose()
            raise NotSwitched(
                f"{self.origin} answered {response.status} and did not switch protocols to {request.upgrade_protocol}",
                status=502,
            )
        if response.upgrade is not None:
            try:
                check_accept_key(asking, response.headers)
            except ProtocolError:
                await response.aclose()
                raise
        return response

    def _translate_error(self, error: BaseException) -> BaseException:
        """Return the error to raise for an error of the connection: that of the request's body, if it failed first."""
        if self._upload is not None and self._upload.error is not None:
            return self._upload.error
        if isinstance(error, TruncatedError) and not self._response_started:
            return error if isinstance(error, NoResponseError) else NoResponseError(*error.args)
        if not isinstance(error, OSError) or isinstance(error, LlamaError):
            return error
        if isinstance(error, TimeoutError) and error.errno is None:
            return error
        kind = TruncatedError if self._response_started else NoResponseError
        return kind(f"the connection to {self.origin} failed before the response: {error.strerror or error}")

    async def _exchange(self, request: Request, raw: bytes, framing: int) -> ResponseHead:
        data = request._body.buffered
        if not framing:
            if not self._write_soon(request, raw):
                await self._write(raw)
        elif "expect" in request.headers.names and not (
            data is not None and request._connection_extensions is not None
        ):
            await self._write(raw)
            head = await self._continue(request)
            if head is not None and head.status >= 300:
                self._may_keep_alive = False  # the announced body is not sent
                return head
            self._start_upload(request, b"", framing)
            if head is not None:
                return head
        elif data is not None and framing == len(data) <= COALESCE_LIMIT:
            whole = raw + data
            if not self._write_soon(request, whole):
                await self._write(whole)
        else:
            part = request._body.read_chunk_nowait()
            if request._body.ended and framing == len(
                part
            ):  # it arrived with its head: send both in one write
                whole = raw + part
                if not self._write_soon(request, whole):
                    await self._write(whole)
            else:
                self._start_upload(request, raw, framing, part)
        if self._timers.head is not None:
            return await self._final_response_with_timeout(request, self._timers.head)
        return await self._final_response(request)

    def _write_soon(self, request: Request, data: bytes) -> bool:
        """Queue data to send it with other data of this loop iteration; False if it must be written.

        Requests for an upgrade are written: none of their bytes may remain queued when the protocol switches.
        """
        return (
            not request.upgrade_protocol and request.method != "CONNECT" and self.stream.write_buffered(data)
        )

    async def _write(self, data: bytes) -> None:
        try:
            if self._timers.write is None:
                await self.stream.write(data)
            else:
                await write_with_timeout(self.stream, data, self._timers.write)
        except WriteTimedOut as error:
            raise self._timeout_error(error) from None
        except OSError:  # the server may have sent a response before it stopped reading
            self._may_keep_alive = False

    def _timeout_error(self, error: WriteTimedOut) -> TimeoutError:
        return TimeoutError(f"{self.origin} accepted no request data for {self._settings.write_timeout} s")

    def _start_upload(self, request: Request, raw: bytes, framing: int, part: bytes = b"") -> None:
        self._upload = upload = RequestBodySender(
            self.stream, request, framing, self.stream.abort, self._timers.write, self._timeout_error
        )
        self._upload_task = self._tasks.spawn(upload.run(raw, part), name="send an HTTP body")

    async def _continue(self, request: Request) -> ResponseHead | None:
        """Wait until the body can be sent: for 100 (Continue), for data from its source, or for the timeout.

        Returns the head of a final response that arrives instead, else None.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + EXPECT_CONTINUE_TIMEOUT
        arrival = detached_task(_arrival(request._body))
        try:
            while (head := await self._head_before(request, arrival, deadline - loop.time())) is not None:
                if head.status >= 200 or head.status == 101:
                    return head
                if head.status == 100:
                    await request.send_informational(100)
                    return None
                await request.send_informational(head.status, head.headers)
        finally:
            await _cancel(arrival)  # a body has one reader at a time
        return None

    async def _head_before(
        self, request: Request, arrival: asyncio.Task[None], seconds: float
    ) -> ResponseHead | None:
        """Return the next head; None once part of the request's body has arrived, or after `seconds`.

        This cancels only the wait for a head, never an informational response that is being forwarded.
        """
        reading = detached_task(self._next_head(request))
        try:
            await asyncio.wait((reading, arrival), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(reading)
        return None if reading.cancelled() else reading.result()

    async def _final_response_with_timeout(self, request: Request, deadlines: SharedTimeout) -> ResponseHead:
        while True:
            upload = self._upload
            before = upload.progress if upload is not None else None
            call = deadlines.enter()
            try:
                return await self._final_response(request)
            except asyncio.CancelledError:
                if not call.consume_cancellation():
                    raise
                if upload is None or (upload.progress == before and not upload.awaits_body):
                    seconds = self._settings.response_header_timeout
                    raise TimeoutError(f"no response from {self.origin} within {seconds} s") from None
            finally:
                deadlines.exit(call)

    async def _final_response(self, request: Request, head: ResponseHead | None = None) -> ResponseHead:
        for _ in range(MAX_INFORMATIONAL):
            if head is None:
                head = await self._next_head(request)
            if head.status >= 200 or head.status == 101:
                return head
            if head.status != 100 or "expect" in request.headers.names:
                await request.send_informational(head.status, head.headers)
            head = None
        raise ProtocolError(f"more than {MAX_INFORMATIONAL} informational responses", status=502)

    async def _next_head(self, request: Request) -> ResponseHead:
        data, self._rest = self._rest, b""
        try:
            while True:
                if not data and not (data := await self.stream.read()):
                    raise self._on_eof()
                self._response_started = True
                if (found := self._buffer.feed(data)) is not None:
                    break
                data = b""
        except ProtocolError as error:
            raise ProtocolError(f"in a response: {error}", status=502) from None
        raw, self._rest = found
        head = parse_response(raw, request.method, self._settings.limits)
        if head.status < 200 and not head.keep_alive:
            self._may_keep_alive = False
        return head

    def _on_eof(self) -> TruncatedError:
        kind = TruncatedError if self._response_started else NoResponseError
        return kind(f"{self.origin} closed the connection before the response")

    # response

    async def _on_response_head(self, request: Request, head: ResponseHead) -> Response:
        """Return the response to a request whose body may still be being sent."""
        task = self._upload_task
        if head.status == 101 and task is not None and _is_requested(head.upgrade_protocol, request):
            await asyncio.wait(
                (task,)
            )  # the request ends before the other protocol begins (RFC 9110 section 7.8)
        response = self._response(request, head)
        if response.upgrade is None and not isinstance(response._body, ResponseBody):
            await self.body_ended(self._rest)
        return response

    def _response(self, request: Request, head: ResponseHead) -> Response:
        response = _new(Response)
        response.status = status = head.status
        response.reason = "" if head.reason == _PHRASES.get(status) else head.reason
        response.headers = head.headers
        response.version = head.version
        response.upgrade = None
        response._trailers = response._extensions = response._on_close = None
        if status == 101 or (request.method == "CONNECT" and status < 300):
            response._body = EMPTY
            self._switch(request, head, response)
            return response
        self._may_keep_alive = self._may_keep_alive and head.keep_alive
        length = head.length
        if not length:
            response._body = EMPTY
        elif length == len(self._rest):
            response._body = BytesBody(self._rest)
            self._rest = b""
        else:
            response._body = EMPTY  # the next line may raise
            response._body = body = self._body(length)
            if isinstance(body, ResponseBody):
                return response
        if self._upload is None:
            self._free()
        return response

    def _body(self, length: int) -> Body:
        data, self._rest = self._rest, b""
        taken = decoder(length, self._settings.limits)
        try:
            part = taken.feed(data) if data else b""
        except ProtocolError as error:
            raise ProtocolError(f"in a response: {error}", status=502) from None
        if taken.done and taken.trailers is None:
            self._rest = taken.rest
            return BytesBody(part)
        return ResponseBody(self, taken, None if length in (CHUNKED, UNTIL_CLOSE) else length, part)

    async def body_ended(self, rest: bytes) -> None:
        """Reuse or discard the connection after the end of the response; `rest` is the data after it."""
        self._rest = rest
        upload = self._upload
        if upload is not None:
            try:
                await self._end_upload()
            except BaseException:  # cancelled: no other code would discard the connection
                self.discard()
                raise
            if not upload.complete:
                self._may_keep_alive = False
        self._free()

    def _free(self) -> None:
        """End the exchange: free the connection, or discard it if unrequested bytes follow the response."""
        if self._may_keep_alive and not self._rest:
            self.reused = True
            self.on_available()
        else:
            self.discard()

    async def read_body(self) -> bytes:
        """Return the next bytes of the response."""
        try:
            if self._timers.body is None:
                return await self.stream.read()
            return await self._read_in_time(self._timers.body)
        except OSError as error:
            if self._upload is not None and self._upload.error is not None:
                raise self._upload.error from None
            if isinstance(error, LlamaError) or (isinstance(error, TimeoutError) and error.errno is None):
                raise
            reason = error.strerror or error
            raise TruncatedError(f"the connection to {self.origin} failed within a body: {reason}") from error

    async def _read_in_time(self, deadlines: SharedTimeout) -> bytes:
        call = deadlines.enter()
        try:
            return await self.stream.read()
        except asyncio.CancelledError:
            if not call.consume_cancellation():
                raise
            seconds = self._settings.body_timeout
            raise TimeoutError(f"no body data from {self.origin} for {seconds} s") from None
        finally:
            deadlines.exit(call)

    def _switch(self, request: Request, head: ResponseHead, response: Response) -> None:
        """Hand the stream over to `response.upgrade`: the server has switched protocols."""
        if head.status == 101 and not _is_requested(head.upgrade_protocol, request):
            raise ProtocolError(
                f"{self.origin} switched to {head.upgrade_protocol!r}, which was not requested", status=502
            )
        if self._upload is not None and not self._upload.complete:
            raise ProtocolError(
                f"{self.origin} switched protocols before the end of the request's body", status=502
            )
        if self._rest:
            self.stream.unread(self._rest)
            self._rest = b""
        response.upgrade = upgrade = UpgradedConnection(self.stream, self.origin.target, gone=self.on_closed)
        response.on_close(upgrade.abort)

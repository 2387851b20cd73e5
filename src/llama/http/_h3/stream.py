"""One HTTP/3 request stream: a buffer of received bytes, and a sending side with backpressure."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from typing import Protocol

from llama._core.errors import ProtocolError, StreamClosedError, TruncatedError
from llama.http._h3.fields import Fields
from llama.http._messages.body import Body
from llama.http._messages.headers import Headers

WRITE_SLICE = 65536
SEND_HIGH_WATER = 262_144  # bytes of one stream that may be buffered before its writer waits


class StreamTransport(Protocol):
    """The connection that a channel belongs to."""

    def send_fields(self, number: int, fields: Fields, *, end: bool) -> None:
        """Send a field section."""
        ...

    def send_data(self, number: int, data: bytes | memoryview, *, end: bool) -> None:
        """Send a chunk of the body, which is copied."""
        ...

    def waiting_to_leave(self, number: int) -> int:
        """Return the number of buffered bytes of this stream that were not sent yet."""
        ...

    def consumed(self, size: int) -> None:
        """`size` received bytes were read."""
        ...

    def stop(self, number: int, code: int, *, sending: bool, reading: bool) -> None:
        """Reset the sending direction, stop the reading direction, or both."""
        ...

    def flush(self) -> None:
        """Send now as many buffered bytes as flow and congestion control allow."""
        ...

    def wait_for_room(self, channel: H3Stream) -> asyncio.Future[None]:
        """Return a future that is set when enough of the stream's buffered bytes were sent."""
        ...

    def forget(self, channel: H3Stream) -> None:
        """The channel is no longer used."""
        ...


class H3Stream:
    """Both directions of one stream. One task may read while another writes."""

    __slots__ = (
        "_parts",
        "_reader",
        "carrier",
        "closed",
        "declared",
        "ended",
        "error",
        "fields",
        "informed",
        "number",
        "received",
        "rejected",
        "sent_end",
        "stopped",
        "task",
        "trailers",
        "unread",
    )

    def __init__(self, carrier: StreamTransport, number: int) -> None:
        self.carrier = carrier
        self.number = number
        self.fields: Fields | None = None
        """The received head, once it has arrived."""
        self.informed: deque[Fields] = deque(maxlen=16)
        """Received interim responses that were not processed yet."""
        self.trailers: Headers | None = None
        self.declared: int | None = None
        """The Content-Length of the received head."""
        self.received = 0
        self.rejected = False
        """Whether the server rejected the request without processing it (H3_REQUEST_REJECTED)."""
        self.unread = 0
        self.ended = False
        self.sent_end = self.closed = False
        self.stopped = False
        """Whether the peer has sent STOP_SENDING."""
        self.error: Exception | None = None
        self.task: asyncio.Task[None] | None = None
        """The task that responds on this channel."""
        self._parts: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None

    # receiving

    def feed(self, data: bytes, *, ended: bool) -> None:
        """Add received bytes of the body, or mark its end."""
        self.received += len(data)
        if (error := self._length_error(ended)) is not None:
            self.fail(error)
            self.abort(H3_MESSAGE_ERROR)
            return
        if data:
            self._parts.append(data)
            self.unread += len(data)
        self.ended = self.ended or ended
        self._wake()

    def declare(self, length: int | None) -> None:
        """Set the length of a response's body. Raises ProtocolError (502) if the received bytes contradict it."""
        self.declared = length
        if (error := self._length_error(self.ended)) is not None:
            error.status = 502
            self.abort(H3_MESSAGE_ERROR)
            raise error

    def _length_error(self, ended: bool) -> ProtocolError | None:
        length, received = self.declared, self.received
        if length is None or not (received > length or (ended and received < length)):
            return None
        return ProtocolError(f"the body does not have the {length} bytes it declared")

    def fail(self, error: Exception) -> None:
        """Fail the stream: pending and further reads and writes raise `error`."""
        if self.error is None:
            self.error = error
            if not self.ended:  # a complete body stays readable
                self.drop()
        self._wake()

    def drop(self) -> None:
        """Discard the received bytes that were not read."""
        self.carrier.consumed(self.unread)
        self._parts.clear()
        self.unread = 0

    def head(self, fields: Fields) -> None:
        """Store the received head."""
        self.fields = fields
        self._wake()

    def on_informational(self, fields: Fields) -> None:
        """Store a received interim response."""
        self.informed.append(fields)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def wait(self) -> None:
        """Wait until something is received."""
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def read_nowait(self, limit: int = WRITE_SLICE) -> bytes:
        """Return buffered bytes, or b"" if there are none."""
        if not self._parts:
            return b""
        part = self._parts.popleft()
        if len(part) > limit:
            self._parts.appendleft(part[limit:])
            part = part[:limit]
        self.unread -= len(part)
        self.carrier.consumed(len(part))
        return part

    async def read(self, limit: int = WRITE_SLICE) -> bytes:
        """Return the next bytes of the body, b"" at its end. Raises the stream's error."""
        while True:
            if part := self.read_nowait(limit):
                return part
            if self.ended:
                return b""
            if self.error is not None:
                raise self.error
            await self.wait()

    # sending

    def _check(self) -> None:
        if self.error is not None:
            raise self.error
        if self.stopped:
            raise BrokenPipeError(errno.EPIPE, "the peer accepts no more bytes on this stream")
        if self.sent_end:
            raise StreamClosedError("this stream's sending side was ended")

    def send_fields(self, fields: Fields, *, end: bool = False) -> None:
        """Send a head, or trailers."""
        self._check()
        self.sent_end = end
        self.carrier.send_fields(self.number, fields, end=end)

    async def send(self, data: bytes | memoryview, *, end: bool = False) -> None:
        """Send bytes of the body. Returns once at most SEND_HIGH_WATER bytes of the stream are buffered."""
        self._check()
        view = memoryview(data)
        for start in range(0, len(view), WRITE_SLICE) or (0,):
            piece = view[start : start + WRITE_SLICE]
            last = end and start + WRITE_SLICE >= len(view)
            self.sent_end = last
            self.carrier.send_data(self.number, piece, end=last)
            while self.carrier.waiting_to_leave(self.number) > SEND_HIGH_WATER:
                await self.carrier.wait_for_room(self)
                if self.error is not None or self.stopped:
                    self._check()

    def end(self) -> None:
        """End the sending side after the buffered bytes."""
        if self.error is None and not (self.sent_end or self.stopped):
            self.sent_end = True
            self.carrier.send_data(self.number, b"", end=True)

    # the end

    def abort(self, code: int) -> None:
        """Reset the directions that have not ended."""
        sending, reading = not self.sent_end, not self.ended
        self.sent_end = True
        if sending or reading:
            self.carrier.stop(self.number, code, sending=sending, reading=reading)

    def close(self, code: int) -> None:
        """Close the channel; reset the directions that are incomplete. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.abort(code)
        self.fail(StreamClosedError("the exchange of this channel has ended"))
        self.drop()
        self.carrier.forget(self)


H3_NO_ERROR = 0x100
H3_INTERNAL_ERROR = 0x102
H3_EXCESSIVE_LOAD = 0x107
H3_REQUEST_REJECTED = 0x10B
H3_REQUEST_CANCELLED = 0x10C
H3_MESSAGE_ERROR = 0x10E
H3_CONNECT_ERROR = 0x10F


class BodyOwner(Protocol):
    """An exchange that ends with its response's body."""

    def close(self, code: int) -> None:
        """Reset the directions that have not ended."""
        ...


class H3Body(Body):
    """A body read from a channel."""

    __slots__ = ("_channel", "_owner", "_timeout", "_wanted")

    def __init__(
        self,
        channel: H3Stream,
        timeout: float | None,
        owner: BodyOwner | None = None,
        wanted: Callable[[], None] | None = None,
    ) -> None:
        """`timeout` limits the wait for each chunk; `owner` is closed with the body.

        `wanted` is called when a read has to wait for bytes.
        """
        super().__init__(channel.declared)
        self._channel = channel
        self._timeout = timeout
        self._owner = owner
        self._wanted = wanted

    def __del__(self) -> None:
        if self._owner is not None:
            self._release()

    @property
    def trailers(self) -> Headers | None:
        return self._channel.trailers

    def read_chunk_nowait(self) -> bytes:
        return self._channel.read_nowait()

    async def read_chunk(self) -> bytes:
        if self.ended:
            return b""
        if self._wanted is not None and not (self._channel.unread or self._channel.ended):
            self._wanted()
        if self._timeout is None:
            part = await self._channel.read()
        else:
            try:
                async with asyncio.timeout(self._timeout):
                    part = await self._channel.read()
            except TimeoutError:
                text = f"no body bytes from the peer for {self._timeout:g} seconds"
                raise (
                    TimeoutError(text) if self._owner is not None else ProtocolError(text, status=408)
                ) from None
        if not part:
            self.ended = True
            self._release()
        return part

    async def wait_for_data(self) -> None:
        channel = self._channel
        if not channel.unread and not channel.ended and channel.error is None:
            await channel.wait()

    async def aclose(self) -> None:
        self.ended = True
        self._release()

    def _release(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.close(H3_REQUEST_CANCELLED)


def reset_error(code: int) -> TruncatedError:
    """Return the error of a stream that was reset, or whose connection was closed."""
    return TruncatedError(f"the stream was reset (error {code:#x})")

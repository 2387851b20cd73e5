"""An open WebSocket, for servers and clients."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterable

from llama._core.errors import (
    LlamaError,
    ProtocolError,
    StreamBusyError,
    StreamClosedError,
    TooLargeError,
    TruncatedError,
)
from llama._core.extensions import Extensions
from llama._core.shutdown import detached_task
from llama._core.stack import register_input_type
from llama._core.stream import Buffer, Stream
from llama.http import Request, Response
from llama.ws._framed_endpoint import CLOSE_TIMEOUT, FramedEndpoint
from llama.ws._settings import Settings
from llama.ws._wire import (
    ABNORMAL,
    GOING_AWAY,
    MESSAGE_TOO_BIG,
    NO_STATUS,
    NORMAL,
    Close,
    Event,
    Failure,
    Frames,
    Ping,
    Pong,
)

QUEUE = 16
"""Received messages to buffer before reading pauses."""
QUEUE_BYTES = 65536
_ORDERLY = frozenset({NORMAL, GOING_AWAY, NO_STATUS})


@register_input_type
class WebSocket:
    """An open WebSocket: iterate over its messages with `async for`, `send` messages, `close` it.

    Text is `str`, binary is `bytes`. Pings and closes are answered even while no task receives. One task may
    receive, any number may send. Iteration ends when the peer closes with 1000, 1001 or no code, and when this
    side closes; otherwise it raises the errors of `receive`.
    """

    __slots__ = (
        "_closing", "_end", "_ended", "_error", "_pings", "_queue", "_queued", "_reader", "_receiver", "_room",
        "_settings", "close_code", "close_reason", "request", "response", "subprotocol",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        frames: Frames,
        settings: Settings,
        request: Request,
        response: Response,
        subprotocol: str | None,
    ) -> None:
        self.request = request
        """The request that opened it."""
        self.response = response
        """The response that accepted it."""
        self.subprotocol = subprotocol
        """The negotiated subprotocol, or None."""
        self.close_code: int | None = None
        """The code of the peer's close: 1005 if it had none, 1006 if the peer disconnected without a close,
        None while open. After a protocol error of the peer, the code that this side closed with."""
        self.close_reason = ""
        self._end = FramedEndpoint(stream, frames)
        self._settings = settings
        self._queue: deque[str | bytes] = deque()
        self._queued = 0
        self._closing = False  # by this side
        self._ended = False
        self._error: Exception | None = None
        self._pings: dict[bytes, asyncio.Future[None]] = {}
        self._receiver: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._reader = detached_task(self._read())

    def __repr__(self) -> str:
        return f"<WebSocket {self.request.path or '/'} {self._end.stream!r}>"

    @property
    def extensions(self) -> Extensions:
        """The extensions of the request."""
        return self.request.extensions

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: neither side has closed yet."""
        return not self._ended and self._end.close_sent is None

    # receiving

    async def receive(self) -> str | bytes:
        """Return the next message.

        When none is left, raises StreamClosedError once either side has closed, TruncatedError if the peer
        disconnected without a close, ProtocolError or TooLargeError if it violated the protocol or the limit,
        TimeoutError or OSError if the connection failed. Raises StreamBusyError while another task receives. A
        cancelled receive loses no message.
        """
        while not self._queue:
            if self._ended:
                raise self._reason()
            if self._receiver is not None:
                raise StreamBusyError(f"{self!r} is receiving already: one task receives at a time")
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        data = self._queue.popleft()
        self._queued -= len(data)
        if self._room is not None and not self._is_full():
            _wake(self._room)
        return data

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except StreamClosedError:
            if self._closing or self.close_code in _ORDERLY:
                raise StopAsyncIteration from None
            raise

    def _reason(self) -> Exception:
        """Return the error that ended the messages; a new one each time, because each has its own traceback."""
        error = self._error
        if error is None and self._closing:
            return StreamClosedError(f"{self!r} was closed with {self._end.close_sent}")
        if error is None:
            why = f"{self.close_code} {self.close_reason}".rstrip()
            return StreamClosedError(f"{self!r}: the peer closed it with {why}")
        return error.with_traceback(None)

    # sending

    async def send(self, data: str | Buffer) -> None:
        """Send a message: a `str` as text, bytes as binary. Returns when the transport accepted it.

        Raises StreamClosedError when either side has closed, OSError when the connection broke.
        """
        if not self.is_open:
            raise StreamClosedError(f"{self!r} takes no more messages: {self._reason()}")
        await self._end.send(data)

    async def ping(self) -> float:
        """Send a ping, wait for its pong, and return the round-trip time in seconds. Raises the errors of `receive`."""
        if not self.is_open:
            raise self._reason()
        data = next(_numbers).to_bytes(8, "big")
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pings[data] = pong
        began = time.perf_counter()
        try:
            self._end.put_ping(data)
            await self._end.flush()
            await pong
            if data in self._pings:  # the connection ended first
                raise self._reason()
        finally:
            self._pings.pop(data, None)
        return time.perf_counter() - began

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close it and wait at most one second for the peer's close. Idempotent.

        Raises ValueError for a code that cannot be sent (RFC 6455 section 7.4), or a reason of more than 123 bytes.
        """
        self._end.put_close(code, reason)
        self._closing = self._closing or not self._ended
        _wake(self._room)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._end.flush()
                await asyncio.wait((self._reader,))
        except TimeoutError:
            self._over(None)
            self._reader.cancel()
        except (OSError, LlamaError) as error:
            self._over(error)

    async def wait_closed(self) -> None:
        """Wait until reading has ended: at most one second after either side has closed."""
        await asyncio.wait((self._reader,))

    async def aclose(self) -> None:
        """Stop using the stream, which the creator owns; sends nothing."""
        self._reader.cancel()
        await asyncio.wait((self._reader,))

    # the reading task

    async def _read(self) -> None:
        try:
            while data := await self._next():
                for events in self._end.feed(data):
                    self._take(events)
                    if self._end.waiting:
                        await self._end.flush()
                    while self._is_full():
                        await self._wait_for_room()
                if self._ended:
                    await self._linger()
                    return
            self._over(TruncatedError(f"{self!r}: the peer disconnected without a close frame"))
        except (OSError, LlamaError) as error:
            self._over(error)
        except asyncio.CancelledError:
            self._over(StreamClosedError(f"{self!r} is closed"))
            raise

    async def _linger(self) -> None:
        """Handle a close by either side. The server ends the connection, after a client could read its close frame."""
        if not self._end.frames.is_client:
            if self._error is None:
                return
            await self._end.stream.write_eof()
        async with asyncio.timeout(CLOSE_TIMEOUT):
            while await self._end.read():
                pass

    async def _next(self) -> bytes:
        interval = self._settings.ping_interval
        if interval is None:
            return await self._end.read()
        clock = asyncio.timeout(interval)
        try:
            async with clock:
                return await self._end.read()
        except TimeoutError:
            if not clock.expired():
                raise
        return await self._probe(self._settings.ping_timeout or interval)

    async def _probe(self, seconds: float) -> bytes:
        """Ping an idle peer, and fail the connection if it does not respond."""
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                self._end.put_ping(b"")
                await self._end.flush()
                return await self._end.read()
        except TimeoutError:
            if not clock.expired():
                raise
            self._end.stream.abort()
            raise TimeoutError(f"{self!r}: no answer to a ping within {seconds:g} s") from None

    def _take(self, events: Iterable[Event]) -> None:
        ping: bytes | None = None
        for event in events:
            if isinstance(event, str | bytes):
                if self._end.close_sent is None:
                    self._queue.append(event)
                    self._queued += len(event)
                    _wake(self._receiver)
            elif isinstance(event, Ping):
                ping = event.data
            elif isinstance(event, Pong):
                self._note_pong(event.data)
            else:
                self._answer_ping(ping)
                self._note_end(event)
                return
        self._answer_ping(ping)

    def _answer_ping(self, data: bytes | None) -> None:
        if data is not None:  # of several the last one is answered (RFC 6455 section 5.5.3)
            self._end.put_pong(data)

    def _note_pong(self, data: bytes) -> None:
        if data in self._pings:
            for sent in list(self._pings):
                _wake(self._pings.pop(sent))
                if sent == data:
                    break

    def _note_end(self, event: Close | Failure) -> None:
        if self._ended:
            return
        self.close_code, self.close_reason = event.code, event.reason
        if isinstance(event, Close):
            self._end.put_close(event.code)
            self._over(None)
            return
        self._end.put_close(event.code, event.reason)
        kind = TooLargeError if event.code == MESSAGE_TOO_BIG else ProtocolError
        self._over(kind(f"{self!r}: {event.reason}"))

    def _over(self, error: Exception | None) -> None:
        """Note that no more messages will arrive."""
        if self._ended:
            return
        self._ended = True
        if not self._closing:  # errors of the peer no longer matter here
            self._error = error
        if self.close_code is None:
            self.close_code = ABNORMAL
        _wake(self._receiver)
        _wake(self._room)
        for pong in self._pings.values():
            _wake(pong)

    def _is_full(self) -> bool:
        full = len(self._queue) >= QUEUE or self._queued > QUEUE_BYTES
        return full and not self._ended and self._end.close_sent is None

    async def _wait_for_room(self) -> None:
        self._room = asyncio.get_running_loop().create_future()
        try:
            await self._room
        finally:
            self._room = None


_numbers = itertools.count(1)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

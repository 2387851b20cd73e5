"""One end of a WebSocket: a stream, its frames, and its output buffer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from llama._core.errors import StreamClosedError
from llama._core.stream import DEFAULT_READ_SIZE, Stream
from llama.ws._wire import Close, Event, Frames, Payload

CLOSE_TIMEOUT = 1.0
"""Seconds to wait for the peer's close frame."""
HIGH_WATER = 65536
"""High-water mark of the output buffer, in bytes: writers wait above it."""
_SLICE = 4096  # compressed bytes inflated at a time, so that the caller can stop in between


class FramedEndpoint:
    """Frames over a stream, which the caller owns. One task reads; any number may write whole messages."""

    __slots__ = ("_lock", "_out", "_size", "close_sent", "frames", "stream")

    def __init__(self, stream: Stream, frames: Frames) -> None:
        self.stream = stream
        self.frames = frames
        self.close_sent: int | None = None
        """The code of this side's close frame."""
        self._out: list[bytes] = []
        self._size = 0
        self._lock = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Bytes in the output buffer whose write has not begun."""
        return self._size

    async def read(self) -> bytes:
        """Read bytes for `feed`; b"" at the end of the stream."""
        return await self.stream.read(DEFAULT_READ_SIZE)

    def feed(self, data: bytes) -> Iterable[list[Event]]:
        """Yield the events of these bytes in bounded portions: a few compressed bytes may inflate to many."""
        feed = self.frames.feed
        if len(data) <= _SLICE or not self.frames.is_compressed:
            return (feed(data),)
        return (feed(data[at : at + _SLICE]) for at in range(0, len(data), _SLICE))

    async def send(self, data: str | Payload) -> None:
        """Send a message and wait until the transport accepted it. Raises StreamClosedError if this side has closed."""
        while self._size > HIGH_WATER:
            await self.flush()
        if self.close_sent is not None:
            raise StreamClosedError(
                f"{self.stream!r} takes no more messages: it was closed with {self.close_sent}"
            )
        self.put_message(data)
        await self.flush()

    def put_message(self, data: str | Payload) -> None:
        """Buffer a message for the next `flush`; does nothing after this side has closed."""
        if self.close_sent is None:
            self._put(self.frames.message(data))

    def put_ping(self, data: bytes) -> None:
        """Buffer a ping, as `put_message` does."""
        if self.close_sent is None:
            self._put(self.frames.ping(data))

    def put_pong(self, data: bytes) -> None:
        """Buffer a pong, as `put_message` does."""
        if self.close_sent is None:
            self._put(self.frames.pong(data))

    def put_close(self, code: int, reason: str = "") -> None:
        """Buffer the close frame, as `put_message` does; it is sent once."""
        if self.close_sent is None:
            self._put(self.frames.close(code, reason))
            self.close_sent = code

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._size += len(data)

    async def flush(self) -> None:
        """Write the buffered frames in order.

        A cancelled flush keeps the frames whose write has not begun for the next flush: with context takeover,
        a lost deflated message would corrupt the messages after it.
        """
        async with self._lock:
            if not self._out:
                return
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out = []
            self._size = 0
            try:
                await self.stream.write(data)
            except BaseException:  # once a write has begun, the stream accepts no more
                self._out.insert(0, data)
                self._size += len(data)
                raise

    async def finish(self) -> None:
        """Flush, then read until the peer has closed."""
        await self.flush()
        if self.frames.over and not self.frames.is_client:
            await self.stream.write_eof()
        while data := await self.read():
            if self._closes(data):
                return

    def _closes(self, data: bytes) -> bool:
        """Return whether these bytes contain the peer's close frame."""
        return any(isinstance(event, Close) for events in self.feed(data) for event in events)

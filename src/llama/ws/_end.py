"""One end of a WebSocket: a stream, its frames, and what waits to be written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from llama._errors import Closed
from llama._stream import CHUNK, Stream
from llama.ws._wire import Close, Event, Frames, Payload

CLOSING = 1.0
"""Seconds that the other side may take to close."""
HIGH = 65536
"""Bytes that may wait to be written before whoever has more is made to wait."""
_SLICE = 4096  # compressed bytes that are inflated before somebody may say that it is enough


class End:
    """Frames over a stream, which stays its caller's. One reads; any number write, each message whole."""

    __slots__ = ("_lock", "_out", "_size", "close_sent", "frames", "stream")

    def __init__(self, stream: Stream, frames: Frames) -> None:
        self.stream = stream
        self.frames = frames
        self.close_sent: int | None = None
        """The code that this side has closed with."""
        self._out: list[bytes] = []
        self._size = 0
        self._lock = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Bytes that nobody has begun to write."""
        return self._size

    async def read(self) -> bytes:
        """Bytes for `feed`; b"" at the end."""
        return await self.stream.read(CHUNK)

    def feed(self, data: bytes) -> Iterable[list[Event]]:
        """The events of these bytes, in portions that are bounded though a few bytes may stand for many."""
        feed = self.frames.feed
        if len(data) <= _SLICE or not self.frames.is_compressed:
            return (feed(data),)
        return (feed(data[at : at + _SLICE]) for at in range(0, len(data), _SLICE))

    async def send(self, data: str | Payload) -> None:
        """Send a message; returns when the transport took it. Closed where this side has closed meanwhile."""
        while self._size > HIGH:
            await self.flush()
        if self.close_sent is not None:
            raise Closed(f"{self.stream!r} takes no more messages: it was closed with {self.close_sent}")
        self.put_message(data)
        await self.flush()

    def put_message(self, data: str | Payload) -> None:
        """Have a message written by the next `flush`; nothing after this side has closed."""
        if self.close_sent is None:
            self._put(self.frames.message(data))

    def put_ping(self, data: bytes) -> None:
        """The same for a ping."""
        if self.close_sent is None:
            self._put(self.frames.ping(data))

    def put_pong(self, data: bytes) -> None:
        """The same for a pong."""
        if self.close_sent is None:
            self._put(self.frames.pong(data))

    def put_close(self, code: int, reason: str = "") -> None:
        """The same for the close, which is sent once."""
        if self.close_sent is None:
            self._put(self.frames.close(code, reason))
            self.close_sent = code

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._size += len(data)

    async def flush(self) -> None:
        """Write what waits, in the order in which it was put.

        What a cancelled flush had not begun to write waits for the next one: a deflated message that went missing
        would spoil those that follow.
        """
        async with self._lock:
            if not self._out:
                return
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out = []
            self._size = 0
            try:
                await self.stream.write(data)
            except BaseException:  # where it had begun, the stream takes no more
                self._out.insert(0, data)
                self._size += len(data)
                raise

    async def finish(self) -> None:
        """Write what waits, and read until the other side has closed."""
        await self.flush()
        if self.frames.over and not self.frames.is_client:
            await self.stream.write_eof()
        while data := await self.read():
            if self._closes(data):
                return

    def _closes(self, data: bytes) -> bool:
        """Whether the other side's close is in these bytes."""
        return any(isinstance(event, Close) for events in self.feed(data) for event in events)

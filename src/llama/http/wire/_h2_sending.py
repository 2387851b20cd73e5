"""What one side of an HTTP/2 connection sends: the lower half of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from llama.http.wire import _h2_frames as frames
from llama.http.wire._h2_frames import FRAME_SIZE, WINDOW, H2Error
from llama.http.wire._h2_limits import Bucket, H2Limits
from llama.http.wire._h2_states import (
    CLOSED,
    IDLE,
    RESET_BY_US,
    SEND_DATA,
    SEND_HEADERS,
    STATE_NAMES,
)
from llama.http.wire._h2_stream import Events, Stream, StreamEvents
from llama.http.wire._hpack_encode import Encoder
from llama.http.wire._hpack_table import Field

REMEMBERED = 1024  # streams of which it is known how they were closed
LARGEST_FRAME = 65_536  # of what the peer may take, so that streams take turns
FIRST_STREAMS = 100  # streams at a time that are opened before the peer has said how many it takes
CONNECTION_WINDOW = 1 << 20
LARGEST_CONNECTION_WINDOW = 1 << 24


class Sending:
    """The sending half: streams, frames to send, and the room there is for them."""

    def __init__(
        self, events: Events, limits: H2Limits, *, client: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.events = events
        self.limits = limits
        self.client = client
        self.streams: dict[int, Stream] = {}
        """Those that are not closed."""
        self.highest = 0
        """The last stream that was opened."""
        self.failed = False
        """Whether the connection is over by an error."""
        self.send_window: int = WINDOW
        """Bytes of all bodies that may be sent."""
        self.max_frame = FRAME_SIZE
        self.max_streams = FIRST_STREAMS
        """How many streams the peer takes at a time."""
        self.extended_connect = False
        """Whether the peer takes an extended CONNECT (RFC 8441)."""
        self.pending = 0
        """Bytes that wait to be taken."""
        self.lingering = 0
        """Handlers that still run for streams that are closed: they count as streams."""
        self._out: list[bytes] = []
        self._encoder = Encoder()
        self._first_window = WINDOW
        self._past: dict[int, int] = {}
        self._replies = 0
        self._growth = limits.growth
        self._noise = Bucket(limits.noise, limits.noise_per_second, clock)
        self._oversized = Bucket(limits.oversized, limits.oversized_per_second, clock)
        self._cancelled = Bucket(limits.resets, limits.resets_per_second, clock)

    # bytes

    def take(self) -> bytes:
        """What is to be sent now."""
        out = self._out
        self.pending = self._replies = 0
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self.pending += len(data)

    def _reply(self, data: bytes) -> None:
        """Send what the peer's frame asks for; one that does not read it cannot ask for ever."""
        self._replies += 1
        if self._replies > self.limits.replies:
            raise H2Error(frames.ENHANCE_YOUR_CALM, f"{self._replies} answers wait to be read")
        self._put(data)

    # streams

    def open(
        self, events: StreamEvents, fields: list[Field], *, end: bool, is_bodiless: bool = False
    ) -> Stream:
        """Open a stream with the head of a request."""
        self.highest += 2 if self.highest else 1
        stream = Stream(self.highest, self._first_window, self.limits.window)
        stream.events = events
        stream.is_bodiless = is_bodiless
        self.streams[stream.id] = stream
        self.send_head(stream, fields, end=end)
        return stream

    def send_head(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """Send a head: of a request, of a response (informational ones too), or the trailers."""
        self._move(stream, SEND_HEADERS[end], "HEADERS")
        self._put(frames.header_frames(stream.id, self._encoder.encode(fields), self.max_frame, end=end))

    def room(self, stream: Stream) -> int:
        """How many bytes of a stream's body may be sent now; not above 0 when none may."""
        return min(stream.send_window, self.send_window)

    def send_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Send bytes of a body, not more than there is room for."""
        length = len(data)
        if length and (length > stream.send_window or length > self.send_window):
            raise ValueError(f"{length} bytes on {stream}, which has room for {self.room(stream)}")
        self._move(stream, SEND_DATA[end], "DATA")
        stream.send_window -= length
        self.send_window -= length
        noise = self._noise
        if noise.count:
            noise.count = max(0, noise.count - 4)  # it may be answered by a WINDOW_UPDATE or two, and a PING
        if length <= self.max_frame:
            self._out.append(frames.frame_head(length, frames.DATA, end, stream.id))
            self._out.append(data)
            self.pending += length + 9
            return
        for at in range(0, length, self.max_frame):
            part = data[at : at + self.max_frame]
            last = end and at + self.max_frame >= length
            self._put(frames.frame(frames.DATA, last, stream.id, part))

    def _move(self, stream: Stream, row: tuple[int, ...], what: str) -> None:
        state = row[stream.state]
        if state < 0:
            raise ValueError(f"{what} on {stream}, which is {STATE_NAMES[stream.state]}")
        stream.state = state
        if state == CLOSED:
            self._forget(stream, CLOSED)

    def reset(self, stream: Stream, code: int) -> None:
        """Break a stream off; one that is closed stays so."""
        if stream.state < CLOSED:
            idle = stream.state == IDLE
            self._forget(stream, RESET_BY_US)
            if not idle:
                self._put(frames.rst_stream(stream.id, code))

    def _forget(self, stream: Stream, how: int) -> None:
        stream.state = how
        self.streams.pop(stream.id, None)
        past = self._past
        past[stream.id] = how
        if len(past) > 2 * REMEMBERED:
            self._past = dict(islice(past.items(), REMEMBERED, None))
        self._growth += stream.size - self.limits.window

    # the connection

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life, with eight bytes that come back."""
        self._put(frames.frame(frames.PING, 0, 0, payload))

    def goaway(self, code: int, last: int, text: str = "") -> None:
        """Say that no stream beyond `last` is taken."""
        self._put(frames.goaway(last, code, text.encode(errors="replace")[:200]))

    def consumed(self, stream: Stream, count: int) -> None:
        """Bytes of a body were used, so that as many others may come."""
        stream.unreturned += count
        if stream.unreturned * 2 >= stream.size and stream.state < CLOSED:
            credit, stream.unreturned = stream.unreturned, 0
            more = min(stream.size, self.limits.max_window - stream.size, self._growth)
            if more > 0:
                self._growth -= more
                stream.size += more
                credit += more
            stream.window += credit
            self._put(frames.window_update(stream.id, credit))

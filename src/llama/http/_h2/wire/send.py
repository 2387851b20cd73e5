"""The sending half of one side of an HTTP/2 connection: the lowest layer of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import FRAME_SIZE, WINDOW, H2Error
from llama.http._h2.wire.hpack_encode import Encoder
from llama.http._h2.wire.hpack_table import Field
from llama.http._h2.wire.states import (
    CLOSED,
    IDLE,
    RESET_BY_US,
    SEND_DATA,
    SEND_HEADERS,
    STATE_NAMES,
)
from llama.http._h2.wire.stream import Events, Stream, StreamEvents
from llama.http._limits import H2Limits, TokenBucket

MAX_CLOSED_STREAMS = (
    1024  # closed streams whose way of closing is remembered, as it decides what late frames mean
)
MAX_FRAME_SIZE = 65_536  # upper bound on the peer's MAX_FRAME_SIZE, so that streams take turns
INITIAL_MAX_STREAMS = 100  # concurrent streams before the peer's SETTINGS arrive
CONNECTION_WINDOW = 1 << 20
MAX_CONNECTION_WINDOW = 1 << 24


class SendHalf:
    """The sending half: streams, the output buffer, and the send windows."""

    def __init__(
        self, events: Events, limits: H2Limits, *, client: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.events = events
        self.limits = limits
        self.client = client
        self.streams: dict[int, Stream] = {}
        """The streams that are not closed, by id."""
        self.highest = 0
        """The highest stream id that was opened."""
        self.failed = False
        """Whether the connection has failed."""
        self.send_window: int = WINDOW
        """The connection's flow-control window for sending, in bytes."""
        self.max_frame = FRAME_SIZE
        self.max_streams = INITIAL_MAX_STREAMS
        """The number of concurrent streams that the peer allows."""
        self.extended_connect = False
        """Whether the peer allows extended CONNECT (RFC 8441)."""
        self.pending = 0
        """Bytes in the output buffer."""
        self.lingering = 0
        """Handlers still running for closed streams; they count against the limit on streams."""
        self._out: list[bytes] = []
        self._encoder = Encoder()
        self._first_window = WINDOW
        self._closed_streams: dict[int, int] = {}
        self._pending_replies = 0
        self._window_budget = limits.window_budget
        self._control_frames = TokenBucket(limits.max_control_frames, limits.control_frames_per_second, clock)
        self._oversized = TokenBucket(limits.oversized, limits.oversized_per_second, clock)
        self._cancelled = TokenBucket(limits.max_resets, limits.resets_per_second, clock)

    # bytes

    def take(self) -> bytes:
        """Remove and return the bytes in the output buffer."""
        out = self._out
        self.pending = self._pending_replies = 0
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self.pending += len(data)

    def _reply(self, data: bytes) -> None:
        """Send a reply to a peer's frame. Raises H2Error if a peer that does not read has caused too many."""
        self._pending_replies += 1
        if self._pending_replies > self.limits.max_pending_replies:
            raise H2Error(frames.ENHANCE_YOUR_CALM, f"the peer has not read {self._pending_replies} replies")
        self._put(data)

    # streams

    def open(
        self, events: StreamEvents, fields: list[Field], *, end: bool, is_bodiless: bool = False
    ) -> Stream:
        """Open a stream by sending a request's head."""
        self.highest += 2 if self.highest else 1
        stream = Stream(self.highest, self._first_window, self.limits.initial_window)
        stream.events = events
        stream.is_bodiless = is_bodiless
        self.streams[stream.id] = stream
        self.send_head(stream, fields, end=end)
        return stream

    def send_head(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        """Send the head of a request or of a response, final or informational, or trailers."""
        self._transition(stream, SEND_HEADERS[end], "HEADERS")
        self._put(frames.header_frames(stream.id, self._encoder.encode(fields), self.max_frame, end=end))

    def room(self, stream: Stream) -> int:
        """Return how many bytes of a stream's body may be sent now; 0 or less if none."""
        return min(stream.send_window, self.send_window)

    def send_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Send bytes of a body. Raises ValueError if they exceed a flow-control window."""
        length = len(data)
        if length and (length > stream.send_window or length > self.send_window):
            raise ValueError(f"{length} bytes on {stream}, which has room for {self.room(stream)}")
        self._transition(stream, SEND_DATA[end], "DATA")
        stream.send_window -= length
        self.send_window -= length
        noise = self._control_frames
        if noise.count:
            noise.count = max(
                0, noise.count - 4
            )  # the peer may answer DATA with one or two WINDOW_UPDATE and a PING
        if length <= self.max_frame:
            self._out.append(frames.frame_head(length, frames.DATA, end, stream.id))
            self._out.append(data)
            self.pending += length + 9
            return
        for at in range(0, length, self.max_frame):
            part = data[at : at + self.max_frame]
            last = end and at + self.max_frame >= length
            self._put(frames.frame(frames.DATA, last, stream.id, part))

    def _transition(self, stream: Stream, row: tuple[int, ...], what: str) -> None:
        state = row[stream.state]
        if state < 0:
            raise ValueError(f"{what} on {stream}, which is {STATE_NAMES[stream.state]}")
        stream.state = state
        if state == CLOSED:
            self._remove_stream(stream, CLOSED)

    def reset(self, stream: Stream, code: int) -> None:
        """Reset a stream. Does nothing if it is closed."""
        if stream.state < CLOSED:
            idle = stream.state == IDLE
            self._remove_stream(stream, RESET_BY_US)
            if not idle:
                self._put(frames.rst_stream(stream.id, code))

    def _remove_stream(self, stream: Stream, how: int) -> None:
        stream.state = how
        self.streams.pop(stream.id, None)
        past = self._closed_streams
        past[stream.id] = how
        if len(past) > 2 * MAX_CLOSED_STREAMS:
            self._closed_streams = dict(islice(past.items(), MAX_CLOSED_STREAMS, None))
        self._window_budget += stream.size - self.limits.initial_window

    # the connection

    def ping(self, payload: bytes) -> None:
        """Send PING with eight bytes, which the peer returns."""
        self._put(frames.frame(frames.PING, 0, 0, payload))

    def goaway(self, code: int, last: int, text: str = "") -> None:
        """Send GOAWAY: no stream above `last` is accepted."""
        self._put(frames.goaway(last, code, text.encode(errors="replace")[:200]))

    def consumed(self, stream: Stream, count: int) -> None:
        """Return flow-control credit for bytes of a body that were read; may enlarge the stream's window."""
        stream.unreturned += count
        if stream.unreturned * 2 >= stream.size and stream.state < CLOSED:
            credit, stream.unreturned = stream.unreturned, 0
            more = min(stream.size, self.limits.max_window - stream.size, self._window_budget)
            if more > 0:
                self._window_budget -= more
                stream.size += more
                credit += more
            stream.window += credit
            self._put(frames.window_update(stream.id, credit))

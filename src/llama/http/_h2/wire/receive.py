"""Connection management frames: the middle layer of the engine (RFC 9113 section 6)."""

from __future__ import annotations

from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import MAX_WINDOW, H2Error
from llama.http._h2.wire.hpack_decode import Decoder
from llama.http._h2.wire.priority import parse_priority
from llama.http._h2.wire.send import MAX_FRAME_SIZE, SendHalf
from llama.http._h2.wire.states import (
    CLOSED,
    CLOSED_ERROR,
    HALF_CLOSED_LOCAL,
    IDLE,
    IDLE_ERROR,
    IGNORED,
    RECV_RST_STREAM,
    RECV_WINDOW_UPDATE,
    RESET_BY_PEER,
    RESET_BY_US,
    STATE_NAMES,
)
from llama.http._h2.wire.stream import Stream

MAX_STREAM_ID = b"draining"
EXCESS = 8
"""A header block with this many times `max_headers` beyond a limit ends the connection at once."""
_EXCESS_WEIGHT = 4  # a block counts once for each quarter of `max_headers` beyond the limit


class ReceiveHalf(SendHalf):
    """Handles SETTINGS, PING, GOAWAY, WINDOW_UPDATE, RST_STREAM and PRIORITY, and counts abuse."""

    is_draining = False
    """Whether the first of two GOAWAYs was sent."""
    last = MAX_WINDOW
    """The highest stream id that is still accepted."""
    is_acknowledged = False
    """Whether the peer has acknowledged this side's SETTINGS."""

    # errors and limits

    def _is_noise(self, what: str) -> None:
        """Count a frame that carries no message data."""
        if not self._control_frames.try_take():
            raise H2Error(
                frames.ENHANCE_YOUR_CALM, f"too many frames without message data, the last was {what}"
            )

    def _is_cancelled(self) -> None:
        """Count a stream that ended before its response."""
        if not self._cancelled.try_take():
            raise H2Error(frames.ENHANCE_YOUR_CALM, "too many cancelled streams")

    def _is_oversized(self, decoder: Decoder) -> None:
        """Count a header block over a limit, weighted by its decoded size and decoding work."""
        limits, size = self.limits, decoder.list_size
        if decoder.is_abandoned:
            raise H2Error(
                frames.ENHANCE_YOUR_CALM,
                f"the header block has more than {EXCESS} times {limits.max_headers} fields",
            )
        count = max(size // limits.max_header_block, decoder.excess * _EXCESS_WEIGHT // limits.max_headers)
        if not self._oversized.try_take(max(1, min(count, limits.oversized // 10))):
            raise H2Error(
                frames.ENHANCE_YOUR_CALM,
                f"too many header blocks over {limits.max_header_list_size} bytes or {limits.max_headers} fields, "
                f"the last had {size} bytes",
            )

    def _stream_error(self, stream: Stream, code: int) -> None:
        """Reset a stream on which the peer violated the protocol."""
        if stream.state < CLOSED:
            self._remove_stream(stream, RESET_BY_US)
            self._reply(frames.rst_stream(stream.id, code))
            stream.events.reset(code, False)
            self._is_cancelled()

    def _state_of(self, id: int) -> int:
        """The state of a stream that is not open."""
        if id > self.highest or not id & 1:
            return IDLE
        return self._closed_streams.get(id, CLOSED)

    def _unexpected(self, outcome: int, id: int, what: str) -> None:
        """Apply the outcome in the state table for a frame that its stream's state does not allow."""
        if outcome == IGNORED:
            return
        if outcome in (CLOSED_ERROR, IDLE_ERROR):
            code = frames.STREAM_CLOSED if outcome == CLOSED_ERROR else frames.PROTOCOL_ERROR
            raise H2Error(code, f"{what} on stream {id}, which is {STATE_NAMES[self._state_of(id)]}")
        stream = self.streams.get(id)
        if stream is not None:
            self._stream_error(stream, frames.STREAM_CLOSED)
        else:
            self._reply(frames.rst_stream(id, frames.STREAM_CLOSED))
            self._is_cancelled()

    # frames

    def _priority(self, flags: int, id: int, payload: bytes) -> None:
        if not id:
            raise H2Error(frames.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._is_noise("PRIORITY")
        wrong = len(payload) != 5
        if wrong or int.from_bytes(payload[:4], "big") & MAX_WINDOW == id:
            code = frames.FRAME_SIZE_ERROR if wrong else frames.PROTOCOL_ERROR
            stream = self.streams.get(id)
            if stream is not None:
                self._stream_error(stream, code)
            elif wrong or self._state_of(id) == IDLE:
                raise H2Error(code, f"malformed PRIORITY on stream {id}")

    def _priority_update(self, id: int, payload: bytes) -> None:
        self._is_noise("PRIORITY_UPDATE")
        if id or len(payload) < 4:
            raise H2Error(frames.PROTOCOL_ERROR, "malformed PRIORITY_UPDATE")
        stream = self.streams.get(int.from_bytes(payload[:4], "big") & MAX_WINDOW)
        if stream is not None:
            stream.urgency, stream.incremental = parse_priority(payload[4:].decode("latin-1"))

    def _rst_stream(self, flags: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise H2Error(frames.FRAME_SIZE_ERROR, f"expected RST_STREAM of 4 bytes, got {len(payload)}")
        stream = self.streams.get(id)
        if stream is None:
            self._is_noise("RST_STREAM")
            self._unexpected(RECV_RST_STREAM[self._state_of(id)], id, "RST_STREAM")
            return
        answered = stream.state == HALF_CLOSED_LOCAL
        self._remove_stream(stream, RECV_RST_STREAM[stream.state])
        stream.events.reset(int.from_bytes(payload, "big"), True)
        if not answered and not self.client:
            self._is_cancelled()

    def _settings(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise H2Error(frames.PROTOCOL_ERROR, f"SETTINGS on stream {id}")
        self._is_noise("SETTINGS")
        if flags & frames.ACK:
            if payload:
                raise H2Error(frames.FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
            self.is_acknowledged = True
            return
        if len(payload) % 6:
            raise H2Error(
                frames.FRAME_SIZE_ERROR, f"expected SETTINGS of a multiple of 6 bytes, got {len(payload)}"
            )
        for key, value in frames.read_settings(payload):
            self._set(key, value)
        self._reply(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self.events.settings_changed()

    def _set(self, key: int, value: int) -> None:
        if key == frames.INITIAL_WINDOW_SIZE:
            self._set_first_window(value)
        elif key == frames.HEADER_TABLE_SIZE:
            self._encoder.resize(value)
        elif key == frames.MAX_FRAME_SIZE:
            if not frames.FRAME_SIZE <= value < 1 << 24:
                raise H2Error(frames.PROTOCOL_ERROR, f"invalid MAX_FRAME_SIZE {value}")
            self.max_frame = min(value, MAX_FRAME_SIZE)
        elif key == frames.MAX_CONCURRENT_STREAMS:
            self.max_streams = value
        elif key == frames.ENABLE_PUSH:
            if value > 1 or (value and self.client):
                raise H2Error(frames.PROTOCOL_ERROR, f"invalid ENABLE_PUSH {value}")
        elif key == frames.ENABLE_CONNECT_PROTOCOL:
            if value > 1 or (self.extended_connect and not value):
                raise H2Error(frames.PROTOCOL_ERROR, f"invalid ENABLE_CONNECT_PROTOCOL {value}")
            self.extended_connect = value == 1

    def _set_first_window(self, value: int) -> None:
        """Adjust the send windows of all open streams by the difference, possibly below 0 (RFC 9113 section 6.9.2)."""
        if value > MAX_WINDOW:
            raise H2Error(frames.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE {value} exceeds {MAX_WINDOW}")
        change, self._first_window = value - self._first_window, value
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > MAX_WINDOW:
                raise H2Error(
                    frames.FLOW_CONTROL_ERROR,
                    f"the window of {stream} exceeds {MAX_WINDOW}: {stream.send_window}",
                )

    def _push_promise(self, flags: int, id: int, payload: bytes) -> None:
        raise H2Error(frames.PROTOCOL_ERROR, "PUSH_PROMISE although push is disabled")

    def _ping(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise H2Error(frames.PROTOCOL_ERROR, f"PING on stream {id}")
        if len(payload) != 8:
            raise H2Error(frames.FRAME_SIZE_ERROR, f"expected PING of 8 bytes, got {len(payload)}")
        self._is_noise("PING")
        if not flags & frames.ACK:
            self._reply(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif payload == MAX_STREAM_ID and self.is_draining:
            self._drained()
        else:
            self.events.pong(payload)

    @property
    def is_drained(self) -> bool:
        """Whether the second GOAWAY, with the final last stream id, was sent."""
        return self.last != MAX_WINDOW

    def drain(self) -> None:
        """Stop accepting streams with two GOAWAYs, as requests may already be in flight (RFC 9113 section 6.8).

        The first GOAWAY allows every stream; the second, sent once the peer has answered a PING, names the last one.
        """
        if not self.is_draining and not self.failed:
            self.is_draining = True
            self.goaway(frames.NO_ERROR, MAX_WINDOW)
            self.ping(MAX_STREAM_ID)

    def _drained(self) -> None:
        if self.last == MAX_WINDOW:
            self.last = self.highest
            self.goaway(frames.NO_ERROR, self.last)

    def _goaway(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise H2Error(frames.PROTOCOL_ERROR, f"GOAWAY on stream {id}")
        if len(payload) < 8:
            raise H2Error(frames.FRAME_SIZE_ERROR, f"expected GOAWAY of at least 8 bytes, got {len(payload)}")
        self._is_noise("GOAWAY")
        last = int.from_bytes(payload[:4], "big") & MAX_WINDOW
        code = int.from_bytes(payload[4:8], "big")
        if self.client:
            for stream in [each for each in self.streams.values() if each.id > last]:
                self._remove_stream(stream, RESET_BY_PEER)
                stream.events.reset(frames.REFUSED_STREAM, True)
        self.events.goaway(last, code, payload[8:200])

    def _window_update(self, flags: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise H2Error(frames.FRAME_SIZE_ERROR, f"expected WINDOW_UPDATE of 4 bytes, got {len(payload)}")
        credit = int.from_bytes(payload, "big") & MAX_WINDOW
        self._is_noise("WINDOW_UPDATE")
        if not id:
            self.send_window += credit
            if not credit:
                raise H2Error(frames.PROTOCOL_ERROR, "WINDOW_UPDATE with an increment of 0")
            if self.send_window > MAX_WINDOW:
                raise H2Error(
                    frames.FLOW_CONTROL_ERROR,
                    f"the connection's window exceeds {MAX_WINDOW}: {self.send_window}",
                )
            self.events.window()
            return
        stream = self.streams.get(id)
        if stream is None:
            self._unexpected(RECV_WINDOW_UPDATE[self._state_of(id)], id, "WINDOW_UPDATE")
            return
        stream.send_window += credit
        if not credit:
            self._stream_error(stream, frames.PROTOCOL_ERROR)
        elif stream.send_window > MAX_WINDOW:
            self._stream_error(stream, frames.FLOW_CONTROL_ERROR)
        else:
            stream.events.window()

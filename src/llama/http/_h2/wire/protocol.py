"""A sans-I/O HTTP/2 engine: received bytes become events, and calls become bytes to send (RFC 9113)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from llama._core.errors import ProtocolError
from llama.http._h2.wire import frames
from llama.http._h2.wire.fields import (
    PSEUDO_FIELDS,
    RequestHead,
    ResponseHead,
    oversized,
    parse_request,
    parse_response,
    parse_trailers,
)
from llama.http._h2.wire.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    SETTINGS,
    WINDOW,
    WITH_PRIORITY,
    H2Error,
    unpack_header,
)
from llama.http._h2.wire.hpack_decode import Decoder
from llama.http._h2.wire.hpack_table import Field
from llama.http._h2.wire.priority import parse_priority
from llama.http._h2.wire.receive import EXCESS, ReceiveHalf
from llama.http._h2.wire.send import CONNECTION_WINDOW, MAX_CONNECTION_WINDOW
from llama.http._h2.wire.states import CLOSED, RECV_DATA, RECV_HEADERS, RESET_BY_US
from llama.http._h2.wire.stream import UNKNOWN, Events, Stream
from llama.http._limits import DEFAULT_H2_LIMITS, H2Limits

_HEADS, _HEAD_SIZE = 32, 1024  # cached heads, keyed by header block, and the largest cached block in bytes
_BODILESS = (204, 304)
Head = TypeVar("Head", RequestHead, ResponseHead)


class H2Protocol(ReceiveHalf):
    """One side of one connection.

    `receive` parses received bytes and calls the methods of `events` and of each stream's `events`; `take` returns
    the bytes to send. Both may be called in any order. Received bytes raise no exception but H2Error; the bytes to
    send then include GOAWAY, and the caller must close the connection after sending them.
    """

    def __init__(
        self,
        events: Events,
        limits: H2Limits = DEFAULT_H2_LIMITS,
        *,
        client: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(events, limits, client=client, clock=clock)
        self._rest = b""
        self._decoder = Decoder(
            header_list=limits.max_header_list_size,
            fields=limits.max_headers + PSEUDO_FIELDS,
            excess=limits.max_headers * EXCESS,
        )
        self._heads: dict[bytes, RequestHead | ResponseHead] = {}
        self._heads_at = 0
        self._window = self._size = CONNECTION_WINDOW
        self._unreturned = 0
        self._order = True  # whether the next frame must be SETTINGS (the first one) or CONTINUATION
        self._greeted = False
        self._preface = b"" if client else PREFACE
        self._block: list[bytes] = []
        self._block_size = 0
        self._block_of = 0
        self._block_flags = 0
        self._frames = (
            self._data, self._headers, self._priority, self._rst_stream, self._settings, self._push_promise,
            self._ping, self._goaway, self._window_update, self._continuation,
        )  # fmt: skip
        self._send_preface()

    def _send_preface(self) -> None:
        """Send the connection preface with this side's SETTINGS."""
        limits = self.limits
        values = {frames.MAX_HEADER_LIST_SIZE: limits.max_header_list_size}
        if limits.initial_window != WINDOW:
            values[frames.INITIAL_WINDOW_SIZE] = limits.initial_window
        if self.client:
            values[frames.ENABLE_PUSH] = 0
            self._put(PREFACE)
        else:
            values[frames.MAX_CONCURRENT_STREAMS] = limits.max_concurrent_streams
            values[frames.ENABLE_CONNECT_PROTOCOL] = 1
            values[frames.NO_RFC7540_PRIORITIES] = 1
        self._put(frames.settings(values) + frames.window_update(0, CONNECTION_WINDOW - WINDOW))

    @property
    def is_within_head(self) -> bool:
        """Whether a header block is incomplete."""
        rest = self._rest
        return self._block_of > 0 or (len(rest) > 3 and rest[3] in (frames.HEADERS, CONTINUATION))

    # bytes

    def receive(self, data: bytes) -> None:
        """Process received bytes. Raises H2Error on a connection error and ignores all bytes after it."""
        if self.failed:
            return
        try:
            self._receive(data)
        except H2Error as error:
            self.fail(error.code, str(error))
            raise

    def fail(self, code: int, text: str) -> None:
        """Fail the connection: send GOAWAY and ignore all further bytes."""
        self.failed = True
        self._rest = b""
        self._block.clear()
        self.goaway(code, self.highest if not self.client else 0, text)

    def _receive(self, data: bytes) -> None:
        buffer = self._rest + data if self._rest else data
        at, end = 0, len(buffer)
        if self._preface:
            at = self._receive_preface(buffer)
            if at < 0:
                self._rest = buffer
                return
        handlers = self._frames
        while end - at >= 9:
            high, low, kind, flags, id = unpack_header(buffer, at)
            length = high << 8 | low
            if length > frames.FRAME_SIZE:
                raise H2Error(
                    frames.FRAME_SIZE_ERROR,
                    f"expected frames of at most {frames.FRAME_SIZE} bytes, got {length}",
                )
            stop = at + 9 + length
            if self._order:
                self._check_order(kind, flags, id & MAX_WINDOW)
            if stop > end:
                break
            payload = buffer[at + 9 : stop]
            at = stop
            if kind < 10:
                handlers[kind](flags, id & MAX_WINDOW, payload)
            elif kind == frames.PRIORITY_UPDATE and not self.client:
                self._priority_update(id & MAX_WINDOW, payload)
            else:
                self._is_noise(f"type {kind}")
        self._rest = buffer[at:]

    def _receive_preface(self, buffer: bytes) -> int:
        """Check the client's preface and return the position of the first frame, or -1 if it is incomplete."""
        told = buffer[: len(PREFACE)]
        if not PREFACE.startswith(told):
            raise H2Error(frames.PROTOCOL_ERROR, f"expected the HTTP/2 preface, got {told!r}")
        if len(told) < len(PREFACE):
            return -1
        self._preface = b""
        return len(PREFACE)

    def _check_order(self, kind: int, flags: int, id: int) -> None:
        if not self._greeted:
            if kind != SETTINGS or flags & frames.ACK:
                raise H2Error(frames.PROTOCOL_ERROR, f"expected SETTINGS as the first frame, got type {kind}")
            self._greeted = True
            self._order = False
        elif kind != CONTINUATION or id != self._block_of:
            raise H2Error(
                frames.PROTOCOL_ERROR, f"expected CONTINUATION within a header block, got type {kind}"
            )

    # DATA

    def _data(self, flags: int, id: int, payload: bytes) -> None:
        length = len(payload)
        if length:
            self._window -= length
            self._unreturned += length
            if self._window < 0:
                raise H2Error(frames.FLOW_CONTROL_ERROR, "DATA exceeds the connection's flow-control window")
            if self._unreturned * 2 >= self._size:
                self._return_credit()
        ended = flags & END_STREAM
        stream = self.streams.get(id)
        if stream is None:
            self._unexpected(RECV_DATA[ended][self._state_of(id)], id, "DATA")
            return
        state = RECV_DATA[ended][stream.state]
        if state < 0:
            self._unexpected(state, id, "DATA")
            return
        stream.window -= length
        if stream.window < 0:
            self._stream_error(stream, frames.FLOW_CONTROL_ERROR)
            return
        if flags & PADDED:
            payload = self._unpadded(payload)
            self.consumed(stream, length - len(payload))
        if not payload:
            if not ended:
                self._is_noise("empty DATA")
        elif self._control_frames.count:
            self._control_frames.count -= 1
        if stream.expected != UNKNOWN:
            left = stream.expected - len(payload)
            if left < 0 or (ended and left):
                self._stream_error(stream, frames.PROTOCOL_ERROR)
                return
            stream.expected = left
        if not stream.heard:
            self._stream_error(stream, frames.PROTOCOL_ERROR)
            return
        if ended:
            stream.state = state
            if state == CLOSED:
                self._remove_stream(stream, CLOSED)
        stream.events.data(payload, ended == END_STREAM)

    def _return_credit(self) -> None:
        """Return the connection's credit on arrival: the streams' windows already bound the buffered bytes."""
        credit, self._unreturned = self._unreturned, 0
        if self._size < MAX_CONNECTION_WINDOW:
            credit += self._size
            self._size *= 2
        self._window += credit
        self._put(frames.window_update(0, credit))

    def _unpadded(self, payload: bytes) -> bytes:
        length = len(payload)
        if not length or payload[0] >= length:
            raise H2Error(frames.PROTOCOL_ERROR, "the padding is longer than its frame")
        return payload[1 : length - payload[0]]

    # HEADERS

    def _headers(self, flags: int, id: int, payload: bytes) -> None:
        if not id:
            raise H2Error(frames.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & PADDED:
            payload = self._unpadded(payload)
        depends_on_itself = False
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise H2Error(frames.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            depends_on_itself = int.from_bytes(payload[:4], "big") & MAX_WINDOW == id
            payload = payload[5:]
        flags = flags & (END_STREAM | END_HEADERS) | (PADDED if depends_on_itself else 0)
        if flags & END_HEADERS:
            self._head(flags, id, payload)
        else:
            self._block = [payload]
            self._block_size = len(payload)
            self._block_of = id
            self._block_flags = flags
            self._order = True

    def _continuation(self, flags: int, id: int, payload: bytes) -> None:
        if not self._block_of:
            raise H2Error(frames.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block.append(payload)
        self._block_size += len(payload)
        if self._block_size > self.limits.max_header_block:
            raise H2Error(
                frames.ENHANCE_YOUR_CALM, f"the header block exceeds {self.limits.max_header_block} bytes"
            )
        if len(self._block) - 1 > self.limits.max_continuations:
            raise H2Error(
                frames.ENHANCE_YOUR_CALM, f"more than {self.limits.max_continuations} CONTINUATION frames"
            )
        if flags & END_HEADERS:
            block = b"".join(self._block)
            self._block = []
            self._block_of = 0
            self._order = False
            self._head(self._block_flags, id, block)

    def _head(self, flags: int, id: int, block: bytes) -> None:
        """Process a complete header block."""
        if self._control_frames.count:
            self._control_frames.count -= 1
        stream = self.streams.get(id)
        if stream is None:
            if id > self.highest and id & 1 and not self.client:
                self._request(flags, id, block)
                return
            self._decode(block)
            self._head_on_closed_stream(flags & END_STREAM, id)
            return
        state = RECV_HEADERS[flags & END_STREAM][stream.state]
        if state < 0 or flags & PADDED:
            self._decode(block)
            if state < 0:
                self._unexpected(state, id, "HEADERS")
            else:
                self._stream_error(stream, frames.PROTOCOL_ERROR)
        elif self.client and not stream.heard:
            self._response(stream, state, flags, block)
        else:
            self._trailers(stream, state, flags, block)

    def _head_on_closed_stream(self, ended: int, id: int) -> None:
        state = self._state_of(id)
        if id not in self._closed_streams:
            raise H2Error(frames.PROTOCOL_ERROR, f"HEADERS on stream {id}, which cannot be opened")
        self._unexpected(RECV_HEADERS[ended][state], id, "HEADERS")

    def _decode(self, block: bytes) -> list[Field]:
        try:
            fields = self._decoder.decode(block)
        except ProtocolError as error:
            raise H2Error(frames.COMPRESSION_ERROR, str(error)) from None
        if self._decoder.is_truncated:
            self._is_oversized(self._decoder)
        return fields

    def _check_size(self) -> None:
        """Raise ProtocolError (431) if the last header block exceeded a limit."""
        if self._decoder.is_truncated:
            raise oversized(self._decoder.list_size, self.limits)

    def _cached_head(self, block: bytes, kind: type[Head]) -> Head | None:
        """Return the cached head of an identical block. The cache is valid until the dynamic table changes."""
        if self._decoder.changes != self._heads_at:
            self._heads.clear()
            self._heads_at = self._decoder.changes
            return None
        found = self._heads.get(block)
        return found.copy() if isinstance(found, kind) else None

    def _cache_head(self, block: bytes, head: RequestHead | ResponseHead) -> None:
        if len(block) <= _HEAD_SIZE and self._decoder.changes == self._heads_at:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            self._heads[block] = head.copy()

    def _request(self, flags: int, id: int, block: bytes) -> None:
        self.highest = id
        ended = flags & END_STREAM
        head = self._cached_head(block, RequestHead)
        fields = self._decode(block) if head is None else []
        if id > self.last:
            self._closed_streams[id] = RESET_BY_US
            return
        stream = Stream(id, self._first_window, self.limits.initial_window)
        if len(self.streams) + self.lingering >= self.limits.max_concurrent_streams:
            self._closed_streams[id] = RESET_BY_US
            self._reply(frames.rst_stream(id, frames.REFUSED_STREAM))
            self._is_cancelled()
            return
        self.streams[id] = stream
        stream.state = RECV_HEADERS[ended][0]
        stream.heard = True
        try:
            if head is None:
                self._check_size()
                head = parse_request(fields, self.limits)
                self._cache_head(block, head)
        except ProtocolError as error:
            if error.status == 400:
                self._stream_error(stream, frames.PROTOCOL_ERROR)
            else:
                self.events.refused(stream, error, ended == END_STREAM)
            return
        if head.length is not None:
            stream.expected = head.length
        if flags & PADDED or (ended and stream.expected > 0):
            self._stream_error(stream, frames.PROTOCOL_ERROR)
            return
        if "priority" in head.headers._keys:
            stream.urgency, stream.incremental = parse_priority(head.headers["priority"])
        self.events.request(stream, head, ended == END_STREAM)

    def _response(self, stream: Stream, state: int, flags: int, block: bytes) -> None:
        ended = flags & END_STREAM
        head = self._cached_head(block, ResponseHead)
        try:
            if head is None:
                fields = self._decode(block)
                self._check_size()
                head = parse_response(fields)
                self._cache_head(block, head)
        except H2Error:
            raise
        except ProtocolError:
            self._stream_error(stream, frames.PROTOCOL_ERROR)
            return
        if head.status < 200:
            if ended:
                self._stream_error(stream, frames.PROTOCOL_ERROR)
                return
            self._is_noise("informational responses")
            stream.events.interim(head)
            return
        stream.heard = True
        if stream.is_bodiless or head.status in _BODILESS:
            stream.expected = 0
        elif head.length is not None:
            stream.expected = head.length
            if ended and head.length:
                self._stream_error(stream, frames.PROTOCOL_ERROR)
                return
        stream.state = state
        if state == CLOSED:
            self._remove_stream(stream, CLOSED)
        stream.events.response(head, ended == END_STREAM)

    def _trailers(self, stream: Stream, state: int, flags: int, block: bytes) -> None:
        fields = self._decode(block)
        try:
            self._check_size()
            trailers = parse_trailers(fields)
        except ProtocolError:
            self._stream_error(stream, frames.PROTOCOL_ERROR)
            return
        if not flags & END_STREAM or stream.expected > 0:
            self._stream_error(stream, frames.PROTOCOL_ERROR)
            return
        stream.state = state
        if state == CLOSED:
            self._remove_stream(stream, CLOSED)
        stream.events.trailers(trailers)

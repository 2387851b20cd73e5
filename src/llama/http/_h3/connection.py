"""One QUIC connection carrying HTTP/3, for client and server: its packets, events and channels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, TextIO, cast

from qh3.h3.connection import ProtocolError as H3Error
from qh3.h3.events import (
    DataReceived,
    GoawayReceived,
    H3Event,
    HeadersReceived,
    InformationalHeadersReceived,
    StopSending,
    StreamReset,
)
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    StreamDataReceived,
)
from qh3.quic.tls_bridge import QuicTlsBridge

from llama._core.errors import LlamaError, ProtocolError, StreamClosedError, TLSError
from llama.http._h3.fields import Fields, decode_trailers
from llama.http._h3.qpack_limits import H3
from llama.http._h3.stream import (
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_REQUEST_REJECTED,
    SEND_HIGH_WATER,
    H3Stream,
    reset_error,
)
from llama.http._limits import Limits
from llama.tls._keylog import KeyLog

log = logging.getLogger("llama.http3")
logging.getLogger("quic").setLevel(logging.ERROR)  # it logs a warning whenever a peer closes
MAX_UNREAD = 1 << 20  # unread bytes of one connection, above which the peer gets no more flow-control credit
GOAWAY = 0x7
INTERNAL_ERROR = 0x1
Address = Any  # an address of the socket module


class PausableQuicConnection(QuicConnection):
    """A QUIC connection that can stop delivering received bytes, so that its peer gets no more credit."""

    is_paused = False

    def _create_core(self, remote_addr: Address, initial_dcid: bytes, now: float) -> None:
        """Disable the library's anti-amplification limit: the sender of the packets enforces it (RFC 9000 section 8.1).

        The library fails if its first packets exceed its own limit.
        """
        retry, self._retry_source_connection_id = self._retry_source_connection_id, b"known"
        try:
            super()._create_core(remote_addr, initial_dcid, now)
        finally:
            self._retry_source_connection_id = retry

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        """Assume an empty id for a client: the library learns any other id, but never an empty one."""
        if remote_source_cid is None and not self.configuration.is_client:
            remote_source_cid = b""
        return super()._create_tls(remote_source_cid)

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Process packets from one address."""
        if len(datagrams) == 1:
            self.receive_datagram(datagrams[0], address, now)
        else:
            self.receive_many_datagrams(datagrams, address, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """Return the packets to send, as the library does, but without its packet log."""
        if self._core is None or self._quic_logger is not None:
            return super().datagrams_to_send(now)
        poll = self._core.poll_transmit
        packets: list[tuple[bytes, Address]] = []
        try:
            while (packet := poll(now)) is not None:
                packets.append((packet[0], packet[1]))
        except RuntimeError as error:
            raise QuicConnectionError(INTERNAL_ERROR, None, str(error)) from error
        return packets

    def _drain_core(self) -> None:
        if not self.is_paused:
            super()._drain_core()

    def release(self) -> None:
        """Deliver the held bytes."""
        self.is_paused = False
        super()._drain_core()


class H3Transport:
    """A connection without a task: the receiver of its packets drives it, and it calls `send` with its own packets.

    `established` and `closed` are futures. The first fails if the handshake fails; the second is set when the
    connection has ended for any reason.
    """

    def __init__(
        self, quic: PausableQuicConnection, send: Callable[[bytes, Address], object], limits: Limits
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.quic = quic
        self.http: H3 | None = None
        self.channels: dict[int, H3Stream] = {}
        self.established: asyncio.Future[None] = self.loop.create_future()
        self.established.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.error: Exception | None = None
        self.goaway: int | None = None
        """The first stream on which the peer accepts no request (GOAWAY)."""
        self.on_request: Callable[[H3Stream], None] | None = None
        self.on_id: Callable[[bytes, bool], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.on_packets: Callable[[], None] | None = None
        self.on_broken: Callable[[], None] | None = None
        self.on_noise: Callable[[int], None] | None = None
        """Called with the size of received data that produced no HTTP/3 event."""
        self._send = send
        self._limits = limits
        self._unread = 0
        self._newest = -4
        """The highest stream on which a request arrived."""
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Handle | None = None
        self._writers: dict[int, asyncio.Future[None]] = {}

    # packets

    def received(self, datagrams: list[bytes], address: Address) -> None:
        """Process packets from the peer and send the resulting packets."""
        try:
            self.quic.receive(datagrams, address, self.loop.time())
            self._pump()
        except Exception as error:
            self._on_error(error)
        self.flush()
        if self.on_packets is not None:
            self.on_packets()

    def flush(self) -> None:
        """Send pending packets and set the timer."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        now = self.loop.time()
        try:
            for data, address in self.quic.datagrams_to_send(now):
                self._send(data, address)
        except Exception as error:
            self._on_error(error)
        self._arm()
        if self._writers:
            self._wake_writers()

    def flush_soon(self) -> None:
        """Send pending packets after the callbacks of this round of the loop."""
        if self._flush is None and not self.closed.done():
            self._flush = self.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        self.flush()

    def _arm(self) -> None:
        due = None if self.closed.done() else self.quic.get_timer()
        timer = self._timer
        if due is None:
            if timer is not None:
                timer.cancel()
                self._timer = None
        elif timer is None or due < timer.when():
            if timer is not None:
                timer.cancel()
            self._timer = self.loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self.loop.time()
        due = self.quic.get_timer()
        if due is not None and due <= now + 0.001:
            try:
                self.quic.handle_timer(max(now, due))
                self._pump()
            except Exception as error:
                self._on_error(error)
        self.flush()

    def _on_error(self, error: Exception) -> None:
        """End the connection after an exception in the QUIC library."""
        if not isinstance(error, QuicConnectionError):
            log.error("HTTP/3: the QUIC library failed", exc_info=error)
        self._terminate(ProtocolError(f"HTTP/3: {error}", status=502))

    # events

    def _pump(self) -> None:
        quic = self.quic
        while (event := quic.next_event()) is not None:
            if isinstance(event, ConnectionTerminated):
                self._terminated(event)
            elif isinstance(event, ConnectionIdIssued | ConnectionIdRetired):
                if self.on_id is not None:
                    self.on_id(event.connection_id, isinstance(event, ConnectionIdIssued))
            elif isinstance(event, ProtocolNegotiated):
                self.begin()
            elif isinstance(event, HandshakeCompleted):
                if not self.established.done():
                    self.established.set_result(None)
            elif self.http is not None:
                if told := self.http.handle_event(event):
                    self._http_events(told)
                elif self.on_noise is not None and isinstance(event, StreamDataReceived):
                    self.on_noise(len(event.data))
        ended = quic._close_event
        if (
            ended is not None and not self.closed.done()
        ):  # report it now: the library's event comes only after the draining period
            self._terminated(ended)

    def begin(self) -> None:
        """Start HTTP/3 on the connection."""
        if self.http is None:
            self.http = H3(self.quic, self._limits)

    def _http_events(self, events: Iterable[H3Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                if event.push_id is None and (channel := self.channels.get(event.stream_id)) is not None:
                    self._data(channel, event.data, ended=event.stream_ended)
            elif isinstance(event, HeadersReceived):
                if event.push_id is None:
                    self._fields(event.stream_id, event.headers, ended=event.stream_ended)
            elif isinstance(event, InformationalHeadersReceived):
                if (channel := self.channels.get(event.stream_id)) is not None:
                    channel.on_informational(event.headers)
            elif isinstance(event, StreamReset):
                self._reset(event.stream_id, event.error_code)
            elif isinstance(event, StopSending):
                self._stopped(event.stream_id, event.error_code)
            elif isinstance(event, GoawayReceived):
                self.goaway = event.stream_id
                if self.on_noise is not None:
                    self.on_noise(0)

    def _data(self, channel: H3Stream, data: bytes, *, ended: bool) -> None:
        if channel.error is None:
            self._unread += len(data)
            channel.feed(data, ended=ended)
            if self._unread > MAX_UNREAD:
                self.quic.is_paused = True

    def _fields(self, number: int, fields: Fields, *, ended: bool) -> None:
        channel = self.channels.get(number)
        if channel is None:
            if self.on_request is None or number % 4:
                return
            self._newest = max(self._newest, number)
            channel = self.channels[number] = H3Stream(self, number)
            channel.ended = ended
            channel.head(fields)
            self.on_request(channel)
        elif channel.fields is None:
            channel.ended = ended
            channel.head(fields)
        else:
            try:
                channel.trailers = decode_trailers(fields, self._limits)
            except LlamaError as error:
                channel.fail(error)
            channel.feed(b"", ended=ended)

    def _reset(self, number: int, code: int) -> None:
        channel = self.channels.get(number)
        self._wake_writer(number)
        if self.on_broken is not None:
            self.on_broken()
        if channel is None:
            if number <= self._newest:  # the exchange has ended; its last bytes may still be in flight
                return
            self.stop(number, H3_REQUEST_CANCELLED, sending=number % 4 == 0, reading=False)
            return
        channel.rejected = code == H3_REQUEST_REJECTED
        channel.fail(reset_error(code))
        if channel.task is not None:
            channel.task.cancel()

    def _stopped(self, number: int, code: int) -> None:
        """STOP_SENDING arrived. With H3_NO_ERROR it only stops a request's body, otherwise it cancels the exchange."""
        channel = self.channels.get(number)
        if channel is None:
            return
        channel.stopped = True
        if channel.task is not None and code != H3_NO_ERROR:
            self._reset(number, code)
        self._wake_writer(number)

    def _wake_writer(self, number: int) -> None:
        writer = self._writers.pop(number, None)
        if writer is not None and not writer.done():
            writer.set_result(None)

    def _terminated(self, event: ConnectionTerminated) -> None:
        reason = event.reason_phrase or f"error {event.error_code:#x}"
        if not self.established.done():
            kind = TLSError if 0x100 <= event.error_code < 0x200 else ProtocolError
            self._terminate(kind(f"QUIC handshake failed: {reason}"))
        else:
            self._terminate(reset_error(event.error_code))

    def _terminate(self, error: Exception) -> None:
        self.error = self.error or error
        if not self.established.done():
            self.established.set_exception(error)
        for channel in tuple(self.channels.values()):
            channel.fail(error)
            if channel.task is not None:
                channel.task.cancel()
        for writer in self._writers.values():
            if not writer.done():
                writer.set_result(None)
        self._writers.clear()
        if not self.closed.done():
            self.closed.set_result(None)

    # calls from channels

    def send_fields(self, number: int, fields: Fields, *, end: bool) -> None:
        """Send a field section."""
        http = self._require_http()
        try:
            http.send_headers(number, fields, end_stream=end)
        except (QuicConnectionError, H3Error, ValueError) as error:
            raise StreamClosedError(f"stream {number} takes no more: {error}") from error
        self.flush_soon()

    def send_data(self, number: int, data: bytes | memoryview, *, end: bool) -> None:
        """Send a chunk of the body."""
        http = self._require_http()
        try:
            http.send_data(number, data, end_stream=end)
        except (QuicConnectionError, H3Error, ValueError) as error:
            raise StreamClosedError(f"stream {number} takes no more: {error}") from error
        self.flush_soon()

    def _require_http(self) -> H3:
        if self.error is not None:
            raise self.error
        if self.http is None:
            raise StreamClosedError("the handshake has not finished")
        return self.http

    def waiting_to_leave(self, number: int) -> int:
        """Return the number of buffered bytes of a stream that were not sent yet."""
        return self.quic.get_send_buffer_size(number)

    def wait_for_room(self, channel: H3Stream) -> asyncio.Future[None]:
        """Return a future that is set when enough of the stream's buffered bytes were sent."""
        future = self._writers[channel.number] = self.loop.create_future()
        self.flush_soon()
        return future

    def _wake_writers(self) -> None:
        for number, future in tuple(self._writers.items()):
            if future.done() or self.quic.get_send_buffer_size(number) <= SEND_HIGH_WATER:
                del self._writers[number]
                if not future.done():
                    future.set_result(None)

    def consumed(self, size: int) -> None:
        """Count `size` bytes as read; resume delivery, and with it credit, below half of MAX_UNREAD."""
        self._unread -= size
        if self.quic.is_paused and self._unread <= MAX_UNREAD // 2:
            self.quic.is_paused = False
            self.loop.call_soon(self._resume)

    def _resume(self) -> None:
        try:
            self.quic.release()
            self._pump()
        except Exception as error:
            self._on_error(error)
        self.flush()

    def stop(self, number: int, code: int, *, sending: bool, reading: bool) -> None:
        """Reset the sending direction of a stream, stop the reading direction, or both."""
        if self.closed.done():
            return
        try:
            if sending:
                self.quic.reset_stream(number, code)
            if reading:
                self.quic.stop_stream(number, code)
        except (QuicConnectionError, ValueError):  # the stream has already ended
            pass
        if sending:
            self._forget_state(number)
        self.flush_soon()

    def _forget_state(self, number: int) -> None:
        """Free the HTTP/3 library's state of a stream, which it keeps after a reset by this side."""
        if self.http is None or (state := self.http._stream.get(number)) is None:
            return
        state.sending_ended = True
        if state.is_ended():
            self.http._stream.pop(number, None)

    def forget(self, channel: H3Stream) -> None:
        """Free a channel that is no longer used."""
        self.channels.pop(channel.number, None)
        self._writers.pop(channel.number, None)
        if self.on_room is not None:
            self.on_room()

    # the end

    def send_goaway(self, number: int) -> None:
        """Send GOAWAY: requests from this stream on are not processed (RFC 9114 section 5.2)."""
        http = self.http
        if http is None or http._local_control_stream_id is None or self.closed.done():
            return
        payload = _varint(number)
        frame = bytes([GOAWAY, len(payload)]) + payload
        try:
            self.quic.send_stream_data(http._local_control_stream_id, frame)
        except QuicConnectionError:  # the peer has closed the stream
            return
        self.flush_soon()

    def fail(self, error: Exception) -> None:
        """End the connection: its packets cannot reach the peer."""
        self._terminate(error)

    def close(self, code: int = H3_NO_ERROR, reason: str = "") -> None:
        """Close the connection; open channels fail. Idempotent."""
        if self.closed.done():
            return
        try:
            self.quic.close(error_code=code, reason_phrase=reason)
        except QuicConnectionError:
            pass
        self.flush()
        self._terminate(reset_error(code))
        self._stop_timers()

    def _stop_timers(self) -> None:
        for handle in (self._timer, self._flush):
            if handle is not None:
                handle.cancel()
        self._timer = self._flush = None

    @property
    def is_quiet(self) -> bool:
        """Whether the peer has acknowledged all sent data."""
        core = self.quic._core
        return core is None or not (core.bytes_in_flight or self.quic.get_send_buffer_size())

    def abandon(self) -> None:
        """End the connection without sending anything, and cancel its timers."""
        self._terminate(reset_error(H3_NO_ERROR))
        self._stop_timers()


def _varint(number: int) -> bytes:
    """Encode a QUIC variable-length integer (RFC 9000 section 16)."""
    for length, mark in ((1, 0), (2, 0x40), (4, 0x80), (8, 0xC0)):
        if number < 1 << (8 * length - 2):
            raw = number.to_bytes(length, "big")
            return bytes([raw[0] | mark]) + raw[1:]
    raise ValueError(f"{number} is too large for a QUIC integer")


def new_configuration(*, is_client: bool, idle_timeout: float, keylog: KeyLog | None) -> QuicConfiguration:
    """Return the QUIC configuration common to client and server."""
    return QuicConfiguration(
        alpn_protocols=["h3"],
        is_client=is_client,
        idle_timeout=idle_timeout,
        max_data=4 * MAX_UNREAD,
        max_stream_data=MAX_UNREAD,
        max_datagram_frame_size=65536,
        secrets_log_file=cast("TextIO", keylog),  # it calls write and flush
    )

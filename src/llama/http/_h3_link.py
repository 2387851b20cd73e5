"""One QUIC connection with HTTP/3 on it, for either side: packets in, packets out, and its channels."""

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

from llama._errors import Closed, LlamaError, ProtocolError, TLSError
from llama.http._h3_channel import (
    AHEAD,
    H3_NO_ERROR,
    H3_REQUEST_CANCELLED,
    H3_REQUEST_REJECTED,
    Channel,
    broken,
)
from llama.http._h3_fields import Fields, trailers_of
from llama.http._h3_sections import H3
from llama.http.wire._h1_fields import Limits
from llama.tls._keylog import KeyLog

log = logging.getLogger("llama.http3")
logging.getLogger("quic").setLevel(logging.ERROR)  # it warns of every peer that closes
UNREAD = 1 << 20  # bytes that wait to be read on one connection: more are not taken from the peer
GOAWAY = 0x7
INTERNAL_ERROR = 0x1
Address = Any  # the socket module's


class Quic(QuicConnection):
    """A QUIC connection whose incoming bytes can be left where they are: its peer is given no more credit then."""

    held = False

    def _create_core(self, remote_addr: Address, initial_dcid: bytes, now: float) -> None:
        """Leave it to whoever sends the packets to send no more to a client than three times what came from it.

        The library's own bound makes it fail where its first packets would pass it.
        """
        retry, self._retry_source_connection_id = self._retry_source_connection_id, b"known"
        try:
            super()._create_core(remote_addr, initial_dcid, now)
        finally:
            self._retry_source_connection_id = retry

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        """A client may have an empty id, which the library does not learn; any other it does."""
        if remote_source_cid is None and not self.configuration.is_client:
            remote_source_cid = b""
        return super()._create_tls(remote_source_cid)

    def receive(self, datagrams: list[bytes], address: Address, now: float) -> None:
        """Take packets that came from one address."""
        if len(datagrams) == 1:
            self.receive_datagram(datagrams[0], address, now)
        else:
            self.receive_many_datagrams(datagrams, address, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """The library's, without what it does for its log of packets."""
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
        if not self.held:
            super()._drain_core()

    def release(self) -> None:
        """Take what was left."""
        self.held = False
        super()._drain_core()


class Link:
    """A connection, driven by whoever receives its packets; `send` sends those that leave.

    It has no task of its own. `established` and `closed` are futures; the first fails when hands cannot be
    shaken, the second is set when the connection has ended, in whatever way.
    """

    def __init__(self, quic: Quic, send: Callable[[bytes, Address], object], limits: Limits) -> None:
        self.loop = asyncio.get_running_loop()
        self.quic = quic
        self.http: H3 | None = None
        self.channels: dict[int, Channel] = {}
        self.established: asyncio.Future[None] = self.loop.create_future()
        self.established.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.error: Exception | None = None
        self.goaway: int | None = None
        """From this stream on the peer takes no request."""
        self.on_request: Callable[[Channel], None] | None = None
        self.on_id: Callable[[bytes, bool], None] | None = None
        self.on_room: Callable[[], None] | None = None
        self.on_packets: Callable[[], None] | None = None
        self.on_broken: Callable[[], None] | None = None
        self.on_noise: Callable[[int], None] | None = None
        """Called with the size of what came and was no part of a message yet."""
        self._send = send
        self._limits = limits
        self._unread = 0
        self._newest = -4
        """The latest stream on which a request has come."""
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Handle | None = None
        self._writers: dict[int, asyncio.Future[None]] = {}

    # packets

    def received(self, datagrams: list[bytes], address: Address) -> None:
        """Packets from the peer; what they cause leaves before this returns."""
        try:
            self.quic.receive(datagrams, address, self.loop.time())
            self._pump()
        except Exception as error:
            self._broke(error)
        self.flush()
        if self.on_packets is not None:
            self.on_packets()

    def flush(self) -> None:
        """Send what is due, and set the timer for what is due later."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        now = self.loop.time()
        try:
            for data, address in self.quic.datagrams_to_send(now):
                self._send(data, address)
        except Exception as error:
            self._broke(error)
        self._arm()
        if self._writers:
            self._wake_writers()

    def flush_soon(self) -> None:
        """Send what is due when the running callbacks are through."""
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
            self._timer = self.loop.call_at(due, self._due)

    def _due(self) -> None:
        self._timer = None
        now = self.loop.time()
        due = self.quic.get_timer()
        if due is not None and due <= now + 0.001:
            try:
                self.quic.handle_timer(max(now, due))
                self._pump()
            except Exception as error:
                self._broke(error)
        self.flush()

    def _broke(self, error: Exception) -> None:
        """The QUIC library gave up on what it was fed: the connection is over."""
        if not isinstance(error, QuicConnectionError):
            log.error("HTTP/3: a connection broke", exc_info=error)
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
        ):  # known at once; its event comes when the draining is over
            self._terminated(ended)

    def begin(self) -> None:
        """Speak HTTP/3."""
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
                    channel.inform(event.headers)
            elif isinstance(event, StreamReset):
                self._reset(event.stream_id, event.error_code)
            elif isinstance(event, StopSending):
                self._stopped(event.stream_id, event.error_code)
            elif isinstance(event, GoawayReceived):
                self.goaway = event.stream_id
                if self.on_noise is not None:
                    self.on_noise(0)

    def _data(self, channel: Channel, data: bytes, *, ended: bool) -> None:
        if channel.error is None:
            self._unread += len(data)
            channel.feed(data, ended=ended)
            if self._unread > UNREAD:
                self.quic.held = True

    def _fields(self, number: int, fields: Fields, *, ended: bool) -> None:
        channel = self.channels.get(number)
        if channel is None:
            if self.on_request is None or number % 4:
                return
            self._newest = max(self._newest, number)
            channel = self.channels[number] = Channel(self, number)
            channel.ended = ended
            channel.head(fields)
            self.on_request(channel)
        elif channel.fields is None:
            channel.ended = ended
            channel.head(fields)
        else:
            try:
                channel.trailers = trailers_of(fields, self._limits)
            except LlamaError as error:
                channel.fail(error)
            channel.feed(b"", ended=ended)

    def _reset(self, number: int, code: int) -> None:
        channel = self.channels.get(number)
        self._wake_writer(number)
        if self.on_broken is not None:
            self.on_broken()
        if channel is None:
            if number <= self._newest:  # it was answered, and what answers it may still be on its way
                return
            self.stop(number, H3_REQUEST_CANCELLED, sending=number % 4 == 0, reading=False)
            return
        channel.rejected = code == H3_REQUEST_REJECTED
        channel.fail(broken(code))
        if channel.task is not None:
            channel.task.cancel()

    def _stopped(self, number: int, code: int) -> None:
        """The peer wants no more: H3_NO_ERROR says that what it asked for need not be read on."""
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
            self._terminate(broken(event.error_code))

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

    # what channels ask for

    def send_fields(self, number: int, fields: Fields, *, end: bool) -> None:
        """Send a field section."""
        http = self._speaking()
        try:
            http.send_headers(number, fields, end_stream=end)
        except (QuicConnectionError, H3Error, ValueError) as error:
            raise Closed(f"stream {number} takes no more: {error}") from error
        self.flush_soon()

    def send_data(self, number: int, data: bytes | memoryview, *, end: bool) -> None:
        """Send a piece of the body."""
        http = self._speaking()
        try:
            http.send_data(number, data, end_stream=end)
        except (QuicConnectionError, H3Error, ValueError) as error:
            raise Closed(f"stream {number} takes no more: {error}") from error
        self.flush_soon()

    def _speaking(self) -> H3:
        if self.error is not None:
            raise self.error
        if self.http is None:
            raise Closed("hands are not shaken yet")
        return self.http

    def waiting_to_leave(self, number: int) -> int:
        """Bytes of this stream that were not sent yet."""
        return self.quic.get_send_buffer_size(number)

    def wait_for_room(self, channel: Channel) -> asyncio.Future[None]:
        """A future that is set when the stream's bytes have left."""
        future = self._writers[channel.number] = self.loop.create_future()
        self.flush_soon()
        return future

    def _wake_writers(self) -> None:
        for number, future in tuple(self._writers.items()):
            if future.done() or self.quic.get_send_buffer_size(number) <= AHEAD:
                del self._writers[number]
                if not future.done():
                    future.set_result(None)

    def consumed(self, size: int) -> None:
        """So many bytes that came in were read: the peer may send on."""
        self._unread -= size
        if self.quic.held and self._unread <= UNREAD // 2:
            self.quic.held = False
            self.loop.call_soon(self._resume)

    def _resume(self) -> None:
        try:
            self.quic.release()
            self._pump()
        except Exception as error:
            self._broke(error)
        self.flush()

    def stop(self, number: int, code: int, *, sending: bool, reading: bool) -> None:
        """End one or both directions of a stream at once."""
        if self.closed.done():
            return
        try:
            if sending:
                self.quic.reset_stream(number, code)
            if reading:
                self.quic.stop_stream(number, code)
        except (QuicConnectionError, ValueError):  # it has ended meanwhile
            pass
        if sending:
            self._forget_state(number)
        self.flush_soon()

    def _forget_state(self, number: int) -> None:
        """The HTTP/3 library keeps a stream until both directions have ended, which a reset does not tell it."""
        if self.http is None or (state := self.http._stream.get(number)) is None:
            return
        state.sending_ended = True
        if state.is_ended():
            self.http._stream.pop(number, None)

    def forget(self, channel: Channel) -> None:
        """Nobody uses the channel any more."""
        self.channels.pop(channel.number, None)
        self._writers.pop(channel.number, None)
        if self.on_room is not None:
            self.on_room()

    # the end

    def send_goaway(self, number: int) -> None:
        """Say that requests from this stream on are not answered (RFC 9114 section 5.2)."""
        http = self.http
        if http is None or http._local_control_stream_id is None or self.closed.done():
            return
        payload = _varint(number)
        frame = bytes([GOAWAY, len(payload)]) + payload
        try:
            self.quic.send_stream_data(http._local_control_stream_id, frame)
        except QuicConnectionError:  # it is closed on the other side
            return
        self.flush_soon()

    def fail(self, error: Exception) -> None:
        """The way to the peer has broken."""
        self._terminate(error)

    def close(self, code: int = H3_NO_ERROR, reason: str = "") -> None:
        """End the connection; channels that are open break. Again does nothing."""
        if self.closed.done():
            return
        try:
            self.quic.close(error_code=code, reason_phrase=reason)
        except QuicConnectionError:
            pass
        self.flush()
        self._terminate(broken(code))
        self._stop_timers()

    def _stop_timers(self) -> None:
        for handle in (self._timer, self._flush):
            if handle is not None:
                handle.cancel()
        self._timer = self._flush = None

    @property
    def is_quiet(self) -> bool:
        """Whether everything that was to be sent has arrived."""
        core = self.quic._core
        return core is None or not (core.bytes_in_flight or self.quic.get_send_buffer_size())

    def abandon(self) -> None:
        """Free the timers: no packet will come or go any more."""
        self._terminate(broken(H3_NO_ERROR))
        self._stop_timers()


def _varint(number: int) -> bytes:
    """A QUIC variable-length integer (RFC 9000 section 16)."""
    for length, mark in ((1, 0), (2, 0x40), (4, 0x80), (8, 0xC0)):
        if number < 1 << (8 * length - 2):
            raw = number.to_bytes(length, "big")
            return bytes([raw[0] | mark]) + raw[1:]
    raise ValueError(f"{number} is too large for a QUIC integer")


def new_configuration(*, is_client: bool, idle_timeout: float, keylog: KeyLog | None) -> QuicConfiguration:
    """What both sides have in common."""
    return QuicConfiguration(
        alpn_protocols=["h3"],
        is_client=is_client,
        idle_timeout=idle_timeout,
        max_data=4 * UNREAD,
        max_stream_data=UNREAD,
        max_datagram_frame_size=65536,
        secrets_log_file=cast("TextIO", keylog),  # it calls write and flush
    )

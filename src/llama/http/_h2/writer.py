"""The writer of an HTTP/2 connection: it schedules the bodies of all streams and applies flow control.

Many tasks send on one connection at the same time, the peer opens and closes flow-control windows as it likes
(RFC 9113 section 5.2), streams are reset while their senders wait, and the transport may accept bytes slowly or
not at all. Frames must never be mixed within a header block, header blocks must leave in the order in which
HPACK encoded them, one large body must not delay the others, a slow peer must not fill memory, and no sender may
wait for ever.

Only `run` writes to the transport. Heads, trailers and control frames go straight into the engine's output
buffer, so they keep their order and are never delayed by a body's flow control. A body chunk goes there too while
no other chunk waits, less than `HIGH_WATER` bytes are pending and the windows have room: the common case costs no
task switch. Otherwise the chunk becomes a `PendingWrite` and its sender waits, which is the backpressure. `run`
takes one `QUANTUM` of bytes from each waiting chunk, the lowest urgency value first (RFC 9218), round-robin among
equals. A turn whose stream has no window is parked outside the queue until a WINDOW_UPDATE, so it is not examined in
each round; one that waits for the connection's window stays queued.

Three timeouts find a peer that does not let bytes out. A write of up to `HIGH_WATER` bytes must finish within
`write_timeout`. A periodic check looks for turns that have not moved for that long: if no turn moved, the connection
fails with ENHANCE_YOUR_CALM, otherwise only the stalled streams end. One timer checks all of them, because a
timer for each chunk would cost more than the chunk. SETTINGS must be acknowledged in time.

A lock around the transport instead of a queue would keep frames whole, but the order of streams would then be the
order of arrival, without fairness, priorities or one write for many frames.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from itertools import count

from llama._core.errors import LlamaError, StreamClosedError
from llama._core.stream import Stream
from llama.http._h2.wire import frames
from llama.http._h2.wire.hpack_table import Field
from llama.http._h2.wire.protocol import H2Protocol
from llama.http._h2.wire.states import CLOSED
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._progress_timer import ProgressTimer

log = logging.getLogger("llama.server")
HIGH_WATER = 65_536  # bytes pending for the transport from which bodies wait for their turn
QUANTUM = 16_384  # bytes that a body may send before the next body's turn
CLOSE_TIMEOUT = 1.0  # seconds for the last frames of a connection


class PendingWrite:
    """A body chunk that waits to be sent."""

    __slots__ = ("at", "data", "end", "future", "may_stall", "moved", "stream")

    def __init__(self, stream: H2Stream, data: bytes, now: float, *, end: bool, may_stall: bool) -> None:
        self.stream = stream
        self.data = data
        self.at = 0
        self.end = end
        self.moved = now
        self.may_stall = may_stall
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class H2Writer:
    """The sending side of a connection.

    `write_timeout` is the number of seconds for which a stream or the connection may make no progress while bytes wait.
    `broken` is called when nothing can be written any more, `stalled` with a stream that made no progress; with
    `tunnels_may_stall`, the streams of tunnels are exempt.
    """

    def __init__(
        self,
        stream: Stream,
        engine: H2Protocol,
        write_timeout: float | None,
        *,
        broken: Callable[[], object],
        stalled: Callable[[H2Stream], object],
        tunnels_may_stall: bool = False,
    ) -> None:
        self.protocol = engine
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._write_timeout = write_timeout
        self._broken = broken
        self._stalled = stalled
        self._tunnels_may_stall = tunnels_may_stall
        self._deadline = ProgressTimer(self._on_timeout)
        self._sweep = ProgressTimer(self._check_stalled)
        self._settings = ProgressTimer(self._check_settings_ack)
        self._settings.start(engine.limits.settings_timeout)
        self._queue: list[tuple[int, int, PendingWrite]] = []
        self._blocked: dict[int, PendingWrite] = {}
        self._numbers = count()
        self._sleep: asyncio.Future[None] | None = None
        self._progress = self._loop.time()
        self._closing = False
        self._checks = False
        self.is_broken = False
        self.timeout_error: str | None = None
        """A description of the timeout that ended the connection, if one did."""

    def flush(self) -> None:
        """Wake `run` to write pending bytes."""
        sleep = self._sleep
        if sleep is not None:
            self._sleep = None
            if not sleep.done():
                sleep.set_result(None)

    # sending

    def send_headers(self, stream: H2Stream, fields: list[Field], *, end: bool) -> None:
        """Send a head or trailers. Raises StreamClosedError if the stream is closed."""
        if stream.state >= CLOSED or self.is_broken:
            raise StreamClosedError(f"{stream} is closed")
        self.protocol.send_head(stream, fields, end=end)
        self.flush()

    async def send(self, stream: H2Stream, data: bytes, *, end: bool, is_tunnel: bool = False) -> None:
        """Send bytes of a body and return once they are in the output buffer.

        Raises StreamClosedError if the stream is closed or is reset while waiting. `data` must not change afterwards.
        """
        engine = self.protocol
        if stream.state >= CLOSED or self.is_broken:
            raise StreamClosedError(f"{stream} is closed")
        size = len(data)
        if not size or (
            not self._queue
            and engine.pending < HIGH_WATER
            and size <= HIGH_WATER
            and size <= engine.room(stream)
        ):
            engine.send_data(stream, data, end=end)
            if size and self._blocked:
                self._progress = self._loop.time()
            self.flush()
            return
        may_stall = is_tunnel and self._tunnels_may_stall
        turn = PendingWrite(stream, data, self._loop.time(), end=end, may_stall=may_stall)
        if engine.send_window > 0 >= stream.send_window:
            self._blocked[stream.id] = turn
        else:
            self._enqueue(turn)
        if self._write_timeout is not None and not self._checks:
            self._checks = True
            self._sweep.start(self._write_timeout)
        self.flush()
        try:
            await turn.future
        finally:
            if not turn.future.done() or turn.future.cancelled():
                turn.data = b""
                self._blocked.pop(stream.id, None)

    def _enqueue(self, turn: PendingWrite) -> None:
        heapq.heappush(self._queue, (turn.stream.urgency, next(self._numbers), turn))

    def window(self, stream: H2Stream) -> None:
        """A stream's send window has grown."""
        if self._blocked and (turn := self._blocked.pop(stream.id, None)) is not None:
            self._enqueue(turn)
            self.flush()

    def on_settings(self) -> None:
        """The send windows of any streams may have grown."""
        while self._blocked:
            self._enqueue(self._blocked.popitem()[1])
        self.flush()

    def stream_reset(self, stream: H2Stream) -> None:
        """A stream was reset: raise StreamClosedError in the task that sends on it."""
        turn = self._blocked.pop(stream.id, None)
        if turn is None:
            turn = next((each for _, _, each in self._queue if each.stream is stream), None)
        if turn is not None:
            turn.data = b""
            if not turn.future.done():
                turn.future.set_exception(StreamClosedError(f"{stream} was reset"))

    # writing

    async def run(self) -> None:
        """Write pending bytes until `finish` is called or writing fails."""
        engine = self.protocol
        try:
            while True:
                if self._queue:
                    self._fill()
                if engine.pending:
                    await self._write(engine.take())
                    continue
                if self._closing:
                    return
                self._sleep = self._loop.create_future()
                await self._sleep
        except (OSError, LlamaError) as error:
            log.debug("%s: %s", self._stream, error)
        finally:
            self._break()

    async def _write(self, data: bytes) -> None:
        if self._write_timeout is None:
            await self._stream.write(data)
            return
        view = memoryview(data)
        for at in range(0, len(data), HIGH_WATER):
            self._deadline.start(self._write_timeout)
            await self._stream.write(view[at : at + HIGH_WATER])
        self._deadline.stop()

    def _fill(self) -> None:
        """Move bytes of waiting bodies to the output buffer, a frame from each in turn, the most urgent first."""
        engine, queue = self.protocol, self._queue
        while queue and engine.pending < HIGH_WATER:
            turn = queue[0][2]
            stream = turn.stream
            if not turn.data or stream.state >= CLOSED:
                heapq.heappop(queue)
                continue
            if engine.send_window <= 0:
                return
            if stream.send_window <= 0:
                heapq.heappop(queue)
                self._blocked[stream.id] = turn
                continue
            self._send_part(turn, min(engine.room(stream), QUANTUM))

    def _send_part(self, turn: PendingWrite, size: int) -> None:
        stop = turn.at + size
        size = len(turn.data)
        done = stop >= size
        part = turn.data if done and not turn.at else turn.data[turn.at : stop]
        self.protocol.send_data(turn.stream, part, end=done and turn.end)
        self._progress = turn.moved = self._loop.time()
        heapq.heappop(self._queue)
        if not done:
            turn.at = stop
            self._enqueue(turn)
        elif not turn.future.done():
            turn.future.set_result(None)

    # timeouts

    def _on_timeout(self) -> None:
        """A write did not finish in time."""
        self._abort(f"the peer accepted no bytes for {self._write_timeout:g} s")
        self._stream.abort()

    def _abort(self, why: str) -> None:
        log.info("%s: %s", self._stream, why)
        self.timeout_error = why
        self._broken()

    def _check_settings_ack(self) -> None:
        """End the connection if the peer has not acknowledged SETTINGS (RFC 9113 section 6.5.3)."""
        if not self.protocol.is_acknowledged and not self.protocol.failed and not self.is_broken:
            seconds = self.protocol.limits.settings_timeout
            self.protocol.fail(frames.SETTINGS_TIMEOUT, "SETTINGS were not acknowledged")
            self.flush()
            self._abort(f"SETTINGS were not acknowledged within {seconds:g} s")

    def _check_stalled(self) -> None:
        """End the streams whose waiting bytes made no progress, or the connection if none did."""
        if self._write_timeout is None or self.is_broken:
            return
        self._checks = False
        now = self._loop.time()
        waiting = [*self._blocked.values(), *[each for _, _, each in self._queue]]
        waiting = [turn for turn in waiting if turn.data and not (turn.may_stall or turn.future.done())]
        late = [turn for turn in waiting if turn.moved + self._write_timeout <= now]
        if late and self._progress + self._write_timeout <= now:
            self.protocol.fail(frames.ENHANCE_YOUR_CALM, "no flow-control window")
            self.flush()
            self._abort(f"nothing could be sent for {self._write_timeout:g} s")
            return
        for turn in late:
            self._stalled(turn.stream)
        if left := [turn.moved for turn in waiting if turn not in late]:
            self._checks = True
            self._sweep.start(max(0.001, min(left) + self._write_timeout - now))

    # the end

    def _break(self) -> None:
        if self.is_broken:
            return
        self.is_broken = True
        self._deadline.close()
        self._sweep.close()
        self._settings.close()
        for turn in [*self._blocked.values(), *[each for _, _, each in self._queue]]:
            if not turn.future.done():
                turn.future.set_exception(StreamClosedError(f"the connection of {turn.stream} was lost"))
        self._blocked.clear()
        self._queue.clear()
        self._broken()

    async def finish(self, task: asyncio.Task[None]) -> None:
        """Write pending bytes for at most a second, then end `run`, whose task is `task`."""
        self._closing = True
        self.flush()
        try:
            await asyncio.wait((task,), timeout=CLOSE_TIMEOUT)
        finally:
            if not task.done():
                task.cancel()

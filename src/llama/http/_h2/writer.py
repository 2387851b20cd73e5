"""The writer of an HTTP/2 connection: it schedules the bodies of all streams and applies flow control.

Many tasks send on one connection at the same time, the peer opens and closes flow-control windows as it likes
(RFC 9113 section 5.2), streams are reset while their senders wait, and the transport may accept bytes slowly or
not at all. Frames must never be mixed within a header block, header blocks must leave in the order in which
HPACK encoded them, one large body must not delay the others, a slow peer must not fill memory, and no sender may
wait for ever.

Only `run` writes to the transport. Heads, trailers and control frames go straight into the engine's output
buffer, so they keep their order and are never delayed by a body's flow control. A body chunk goes there too while
no other chunk waits, less than `HIGH` bytes are pending and the windows have room: the common case costs no
task switch. Otherwise the chunk becomes a `Turn` and its sender waits, which is the backpressure. `run` takes one
`TURN` of bytes from each waiting chunk, the lowest urgency value first (RFC 9218), round-robin among equals. A
turn whose stream has no window is parked outside the queue until a WINDOW_UPDATE, so it is not examined in each
round; one that waits for the connection's window stays queued.

Three timeouts find a peer that does not let bytes out. A write of up to `HIGH` bytes must finish within
`patience`. A periodic check looks for turns that have not moved for that long: if no turn moved, the connection
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

from llama._core.errors import Closed, LlamaError
from llama._core.stream import Stream
from llama.http._h2.wire import frames
from llama.http._h2.wire.hpack_table import Field
from llama.http._h2.wire.protocol import Engine
from llama.http._h2.wire.states import CLOSED
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._progress_timer import Deadline

log = logging.getLogger("llama.server")
HIGH = 65_536  # bytes pending for the transport from which bodies wait for their turn
TURN = 16_384  # bytes that a body may send before the next body's turn
FAREWELL = 1.0  # seconds for the last frames of a connection


class Turn:
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


class Link:
    """The sending side of a connection.

    `patience` is the number of seconds for which a stream or the connection may make no progress while bytes wait.
    `broken` is called when nothing can be written any more, `stalled` with a stream that made no progress; with
    `tunnels_may_stall`, the streams of tunnels are exempt.
    """

    def __init__(
        self,
        stream: Stream,
        engine: Engine,
        patience: float | None,
        *,
        broken: Callable[[], object],
        stalled: Callable[[H2Stream], object],
        tunnels_may_stall: bool = False,
    ) -> None:
        self.engine = engine
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._broken = broken
        self._stalled = stalled
        self._tunnels_may_stall = tunnels_may_stall
        self._deadline = Deadline(self._late)
        self._sweep = Deadline(self._look)
        self._settings = Deadline(self._look_at_settings)
        self._settings.start(engine.limits.settings_timeout)
        self._queue: list[tuple[int, int, Turn]] = []
        self._parked: dict[int, Turn] = {}
        self._numbers = count()
        self._sleep: asyncio.Future[None] | None = None
        self._progress = self._loop.time()
        self._closing = False
        self._looks = False
        self.is_broken = False
        self.late: str | None = None
        """A description of the timeout that ended the connection, if one did."""

    def flush(self) -> None:
        """Wake `run` to write pending bytes."""
        sleep = self._sleep
        if sleep is not None:
            self._sleep = None
            if not sleep.done():
                sleep.set_result(None)

    # sending

    def head(self, stream: H2Stream, fields: list[Field], *, end: bool) -> None:
        """Send a head or trailers. Raises Closed if the stream is closed."""
        if stream.state >= CLOSED or self.is_broken:
            raise Closed(f"{stream} is closed")
        self.engine.send_head(stream, fields, end=end)
        self.flush()

    async def send(self, stream: H2Stream, data: bytes, *, end: bool, is_tunnel: bool = False) -> None:
        """Send bytes of a body and return once they are in the output buffer.

        Raises Closed if the stream is closed or is reset while waiting. `data` must not change afterwards.
        """
        engine = self.engine
        if stream.state >= CLOSED or self.is_broken:
            raise Closed(f"{stream} is closed")
        size = len(data)
        if not size or (
            not self._queue and engine.pending < HIGH and size <= HIGH and size <= engine.room(stream)
        ):
            engine.send_data(stream, data, end=end)
            if size and self._parked:
                self._progress = self._loop.time()
            self.flush()
            return
        may_stall = is_tunnel and self._tunnels_may_stall
        turn = Turn(stream, data, self._loop.time(), end=end, may_stall=may_stall)
        if engine.send_window > 0 >= stream.send_window:
            self._parked[stream.id] = turn
        else:
            self._enqueue(turn)
        if self._patience is not None and not self._looks:
            self._looks = True
            self._sweep.start(self._patience)
        self.flush()
        try:
            await turn.future
        finally:
            if not turn.future.done() or turn.future.cancelled():
                turn.data = b""
                self._parked.pop(stream.id, None)

    def _enqueue(self, turn: Turn) -> None:
        heapq.heappush(self._queue, (turn.stream.urgency, next(self._numbers), turn))

    def window(self, stream: H2Stream) -> None:
        """A stream's send window has grown."""
        if self._parked and (turn := self._parked.pop(stream.id, None)) is not None:
            self._enqueue(turn)
            self.flush()

    def windows(self) -> None:
        """The send windows of any streams may have grown."""
        while self._parked:
            self._enqueue(self._parked.popitem()[1])
        self.flush()

    def ended(self, stream: H2Stream) -> None:
        """A stream was reset: raise Closed in the task that sends on it."""
        turn = self._parked.pop(stream.id, None)
        if turn is None:
            turn = next((each for _, _, each in self._queue if each.stream is stream), None)
        if turn is not None:
            turn.data = b""
            if not turn.future.done():
                turn.future.set_exception(Closed(f"{stream} was reset"))

    # writing

    async def run(self) -> None:
        """Write pending bytes until `finish` is called or writing fails."""
        engine = self.engine
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
        if self._patience is None:
            await self._stream.write(data)
            return
        view = memoryview(data)
        for at in range(0, len(data), HIGH):
            self._deadline.start(self._patience)
            await self._stream.write(view[at : at + HIGH])
        self._deadline.stop()

    def _fill(self) -> None:
        """Move bytes of waiting bodies to the output buffer, a frame from each in turn, the most urgent first."""
        engine, queue = self.engine, self._queue
        while queue and engine.pending < HIGH:
            turn = queue[0][2]
            stream = turn.stream
            if not turn.data or stream.state >= CLOSED:
                heapq.heappop(queue)
                continue
            if engine.send_window <= 0:
                return
            if stream.send_window <= 0:
                heapq.heappop(queue)
                self._parked[stream.id] = turn
                continue
            self._send_part(turn, min(engine.room(stream), TURN))

    def _send_part(self, turn: Turn, size: int) -> None:
        stop = turn.at + size
        size = len(turn.data)
        done = stop >= size
        part = turn.data if done and not turn.at else turn.data[turn.at : stop]
        self.engine.send_data(turn.stream, part, end=done and turn.end)
        self._progress = turn.moved = self._loop.time()
        heapq.heappop(self._queue)
        if not done:
            turn.at = stop
            self._enqueue(turn)
        elif not turn.future.done():
            turn.future.set_result(None)

    # timeouts

    def _late(self) -> None:
        """A write did not finish in time."""
        self._give_up(f"the peer accepted no bytes for {self._patience:g} s")
        self._stream.abort()

    def _give_up(self, why: str) -> None:
        log.info("%s: %s", self._stream, why)
        self.late = why
        self._broken()

    def _look_at_settings(self) -> None:
        """End the connection if the peer has not acknowledged SETTINGS (RFC 9113 section 6.5.3)."""
        if not self.engine.is_acknowledged and not self.engine.failed and not self.is_broken:
            seconds = self.engine.limits.settings_timeout
            self.engine.fail(frames.SETTINGS_TIMEOUT, "SETTINGS were not acknowledged")
            self.flush()
            self._give_up(f"SETTINGS were not acknowledged within {seconds:g} s")

    def _look(self) -> None:
        """End the streams whose waiting bytes made no progress, or the connection if none did."""
        if self._patience is None or self.is_broken:
            return
        self._looks = False
        now = self._loop.time()
        waiting = [*self._parked.values(), *[each for _, _, each in self._queue]]
        waiting = [turn for turn in waiting if turn.data and not (turn.may_stall or turn.future.done())]
        late = [turn for turn in waiting if turn.moved + self._patience <= now]
        if late and self._progress + self._patience <= now:
            self.engine.fail(frames.ENHANCE_YOUR_CALM, "no flow-control window")
            self.flush()
            self._give_up(f"nothing could be sent for {self._patience:g} s")
            return
        for turn in late:
            self._stalled(turn.stream)
        if left := [turn.moved for turn in waiting if turn not in late]:
            self._looks = True
            self._sweep.start(max(0.001, min(left) + self._patience - now))

    # the end

    def _break(self) -> None:
        if self.is_broken:
            return
        self.is_broken = True
        self._deadline.close()
        self._sweep.close()
        self._settings.close()
        for turn in [*self._parked.values(), *[each for _, _, each in self._queue]]:
            if not turn.future.done():
                turn.future.set_exception(Closed(f"the connection of {turn.stream} was lost"))
        self._parked.clear()
        self._queue.clear()
        self._broken()

    async def finish(self, task: asyncio.Task[None]) -> None:
        """Write pending bytes for at most a second, then end `run`, whose task is `task`."""
        self._closing = True
        self.flush()
        try:
            await asyncio.wait((task,), timeout=FAREWELL)
        finally:
            if not task.done():
                task.cancel()

"""The pump between two plain sockets: direct system calls, and splice for bulk transfers (Linux).

Situations to handle: a direction changes between bulk and small messages, a source delivers in small segments, the
system has no more pipes, a destination blocks with bytes in the pipe, and a meter slows either side. Failures to
rule out: bytes reordered or lost between a pipe and a buffer, a pipe with bytes of another connection, or a
pipe held by every idle connection.

- Most connections carry little. They are copied through the loop's shared buffer with `recv_into` and `send`:
  no pipe, no copy to the heap, no call through the stream's methods. Streams with meters or with bytes that were
  put back (`bypass_fast_path`) take the generic path.
- FULL_READS_BEFORE_SPLICE full reads in a row make a direction bulk, not a total of bytes: a long-lived connection
  with small
  messages would otherwise splice them, at two system calls and a pipe for each.
- splice moves bytes from socket to pipe to socket inside the kernel: 0.30 to 0.45 s/GB measured, against 0.47
  to 0.6 for asyncio protocols. A pipe is filled only when it is empty, so EAGAIN from the first splice
  always means an empty socket (with a full pipe it would be ambiguous), and EAGAIN from the second means a full
  one. Bytes left in the pipe stop the reads: this is the backpressure.
- Small segments fill the pipe's pages poorly (about 3 KB for each call), so MAX_SMALL_SPLICES small splices in a row
  return
  the direction to copying. The pipe is empty at that moment.
- Pipes come from a budget (`pipe_pool`): the system gives an ordinary user a limited number of pages. Without a
  pipe the direction continues to copy, and tries again after FULL_READS_BEFORE_SPLICE further full reads.
- A pipe belongs to one pump, and is closed, never reused, so bytes of one connection cannot reach another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from llama._core.stream import Buffer
from llama.tcp._io.stream import BUFFER_SIZE, SocketStream, scratch
from llama.tcp._relay.pump import MAX_READS_PER_TURN, Pump, WriteFailed

if sys.platform == "linux":
    from llama.tcp._relay import pipe_pool

FULL_READ = 65536  # a read of this size is a full one
FULL_READS_BEFORE_SPLICE = 4  # consecutive full reads that make a direction bulk
SMALL_SPLICE = 16384  # a splice of fewer bytes is a small one
MAX_SMALL_SPLICES = 8  # consecutive small splices that end splicing
_SPLICE = 3  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK


class SocketPump(Pump):
    """Moves bytes between two socket streams; uses the generic path for meters and for bytes that were put back."""

    __slots__ = ("_full", "_pipe", "_piped", "_receive", "_send", "_sink", "_source")

    def __init__(
        self, src: SocketStream, dst: SocketStream, ended: Callable[[Pump, Exception | None], None]
    ) -> None:
        super().__init__(src, dst, ended)
        self._source = src
        self._sink = dst
        self._receive = src.socket.recv_into
        self._send = dst.socket.send
        self._full = 0
        self._pipe: tuple[int, int] | None = None
        self._piped = 0

    def stop(self) -> None:
        super().stop()
        self._drop_pipe()

    def _drop_pipe(self) -> None:
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            pipe_pool.release(pipe)

    def step(self) -> None:
        # The hot path of every byte that is not spliced, so it avoids the method calls of the generic path.
        source, sink = self._source, self._sink
        if source.bypass_fast_path or sink.bypass_fast_path:
            super().step()
            return
        port, view = source.port, scratch()
        for _ in range(MAX_READS_PER_TURN):
            try:
                size = self._receive(view)
            except BlockingIOError:
                port.clear_readable()
                return
            except OSError as error:
                self._end(error)
                return
            if not size:
                source.mark_eof()
                self._pass_end()
                return
            if size < BUFFER_SIZE and not port.hangup:
                port.clear_readable()
            try:
                sent = self._send(view[:size])
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._end(WriteFailed(error))
                return
            self.count += sent
            if sent < size:
                sink.port.clear_writable()
                self._stall(bytes(view[sent:size]))
                return
            if size < FULL_READ:
                self._full = 0
            elif not self._go_on(size):
                return
            if not port.readable:
                return
        source.on_readable(self.step)  # in the next iteration: let other connections run

    def _put(self, data: Buffer) -> bool:
        return super()._put(data) and self._go_on(len(data))

    def _go_on(self, size: int) -> bool:
        """Count full reads; True while the direction is not bulk."""
        if size < FULL_READ:
            self._full = 0
            return True
        self._full += 1
        return self._full < FULL_READS_BEFORE_SPLICE or not self._begin_splice()

    # Splicing, while the direction is bulk.

    def _begin_splice(self) -> bool:
        self._full = 0
        self._pipe = pipe_pool.acquire() if sys.platform == "linux" else None
        if self._pipe is None:
            return False
        self._source.on_readable(self._splice)
        return True

    def _splice(self) -> None:
        if self._pipe is None:
            return
        source = self._source
        for _ in range(MAX_READS_PER_TURN):
            if not source.port.readable:
                return
            size = self._fill_pipe(self._pipe)
            if size is None:
                return
            self._full = self._full + 1 if size < SMALL_SPLICE else 0
            if not self._empty_pipe(self._pipe):
                source.on_readable(None)
                self._sink.on_writable(self._resume_splice)
                return
            if self.done:
                return
            if self._full >= MAX_SMALL_SPLICES:
                self._drop_pipe()
                self._full = 0
                source.on_readable(self.step)
                return
        source.on_readable(self._splice)

    def _fill_pipe(self, pipe: tuple[int, int]) -> int | None:
        """Splice from the source into the pipe; None if the source has no bytes now, or has ended."""
        source, limit = self._source, BUFFER_SIZE
        try:
            if (pace := source.pacer) is not None:
                if (delay := pace.read_delay()) > 0:
                    source.port.delay_readable(delay)
                    return None
                limit = pace.cap_read(limit)
            size = os.splice(source.socket.fileno(), pipe[1], limit, flags=_SPLICE)
            if size and pace is not None:
                pace.on_received(size)
        except BlockingIOError:
            source.port.clear_readable()
            return None
        except Exception as error:  # a meter's too
            self._end(error)
            return None
        if not size:
            source.mark_eof()
            self._pass_end()
            return None
        self._piped = size
        return size

    def _empty_pipe(self, pipe: tuple[int, int]) -> bool:
        """Splice from the pipe into the destination; True if the pipe is empty or the write failed."""
        sink = self._sink
        pace = sink.pacer
        try:
            while self._piped:
                limit = self._piped
                if pace is not None:
                    if (delay := pace.write_delay()) > 0:
                        sink.port.delay_writable(delay)
                        return False
                    limit = pace.cap_read(limit)
                sent = os.splice(pipe[0], sink.socket.fileno(), limit, flags=_SPLICE)
                self._piped -= sent
                self.count += sent
                if pace is not None:
                    pace.on_sent(sent)
        except BlockingIOError:
            sink.port.clear_writable()
            return False
        except Exception as error:  # a meter's too
            self._end(WriteFailed(error))
        return True

    def _resume_splice(self) -> None:
        if self._pipe is not None and self._empty_pipe(self._pipe) and not self.done:
            self._sink.on_writable(None)
            self._source.on_readable(self._splice)

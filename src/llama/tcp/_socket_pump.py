"""The pump between two plain sockets: no layers of calls, and splice once a direction proves to be bulk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from llama._stream import Buffer
from llama.tcp._pump import ROUNDS, Pump, WriteFailed
from llama.tcp._stream import SCRATCH, SocketStream, scratch

if sys.platform == "linux":
    from llama.tcp import _pipes

BULK = 65536  # a read of this size is a full one
PROOF = 4  # so many full reads in a row make a direction bulk
SMALL = 16384
DOUBT = 8  # so many small splices in a row end it
_SPLICE = 3  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK


class SocketPump(Pump):
    """Moves bytes between two socket streams. What was unread and what meters ask for goes the usual way."""

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
            _pipes.give(pipe)

    def step(self) -> None:
        # Every byte that is not spliced comes this way, so calls are spared that the usual way makes.
        source, sink = self._source, self._sink
        if source.special or sink.special:
            super().step()
            return
        port, view = source.port, scratch()
        for _ in range(ROUNDS):
            try:
                size = self._receive(view)
            except BlockingIOError:
                port.unreadable()
                return
            except OSError as error:
                self._end(error)
                return
            if not size:
                source.mark_eof()
                self._pass_end()
                return
            if size < SCRATCH and not port.hangup:
                port.unreadable()
            try:
                sent = self._send(view[:size])
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._end(WriteFailed(error))
                return
            self.count += sent
            if sent < size:
                sink.port.unwritable()
                self._stall(bytes(view[sent:size]))
                return
            if size < BULK:
                self._full = 0
            elif not self._go_on(size):
                return
            if not port.readable:
                return
        source.on_readable(self.step)  # the others' turn first

    def _put(self, data: Buffer) -> bool:
        return super()._put(data) and self._go_on(len(data))

    def _go_on(self, size: int) -> bool:
        """True while the direction is not bulk."""
        if size < BULK:
            self._full = 0
            return True
        self._full += 1
        return self._full < PROOF or not self._begin_splice()

    # By splice, while the direction is bulk.

    def _begin_splice(self) -> bool:
        self._full = 0
        self._pipe = _pipes.take() if sys.platform == "linux" else None
        if self._pipe is None:
            return False
        self._source.on_readable(self._splice)
        return True

    def _splice(self) -> None:
        if self._pipe is None:
            return
        source = self._source
        for _ in range(ROUNDS):
            if not source.port.readable:
                return
            size = self._fill_pipe(self._pipe)
            if size is None:
                return
            self._full = self._full + 1 if size < SMALL else 0
            if not self._empty_pipe(self._pipe):
                source.on_readable(None)
                self._sink.on_writable(self._resume_splice)
                return
            if self.over:
                return
            if self._full >= DOUBT:
                self._drop_pipe()
                self._full = 0
                source.on_readable(self.step)
                return
        source.on_readable(self._splice)

    def _fill_pipe(self, pipe: tuple[int, int]) -> int | None:
        """Take what the source has; None when that is nothing now, or when it has ended."""
        source, limit = self._source, SCRATCH
        try:
            if (pace := source.pace) is not None:
                if (delay := pace.read_delay()) > 0:
                    source.port.hold_readable(delay)
                    return None
                limit = pace.cap(limit)
            size = os.splice(source.socket.fileno(), pipe[1], limit, flags=_SPLICE)
            if size and pace is not None:
                pace.received(size)
        except BlockingIOError:
            source.port.unreadable()
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
        """Push what the pipe holds; True when it is empty, or nobody takes it any more."""
        sink = self._sink
        pace = sink.pace
        try:
            while self._piped:
                limit = self._piped
                if pace is not None:
                    if (delay := pace.write_delay()) > 0:
                        sink.port.hold_writable(delay)
                        return False
                    limit = pace.cap(limit)
                sent = os.splice(pipe[0], sink.socket.fileno(), limit, flags=_SPLICE)
                self._piped -= sent
                self.count += sent
                if pace is not None:
                    pace.sent(sent)
        except BlockingIOError:
            sink.port.unwritable()
            return False
        except Exception as error:  # a meter's too
            self._end(WriteFailed(error))
        return True

    def _resume_splice(self) -> None:
        if self._pipe is not None and self._empty_pipe(self._pipe) and not self.over:
            self._sink.on_writable(None)
            self._source.on_readable(self._splice)

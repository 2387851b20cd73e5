"""One direction of a relay, driven by readiness callbacks: no task, no timer, no buffer while idle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import cast

from llama._stream import Buffer, ReadyStream
from llama.tcp._stream import SCRATCH, SocketStream

if sys.platform == "linux":
    from llama.tcp import _pipes

BULK = 65536  # a read of this size is a full one
PROOF = 4  # so many full reads in a row make a direction bulk
SMALL = 16384
DOUBT = 8  # so many small splices in a row end it
_SPLICE = 3  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK


class Pump:
    """Moves bytes from one stream to another until the end, which it passes on.

    `ended` is called once, with the error that ended it or None. The streams stay their owner's.
    """

    __slots__ = (
        "_dst",
        "_ended",
        "_full",
        "_pending",
        "_pipe",
        "_piped",
        "_spliceable",
        "_src",
        "count",
        "over",
    )

    def __init__(
        self, src: ReadyStream, dst: ReadyStream, ended: Callable[[Pump, Exception | None], None]
    ) -> None:
        self._src = src
        self._dst = dst
        self._ended = ended
        self._pending: Buffer = b""
        self._full = 0
        self._pipe: tuple[int, int] | None = None
        self._piped = 0
        self._spliceable = _can_splice(src, dst)
        self.count = 0
        self.over = False

    def start(self) -> None:
        """Begin; `ended` may be called from the next round of the loop on."""
        self._src.on_readable(self._step)

    def stop(self) -> None:
        """Let go of both streams; `ended` is not called any more."""
        if not self.over:
            self.over = True
            self._src.on_readable(None)
            self._dst.on_writable(None)
        if self._pipe is not None:
            _pipes.give(self._pipe)
            self._pipe = None

    def _end(self, error: Exception | None) -> None:
        if not self.over:
            self.stop()
            self._ended(self, error)

    def _step(self) -> None:
        try:
            data = self._src.read_nowait(SCRATCH)
        except Exception as error:
            self._end(error)
            return
        if data is None:
            return
        if not data:
            self._pass_end()
        else:
            self._put(data)

    def _put(self, data: Buffer) -> None:
        size = len(data)
        try:
            taken = self._dst.write_nowait(data)
            whole = taken == size and self._dst.flush_nowait()
        except Exception as error:
            self._end(WriteFailed(error))
            return
        self.count += taken
        if not whole:
            self._pending = bytes(data[taken:])
            self._src.on_readable(None)
            self._dst.on_writable(self._resume)
        elif size < BULK:
            self._full = 0
        else:
            self._bulk(size)

    def _bulk(self, size: int) -> None:
        self._full += 1
        if self._full >= PROOF and self._spliceable:
            self._full = 0
            self._pipe = _pipes.take()
            if self._pipe is not None:
                self._src.on_readable(self._splice)
                return
        if size == SCRATCH:  # a stream of its own buffers may hold more without another report
            self._src.on_readable(self._step)

    def _resume(self) -> None:
        """The destination takes bytes again."""
        try:
            if not self._dst.flush_nowait():
                return
            while self._pending:
                taken = self._dst.write_nowait(self._pending)
                self.count += taken
                self._pending = memoryview(self._pending)[taken:]
                if not taken or not self._dst.flush_nowait():
                    return
        except Exception as error:
            self._end(WriteFailed(error))
            return
        self._pending = b""
        self._dst.on_writable(None)
        self._src.on_readable(self._step)

    def _pass_end(self) -> None:
        self._src.on_readable(None)
        try:
            self._dst.write_eof_nowait()
            if not self._dst.flush_nowait():
                self._dst.on_writable(self._flush_end)
                return
        except Exception as error:
            self._end(WriteFailed(error))
            return
        self._end(None)

    def _flush_end(self) -> None:
        try:
            if not self._dst.flush_nowait():
                return
        except Exception as error:
            self._end(WriteFailed(error))
            return
        self._end(None)

    # By splice, while the direction is bulk and both ends are plain sockets.

    def _splice(self) -> None:
        src, pipe = cast("SocketStream", self._src), cast("tuple[int, int]", self._pipe)
        limit, pace = SCRATCH, src._pace
        if pace is not None:
            if (delay := pace.read_delay()) > 0:
                src._readable.hold(delay)
                return
            limit = pace.cap(limit)
        try:
            size = os.splice(src.socket.fileno(), pipe[1], limit, flags=_SPLICE)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if not size:
            self._pass_end()
            return
        if pace is not None:
            pace.received(size)
        self._piped = size
        self._full = self._full + 1 if size < SMALL else 0
        if not self._empty_pipe():
            self._src.on_readable(None)
            self._dst.on_writable(self._resume_splice)
        elif self._full >= DOUBT:
            self._leave_splice()

    def _empty_pipe(self) -> bool:
        """Push what the pipe holds; True when it is empty."""
        dst, pipe = cast("SocketStream", self._dst), cast("tuple[int, int]", self._pipe)
        pace = dst._pace
        try:
            while self._piped:
                limit = self._piped
                if pace is not None:
                    if (delay := pace.write_delay()) > 0:
                        dst._writer().hold(delay)
                        return False
                    limit = pace.cap(limit)
                sent = os.splice(pipe[0], dst.socket.fileno(), limit, flags=_SPLICE)
                self._piped -= sent
                self.count += sent
                if pace is not None:
                    pace.sent(sent)
        except BlockingIOError:
            return False
        except OSError as error:
            self._end(WriteFailed(error))
        return True

    def _resume_splice(self) -> None:
        if self._empty_pipe() and not self.over:
            self._dst.on_writable(None)
            self._src.on_readable(self._splice)

    def _leave_splice(self) -> None:
        if self._pipe is not None:
            _pipes.give(self._pipe)
            self._pipe = None
        self._full = 0
        self._src.on_readable(self._step)


class WriteFailed(Exception):
    """The destination takes no more; the cause says why. Its own direction may still hold bytes."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


def _can_splice(src: ReadyStream, dst: ReadyStream) -> bool:
    return sys.platform == "linux" and isinstance(src, SocketStream) and isinstance(dst, SocketStream)

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
ROUNDS = 4  # so many reads before others have their turn
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
        for _ in range(ROUNDS):
            try:
                data = self._src.read_nowait(SCRATCH)
            except Exception as error:
                self._end(error)
                return
            if data is None:
                return
            if not data:
                self._pass_end()
                return
            if not self._put(data):
                return
        self._src.on_readable(self._step)  # the others' turn first

    def _put(self, data: Buffer) -> bool:
        """Write; True when the next read may follow at once."""
        size = len(data)
        try:
            taken = self._dst.write_nowait(data)
            whole = taken == size and self._dst.flush_nowait()
        except Exception as error:
            self._end(WriteFailed(error))
            return False
        self.count += taken
        if not whole:
            self._pending = bytes(data[taken:])
            self._src.on_readable(None)
            self._dst.on_writable(self._resume)
            return False
        if size < BULK:
            self._full = 0
            return True
        self._full += 1
        return self._full < PROOF or not self._begin_splice()

    def _begin_splice(self) -> bool:
        self._full = 0
        self._pipe = _pipes.take() if self._spliceable else None
        if self._pipe is None:
            return False
        self._src.on_readable(self._splice)
        return True

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
        for _ in range(ROUNDS):
            if not src.port.readable:
                return
            try:
                size = os.splice(src.socket.fileno(), pipe[1], SCRATCH, flags=_SPLICE)
            except BlockingIOError:
                src.port.unreadable()
                return
            except OSError as error:
                self._end(error)
                return
            if not size:
                self._pass_end()
                return
            self._piped = size
            self._full = self._full + 1 if size < SMALL else 0
            if not self._empty_pipe():
                src.on_readable(None)
                self._dst.on_writable(self._resume_splice)
                return
            if self.over or self._full >= DOUBT:
                break
        if not self.over:
            self._leave_splice() if self._full >= DOUBT else src.on_readable(self._splice)

    def _empty_pipe(self) -> bool:
        """Push what the pipe holds; True when it is empty, or nobody takes it any more."""
        dst, pipe = cast("SocketStream", self._dst), cast("tuple[int, int]", self._pipe)
        try:
            while self._piped:
                sent = os.splice(pipe[0], dst.socket.fileno(), self._piped, flags=_SPLICE)
                self._piped -= sent
                self.count += sent
        except BlockingIOError:
            dst.port.unwritable()
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

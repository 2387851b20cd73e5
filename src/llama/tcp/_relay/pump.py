"""One direction of a relay, driven by readiness callbacks: it has no task, no timer, and no buffer while idle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from llama._core.stream import Buffer, NonblockingStream
from llama.tcp._io.stream import BUFFER_SIZE

MAX_READS_PER_TURN = 4  # reads in one callback, before other connections run


class Pump:
    """Moves bytes from one stream to another until the end of the source, which it passes on as a half-close.

    `ended` is called once, with the error that ended the pump, or None. The caller owns the streams. If `skip_eof` is
    set the end is not passed on, because the caller closes the destination next. If `source_error` is set the source
    has broken, and its end is reported as that error.
    """

    __slots__ = ("_dst", "_ended", "_pending", "_src", "count", "done", "skip_eof", "source_error")

    def __init__(
        self, src: NonblockingStream, dst: NonblockingStream, ended: Callable[[Pump, Exception | None], None]
    ) -> None:
        self._src = src
        self._dst = dst
        self._ended = ended
        self._pending: Buffer = b""
        self.count = 0
        self.skip_eof = self.done = False
        self.source_error: Exception | None = None

    def start(self) -> None:
        """Start; `ended` may be called from the next loop iteration on."""
        self._src.on_readable(self.step)

    def stop(self) -> None:
        """Remove the callbacks from both streams; `ended` is no longer called."""
        if not self.done:
            self.done = True
            self._src.on_readable(None)
            self._dst.on_writable(None)

    def _end(self, error: Exception | None) -> None:
        if not self.done:
            self.stop()
            self._ended(self, error)

    def step(self) -> None:
        """Move the available bytes, in at most MAX_READS_PER_TURN reads."""
        for _ in range(MAX_READS_PER_TURN):
            try:
                data = self._src.read_nowait(BUFFER_SIZE)
            except Exception as error:
                self._end(error)
                return
            if data is None:
                return
            if not data:
                self._pass_end()
                return
            if not self._put(data) or not self._src.may_read_more:
                return
        self._src.on_readable(self.step)  # in the next iteration: let other connections run

    def _put(self, data: Buffer) -> bool:
        """Write; True if the next read may follow immediately."""
        try:
            taken = self._dst.write_nowait(data)
            whole = taken == len(data) and self._dst.flush_nowait()
        except Exception as error:
            self._end(WriteFailed(error))
            return False
        self.count += taken
        if not whole:
            self._stall(bytes(data[taken:]))
        return whole

    def _stall(self, rest: Buffer) -> None:
        """Keep the bytes that the destination did not accept, and stop reading until it does (backpressure)."""
        self._pending = rest
        self._src.on_readable(None)
        self._dst.on_writable(self._resume)

    def _resume(self) -> None:
        """Continue: the destination accepts bytes again."""
        try:
            while self._dst.flush_nowait() and self._pending:
                taken = self._dst.write_nowait(self._pending)
                self.count += taken
                self._pending = memoryview(self._pending)[taken:]
                if not taken:
                    return
            if self._pending or not self._dst.flush_nowait():
                return
        except Exception as error:
            self._end(WriteFailed(error))
            return
        self._pending = b""
        self._dst.on_writable(None)
        self._src.on_readable(self.step)

    def _pass_end(self) -> None:
        self._src.on_readable(None)
        if self.source_error is not None:
            self._end(self.source_error)
            return
        try:
            if not self.skip_eof:
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


class WriteFailed(Exception):
    """A write to the destination failed with `cause`. Bytes from the destination may still be unread."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


class PumpingStream(NonblockingStream):
    """A stream with a faster pump to or from certain other streams."""

    __slots__ = ()

    @abstractmethod
    def make_pump(
        self,
        src: NonblockingStream,
        dst: NonblockingStream,
        ended: Callable[[Pump, Exception | None], None],
        /,
    ) -> Pump | None:
        """Return a pump between two streams, one of which is this one; None for the generic Pump."""

"""One direction of a relay, driven by readiness callbacks: no task, no timer, no buffer while idle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from llama._stream import Buffer, ReadyStream
from llama.tcp._stream import SCRATCH

ROUNDS = 4  # so many reads before others have their turn


class Pump:
    """Moves bytes from one stream to another until the end, which it passes on.

    `ended` is called once, with the error that ended it or None. The streams stay their owner's. Where
    `last` is set the end is not passed on: whoever closes the destination next says it. Where `lost` is set
    the source is known to be broken, so that its end is none.
    """

    __slots__ = ("_dst", "_ended", "_pending", "_src", "count", "last", "lost", "over")

    def __init__(
        self, src: ReadyStream, dst: ReadyStream, ended: Callable[[Pump, Exception | None], None]
    ) -> None:
        self._src = src
        self._dst = dst
        self._ended = ended
        self._pending: Buffer = b""
        self.count = 0
        self.last = self.over = False
        self.lost: Exception | None = None

    def start(self) -> None:
        """Begin; `ended` may be called from the next round of the loop on."""
        self._src.on_readable(self.step)

    def stop(self) -> None:
        """Let go of both streams; `ended` is not called any more."""
        if not self.over:
            self.over = True
            self._src.on_readable(None)
            self._dst.on_writable(None)

    def _end(self, error: Exception | None) -> None:
        if not self.over:
            self.stop()
            self._ended(self, error)

    def step(self) -> None:
        """Move what is there."""
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
            if not self._put(data) or not self._src.more:
                return
        self._src.on_readable(self.step)  # the others' turn first

    def _put(self, data: Buffer) -> bool:
        """Write; True when the next read may follow at once."""
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
        """Keep what the destination does not take, and read no more until it does."""
        self._pending = rest
        self._src.on_readable(None)
        self._dst.on_writable(self._resume)

    def _resume(self) -> None:
        """The destination takes bytes again."""
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
        if self.lost is not None:
            self._end(self.lost)
            return
        try:
            if not self.last:
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
    """The destination takes no more; the cause says why. Its own direction may still hold bytes."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


class PumpingStream(ReadyStream):
    """A stream that knows a better way to or from some others than by its own readiness."""

    __slots__ = ()

    @abstractmethod
    def make_pump(
        self, src: ReadyStream, dst: ReadyStream, ended: Callable[[Pump, Exception | None], None], /
    ) -> Pump | None:
        """The pump between two streams, of which it is one; None for the usual one."""

"""Streams in memory, to replace sockets in tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from llama._core.errors import StreamClosedError
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, NonblockingStream, busy_error, closed_error
from llama.testing._channel_end import ChannelEnd

CAPACITY = 65536


class Channel:
    """One direction: a buffer of at most `capacity` unread bytes."""

    __slots__ = (
        "_broken",
        "_data",
        "_ended",
        "_refused",
        "capacity",
        "lockstep",
        "piece",
        "reader",
        "writer",
    )

    def __init__(self, capacity: int, piece: int | None, *, lockstep: bool) -> None:
        self.capacity = capacity
        self.piece = piece
        self.lockstep = lockstep
        self.reader: ChannelEnd | None = None
        self.writer: ChannelEnd | None = None
        self._data = bytearray()
        self._ended = False
        self._broken: int | None = None
        self._refused: int | None = None

    def readable(self) -> bool:
        """Whether `take` would not wait."""
        return bool(self._data) or self._ended or self._broken is not None

    def writable(self) -> bool:
        """Whether `put` or `flushed` can make progress."""
        return self._refused is not None or len(self._data) < (1 if self.lockstep else self.capacity)

    def take(self, limit: int) -> bytes | None:
        """Take buffered bytes; b"" at the end, None if there are none yet. Raises a reset only after earlier data."""
        if self._data:
            size = limit if self.piece is None else min(limit, self.piece)
            data = bytes(self._data[:size])
            del self._data[:size]
            _check(self.writer)
            return data
        if self._broken is not None:
            raise system_error(self._broken)
        return b"" if self._ended else None

    def put(self, data: memoryview) -> int:
        """Buffer as many bytes as fit."""
        if self._refused is not None:
            raise system_error(self._refused)
        room = self.capacity - len(self._data)
        if room <= 0:
            return 0
        self._data += data[:room]
        _check(self.reader)
        return min(room, len(data))

    def flushed(self) -> bool:
        """Return whether a write may return: in lockstep only once everything has been read."""
        if self.lockstep and self._refused is not None:
            raise system_error(self._refused)
        return not (self.lockstep and self._data)

    def end(self) -> None:
        """Handle the writer's end of stream."""
        self._ended = True
        _check(self.reader)

    def break_off(self, code: int) -> None:
        """Handle a reset by the writer."""
        self._broken = code
        _check(self.reader)

    def refuse(self, code: int) -> None:
        """Handle a close by the reader."""
        self._refused = code
        self._data.clear()
        _check(self.writer)


def _check(side: ChannelEnd | None) -> None:
    if side is not None:
        side.check()


def system_error(code: int) -> OSError:
    """Return the error that a socket would raise."""
    return OSError(code, os.strerror(code))


class MemoryStream(NonblockingStream):
    """One end of a connection in memory that behaves like a socket; `memory_pair` makes two."""

    __slots__ = (
        "_broken",
        "_closed",
        "_eof_sent",
        "_incoming",
        "_name",
        "_outgoing",
        "_reading",
        "_reads",
        "_unread",
        "_writes",
        "_writing",
    )

    def __init__(self, incoming: Channel, outgoing: Channel, name: str) -> None:
        super().__init__()
        self._name = name
        self._incoming = incoming
        self._outgoing = outgoing
        self._reads = incoming.reader = ChannelEnd(self._readable, self._read_delay)
        self._writes = outgoing.writer = ChannelEnd(outgoing.writable, self._write_delay)
        self._unread = b""
        self._reading = self._writing = self._eof_sent = self._closed = self._broken = False

    def __repr__(self) -> str:
        return f"<memory stream {self._name}>"

    def _readable(self) -> bool:
        return bool(self._unread) or self._incoming.readable()

    def _read_delay(self) -> float:
        return 0.0 if self._pacer is None or self._unread else self._pacer.read_delay()

    def _write_delay(self) -> float:
        return 0.0 if self._pacer is None else self._pacer.write_delay()

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        if self._reading:
            raise busy_error(self, "reading")
        if limit < 1:
            raise ValueError(f"a read of {limit} bytes: expected at least 1")
        self._reading = True
        try:
            while (data := self.read_nowait(limit)) is None:
                await self._reads.wait()
            return data
        finally:
            self._reading = False

    def read_nowait(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes | None:
        if self._closed:
            raise closed_error(self)
        data = self._take(limit)
        if data is None:
            self._reads.fell_short()
        return data

    def _take(self, limit: int) -> bytes | None:
        if self._unread:
            data, self._unread = self._unread[:limit], self._unread[limit:]
            return data
        pace = self._pacer
        if pace is None:
            return self._incoming.take(limit)
        if self._read_delay() > 0:
            return None
        taken = self._incoming.take(pace.cap_read(limit))
        if taken:
            pace.on_received(len(taken))
        return taken

    def unread(self, data: bytes, /) -> None:
        self._unread = data + self._unread
        self._reads.check()

    def on_readable(self, callback: Callable[[], object] | None, /) -> None:
        if not self._closed:
            self._reads.on(callback)

    async def write(self, data: Buffer, /) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        view = memoryview(data).cast("B")
        count = 0
        self._writing = True
        try:
            while count < len(view):
                taken = self.write_nowait(view[count:])
                count += taken
                if not taken:
                    await self._writes.wait()
            while not self.flush_nowait():
                await self._writes.wait()
        except BaseException:
            self._broken = self._broken or count > 0
            raise
        finally:
            self._writing = False

    def write_nowait(self, data: Buffer, /) -> int:
        self._check_write()
        view = memoryview(data).cast("B")
        count = self._put(view)
        if count < len(view):
            self._writes.fell_short()
        return count

    def _put(self, view: memoryview) -> int:
        pace = self._pacer
        if pace is None:
            return self._outgoing.put(view)
        if self._write_delay() > 0:
            return 0
        count = self._outgoing.put(view[: pace.cap_read(len(view))])
        if count:
            pace.on_sent(count)
        return count

    def _check_write(self) -> None:
        if self._closed:
            raise closed_error(self)
        if self._eof_sent:
            raise StreamClosedError(f"{self!r} takes no more writes: write_eof was called")
        if self._broken:
            raise StreamClosedError(f"{self!r} takes no more writes: an earlier write was cancelled halfway")

    def flush_nowait(self) -> bool:
        if self._closed:
            raise closed_error(self)
        flushed = self._outgoing.flushed()
        if not flushed:
            self._writes.fell_short()
        return flushed

    def on_writable(self, callback: Callable[[], object] | None, /) -> None:
        if not self._closed:
            self._writes.on(callback)

    async def write_eof(self) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        self.write_eof_nowait()

    def write_eof_nowait(self) -> None:
        if self._closed:
            raise closed_error(self)
        if not self._eof_sent:
            self._eof_sent = True
            self._outgoing.end()

    async def aclose(self) -> None:
        if not self._closed:
            self._leave()
            self._outgoing.end()
            self._incoming.refuse(errno.EPIPE)

    def abort(self) -> None:
        if not self._closed:
            self._leave()
            self._outgoing.break_off(errno.ECONNRESET)
            self._incoming.refuse(errno.ECONNRESET)

    def _leave(self) -> None:
        self._closed = True
        self._reads.fail(closed_error(self))
        self._writes.fail(closed_error(self))


def memory_pair(
    *, capacity: int = CAPACITY, names: tuple[str, str] = ("client", "server")
) -> tuple[MemoryStream, MemoryStream]:
    """Return two connected streams; each direction buffers at most `capacity` bytes, then the writer waits."""
    return _pair(capacity, None, names, lockstep=False)


def lockstep_pair(
    *, piece: int | None = None, capacity: int = CAPACITY, names: tuple[str, str] = ("client", "server")
) -> tuple[MemoryStream, MemoryStream]:
    """Return two connected streams on which a write returns only when the peer has read all of it.

    This detects deadlocks of two peers that both write first. `piece` is the maximum size of a read: 1 for a byte at
    a time.
    """
    return _pair(capacity, piece, names, lockstep=True)


def _pair(
    capacity: int, piece: int | None, names: tuple[str, str], *, lockstep: bool
) -> tuple[MemoryStream, MemoryStream]:
    there = Channel(capacity, piece, lockstep=lockstep)
    back = Channel(capacity, piece, lockstep=lockstep)
    return MemoryStream(back, there, names[0]), MemoryStream(there, back, names[1])

"""A simulated network that splits, delays and breaks, reproducibly for a given seed."""

from __future__ import annotations

import asyncio
import errno
from random import Random

from llama._core.errors import StreamClosedError
from llama._core.meter import Meter
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, Stream, busy_error
from llama.testing._memory import system_error

ROUNDS = 3  # maximum delay of a piece, in loop iterations


class FaultyStream(Stream):
    """A stream over a bad network, made by `faulty`; it owns the inner stream."""

    __slots__ = ("_broken", "_left", "_random", "_reading", "_writing", "inner")

    def __init__(self, inner: Stream, random: Random, breaks: int | None) -> None:
        super().__init__()
        self.inner = inner
        self.extensions = inner.extensions
        self._random = random
        self._left = breaks
        self._reading = self._writing = self._broken = False

    def __repr__(self) -> str:
        return f"<faulty {self.inner!r}>"

    def attach(self, meter: Meter, /) -> None:
        self.inner.attach(meter)

    def detach(self, meter: Meter, /) -> None:
        self.inner.detach(meter)

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        if self._reading:
            raise busy_error(self, "reading")
        self._reading = True
        try:
            await self._late()
            data = await self.inner.read(self._size(limit) if limit > 0 else limit)
        finally:
            self._reading = False
        self._wear(len(data))
        return data

    async def write(self, data: Buffer, /) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        if self._broken:
            raise StreamClosedError(f"{self!r} takes no more writes: an earlier write was cancelled halfway")
        view = memoryview(data).cast("B")
        self._writing = True
        try:
            while True:
                size = self._size(len(view)) if view else 0
                await self.inner.write(view[:size])
                view = view[size:]
                self._wear(size)
                if not view:
                    break
                self._broken = True
                await self._late()
            self._broken = False
        finally:
            self._writing = False

    async def write_eof(self) -> None:
        if self._writing:
            raise busy_error(self, "writing")
        await self.inner.write_eof()

    def unread(self, data: bytes, /) -> None:
        self.inner.unread(data)

    async def aclose(self) -> None:
        await self.inner.aclose()

    def abort(self) -> None:
        self.inner.abort()

    def _size(self, limit: int) -> int:
        """Return a random size: often very small, sometimes everything."""
        return min(limit, self._random.choice((1, 2, 3, 5, self._random.randint(1, limit), limit, limit)))

    async def _late(self) -> None:
        for _ in range(self._random.randint(0, ROUNDS)):
            await asyncio.sleep(0)

    def _wear(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
            if self._left <= 0:
                self.inner.abort()
                raise system_error(errno.ECONNRESET)


def faulty(stream: Stream, *, seed: int = 0, breaks: int | None = None) -> FaultyStream:
    """Simulate a bad network in front of a stream: bytes arrive in pieces of random sizes, after random delays.

    The same `seed` gives the same pieces. After about `breaks` bytes in both directions together, it resets.
    """
    return FaultyStream(stream, Random(seed), breaks)

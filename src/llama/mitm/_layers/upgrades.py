"""Bandwidth limits and aborts for the data of an upgrade, such as a WebSocket."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import ClassVar

from llama._core.extensions import Extensions
from llama._core.meter import Meter, Pace
from llama._core.stream import CHUNK, Buffer, Handler, Stream
from llama.http import Response
from llama.http._messages.upgrade import Upgraded
from llama.tcp._middleware.throttle import Brake


def slow_down(response: Response, down: float | None, up: float | None) -> None:
    """Limit the bandwidth of a response's upgrade, in bytes per second."""
    upgrade = response.upgrade
    if isinstance(upgrade, Upgraded):  # keep its type, for code that uses its stream directly
        upgrade.stream.attach(Brake(down, up))
    elif upgrade is not None:
        response.upgrade = Slowed(upgrade, down, up)


def sever(response: Response, after: int) -> None:
    """Abort a response's upgrade after `after` bytes to the client."""
    if response.upgrade is not None:
        response.upgrade = Severed(response.upgrade, after)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Slowed:
    """An upgrade handled in this process, with limited bandwidth."""

    inner: Handler
    down: float | None
    up: float | None

    __takes__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"slowed(down={self.down}, up={self.up})"

    async def __call__(self, stream: Stream, /) -> None:
        brake = Brake(self.up, self.down)
        stream.attach(brake)
        try:
            await self.inner(stream)
        finally:
            stream.detach(brake)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Severed:
    """An upgrade that is aborted after `after` bytes to the client."""

    inner: Handler
    after: int

    __takes__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"severed(after={self.after})"

    async def __call__(self, stream: Stream, /) -> None:
        await self.inner(Brittle(stream, self.after))


class Brittle(Stream):
    """A stream that resets after `after` bytes are written. Without readiness callbacks, nothing bypasses it."""

    __slots__ = ("_left", "_stream")

    def __init__(self, stream: Stream, after: int) -> None:
        super().__init__()
        self._stream = stream
        self._left = after

    def __repr__(self) -> str:
        return f"<brittle over {self._stream!r}>"

    @property
    def extensions(self) -> Extensions:
        return self._stream.extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._stream.extensions = value

    @property
    def pace(self) -> Pace | None:
        return self._stream.pace

    def attach(self, meter: Meter, /) -> None:
        self._stream.attach(meter)

    def detach(self, meter: Meter, /) -> None:
        self._stream.detach(meter)

    async def read(self, limit: int = CHUNK, /) -> bytes:
        return await self._stream.read(limit)

    async def write(self, data: Buffer, /) -> None:
        view = memoryview(data).cast("B")
        part = view[: self._left]
        self._left -= len(part)
        if part:
            await self._stream.write(part)
        if len(part) < len(view):
            self._stream.abort()
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    async def write_eof(self) -> None:
        await self._stream.write_eof()

    def unread(self, data: bytes, /) -> None:
        self._stream.unread(data)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        self._stream.abort()

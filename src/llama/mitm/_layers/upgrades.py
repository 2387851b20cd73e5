"""Bandwidth limits and aborts for the data of an upgrade, such as a WebSocket."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import ClassVar

from llama._core.extensions import Extensions
from llama._core.meter import Meter, Pacer
from llama._core.stream import DEFAULT_READ_SIZE, Buffer, ConnectionHandler, Stream
from llama.http import Response
from llama.http._messages.upgrade import UpgradedConnection
from llama.tcp._middleware.throttle import ThrottleMeter


def throttle_upgrade(response: Response, down: float | None, up: float | None) -> None:
    """Limit the bandwidth of a response's upgrade, in bytes per second."""
    upgrade = response.upgrade
    if isinstance(upgrade, UpgradedConnection):  # keep its type, for code that uses its stream directly
        upgrade.stream.attach(ThrottleMeter(down, up))
    elif upgrade is not None:
        response.upgrade = ThrottledUpgrade(upgrade, down, up)


def truncate_upgrade(response: Response, after: int) -> None:
    """Abort a response's upgrade after `after` bytes to the client."""
    if response.upgrade is not None:
        response.upgrade = TruncatedUpgrade(response.upgrade, after)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class ThrottledUpgrade:
    """An upgrade handled in this process, with limited bandwidth."""

    inner: ConnectionHandler
    down: float | None
    up: float | None

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"slowed(download={self.down}, upload={self.up})"

    async def __call__(self, stream: Stream, /) -> None:
        brake = ThrottleMeter(self.up, self.down)
        stream.attach(brake)
        try:
            await self.inner(stream)
        finally:
            stream.detach(brake)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class TruncatedUpgrade:
    """An upgrade that is aborted after `after` bytes to the client."""

    inner: ConnectionHandler
    after: int

    __input_type__: ClassVar[type] = Stream

    def __repr__(self) -> str:
        return f"truncated(after={self.after})"

    async def __call__(self, stream: Stream, /) -> None:
        await self.inner(FailingStream(stream, self.after))


class FailingStream(Stream):
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
    def pacer(self) -> Pacer | None:
        return self._stream.pacer

    def attach(self, meter: Meter, /) -> None:
        self._stream.attach(meter)

    def detach(self, meter: Meter, /) -> None:
        self._stream.detach(meter)

    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
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

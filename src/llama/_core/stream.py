"""Streams: bidirectional byte streams, and the types of their handlers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from llama._core.errors import StreamBusyError, StreamClosedError
from llama._core.extensions import Extensions
from llama._core.meter import Meter, Pacer
from llama._core.service import Service
from llama._core.stack import register_input_type

Buffer: TypeAlias = bytes | bytearray | memoryview
DEFAULT_READ_SIZE = 65536


@register_input_type
class Stream(ABC):
    """A bidirectional byte stream, with one reader and one writer at a time.

    The code that opened a stream owns it and closes it. A second reader or writer raises Busy. `aclose` and
    `abort` wake pending calls with Closed. A cancelled read loses no bytes; after a write that was cancelled
    halfway, later writes raise Closed.
    """

    __slots__ = ("_extensions", "_pacer")

    def __init__(self) -> None:
        self._extensions: Extensions | None = None
        self._pacer: Pacer | None = None

    @property
    def extensions(self) -> Extensions:
        """Information about the connection, keyed by type."""
        if self._extensions is None:
            self._extensions = Extensions()
        return self._extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._extensions = value

    @property
    def pacer(self) -> Pacer | None:
        """The combined limits of the attached meters; None without meters."""
        return self._pacer

    def attach(self, meter: Meter, /) -> None:
        """Report every byte to a meter from now on."""
        self._pacer = Pacer((*(self._pacer.meters if self._pacer else ()), meter), self._pacer)

    def detach(self, meter: Meter, /) -> None:
        """Stop reporting to a meter."""
        if self._pacer is not None:
            left = tuple(each for each in self._pacer.meters if each is not meter)
            self._pacer = Pacer(left, self._pacer) if left else None

    @abstractmethod
    async def read(self, limit: int = DEFAULT_READ_SIZE, /) -> bytes:
        """Return between one and `limit` bytes; b"" at the end of the stream, and from then on.

        Raises TruncatedError if the peer closed without the announcement that its protocol requires,
        StreamClosedError after `aclose` or `abort`, StreamBusyError during another read, OSError if the connection
        broke.
        """

    @abstractmethod
    async def write(self, data: Buffer, /) -> None:
        """Write all of `data`; returns when the transport has accepted it.

        Raises StreamClosedError after `aclose`, `abort`, `write_eof` or a write that was cancelled halfway,
        StreamBusyError during another write, OSError if the connection broke.
        """

    def write_buffered(self, data: bytes, /) -> bool:
        """Queue a small message, to be sent at the end of this iteration of the event loop.

        Returns False if it was not queued; call `write` instead. Later writes follow it, `aclose` sends it, and
        the next call raises its error. Use it for requests and responses that are made in large numbers in one
        iteration: a peer that receives several wakes up once.
        """
        return False

    @abstractmethod
    async def write_eof(self) -> None:
        """Close the write side (half-close); the peer's bytes can still be read. Idempotent."""

    @abstractmethod
    def unread(self, data: bytes, /) -> None:
        """Put back bytes: the next read returns them first. Meters do not count them twice."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close both directions as the protocol requires, in bounded time, and free all resources. Idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """Reset the connection, so that the peer sees an error, not an end; never blocks. Idempotent."""


class NonblockingStream(Stream):
    """A stream that can also be driven by readiness callbacks, as relays do.

    The `_nowait` methods count as the one reader or writer: do not call them during a `read` or `write`.
    """

    __slots__ = ()

    @property
    def may_read_more(self) -> bool:
        """Whether `read_nowait` may return data without another callback; True if unknown."""
        return True

    @abstractmethod
    def read_nowait(self, limit: int = DEFAULT_READ_SIZE, /) -> Buffer | None:
        """Return the available bytes, at most `limit`; b"" at the end of the stream, None if none are available.

        A returned memoryview is borrowed: it is valid until the next call on any stream of this loop.
        """

    @abstractmethod
    def write_nowait(self, data: Buffer, /) -> int:
        """Write as much as possible without waiting; returns the number of bytes accepted, which may be 0."""

    @abstractmethod
    def write_eof_nowait(self) -> None:
        """Close the write side without waiting; `flush_nowait` returns True once the end has been sent."""

    @abstractmethod
    def flush_nowait(self) -> bool:
        """Send buffered bytes; True when the transport has accepted all of them."""

    @abstractmethod
    def on_readable(self, callback: Callable[[], object] | None, /) -> None:
        """Call back when `read_nowait` may return data, and again each time after it has returned None.

        If data may be available already, a new callback is called once soon. None unregisters it. Closing the
        stream calls it a last time.
        """

    @abstractmethod
    def on_writable(self, callback: Callable[[], object] | None, /) -> None:
        """Call back when `write_nowait` or `flush_nowait` may make progress, after one of them accepted too little.

        If they may make progress already, a new callback is called once soon. None unregisters it. Closing the
        stream calls it a last time.
        """

    def on_broken(self, callback: Callable[[], object] | None, /) -> None:
        """Call back when the peer resets the connection while no read is pending; None unregisters it.

        A pending read raises the error itself. A transport that detects a reset only by reading never calls back.
        """


ConnectionHandler: TypeAlias = Service[Stream, None]
"""A connection handler: a listener calls it with each connection."""


def closed_error(stream: Stream) -> StreamClosedError:
    """Return the error of every call on a stream that was closed on this side."""
    return StreamClosedError(f"{stream!r} is closed")


def busy_error(stream: Stream, operation: str) -> StreamBusyError:
    """Return the error of a second reader or writer."""
    return StreamBusyError(f"{stream!r} is {operation} already: one reader and one writer at a time")

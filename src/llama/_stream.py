"""Streams: bytes both ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from llama._errors import Busy, Closed
from llama._extensions import Extensions
from llama._meter import Meter, Pace
from llama._service import Service
from llama._stack import kind

Buffer: TypeAlias = bytes | bytearray | memoryview
CHUNK = 65536


@kind
class Stream(ABC):
    """Bytes both ways, with one reader and one writer at a time.

    Whoever made a stream owns it and closes it. A second reader or writer raises Busy. `aclose` and `abort`
    wake pending calls with Closed. A read that is cancelled loses no byte; after a write that was cancelled
    halfway, later writes raise Closed.
    """

    __slots__ = ("_extensions", "_pace")

    def __init__(self) -> None:
        self._extensions: Extensions | None = None
        self._pace: Pace | None = None

    @property
    def extensions(self) -> Extensions:
        """What is known of this connection, by type."""
        if self._extensions is None:
            self._extensions = Extensions()
        return self._extensions

    @extensions.setter
    def extensions(self, value: Extensions) -> None:
        self._extensions = value

    @property
    def pace(self) -> Pace | None:
        """What the meters ask for, where any is attached."""
        return self._pace

    def attach(self, meter: Meter, /) -> None:
        """Report every byte from now on to a meter."""
        self._pace = Pace((*(self._pace.meters if self._pace else ()), meter), self._pace)

    def detach(self, meter: Meter, /) -> None:
        """Stop reporting to a meter."""
        if self._pace is not None:
            left = tuple(each for each in self._pace.meters if each is not meter)
            self._pace = Pace(left, self._pace) if left else None

    @abstractmethod
    async def read(self, limit: int = CHUNK, /) -> bytes:
        """At least one and at most `limit` bytes; b"" at the end, and from then on.

        Raises Truncated where the protocol announces its end and the peer did not, Closed after `aclose` or
        `abort`, Busy beside another read, OSError when the connection broke.
        """

    @abstractmethod
    async def write(self, data: Buffer, /) -> None:
        """Write all of `data`; returns when the transport took everything.

        Raises Closed after `aclose`, `abort`, `write_eof` or a write that was cancelled halfway, Busy beside
        another write, OSError when the connection broke.
        """

    def write_soon(self, data: bytes, /) -> bool:
        """Take a small message to be sent when this round of the event loop is over, together with those of others.

        False where it was not taken: `write` it then. What is written later comes after it, and `aclose` sends it;
        an error is found by the next call. For answers and requests of which many are made in one round: whoever
        they go to is woken once.
        """
        return False

    @abstractmethod
    async def write_eof(self) -> None:
        """Say that nothing more will be written; the peer's bytes can still be read. Again does nothing."""

    @abstractmethod
    def unread(self, data: bytes, /) -> None:
        """Put back what was read too far: the next read returns it first. Meters do not see it twice."""

    @abstractmethod
    async def aclose(self) -> None:
        """End both directions in the protocol's own way, within bounds, and free all. Again does nothing."""

    @abstractmethod
    def abort(self) -> None:
        """End at once, so that the peer sees a break rather than an end; never blocks. Again does nothing."""


class ReadyStream(Stream):
    """A stream that can also be driven by readiness callbacks, which is how relays move bytes.

    The `_nowait` calls belong to whoever could call `read` or `write` at that moment.
    """

    __slots__ = ()

    @property
    def more(self) -> bool:
        """Whether `read_nowait` may have something without another call back; True where that is not known."""
        return True

    @abstractmethod
    def read_nowait(self, limit: int = CHUNK, /) -> Buffer | None:
        """What is there now: at most `limit` bytes, b"" at the end, None when nothing is there yet.

        A memoryview that comes back is borrowed: it is good until the next call on any stream of this loop.
        """

    @abstractmethod
    def write_nowait(self, data: Buffer, /) -> int:
        """Take as much as goes without waiting: the count of bytes taken, which may be 0."""

    @abstractmethod
    def write_eof_nowait(self) -> None:
        """As `write_eof`; `flush_nowait` tells when it has left."""

    @abstractmethod
    def flush_nowait(self) -> bool:
        """Push on what was taken; True when the transport has all of it."""

    @abstractmethod
    def on_readable(self, callback: Callable[[], object] | None, /) -> None:
        """Call back when `read_nowait` may have something, and again after it has returned None.

        Setting a callback calls it once soon when there may be something already; None ends it. Closing the
        stream calls it a last time.
        """

    @abstractmethod
    def on_writable(self, callback: Callable[[], object] | None, /) -> None:
        """Call back when `write_nowait` or `flush_nowait` may get further, after one of them fell short.

        Setting a callback calls it once soon when they may already; None ends it. Closing the stream calls it
        a last time.
        """

    def on_broken(self, callback: Callable[[], object] | None, /) -> None:
        """Call back when the peer has broken the connection off while nobody reads; None ends it.

        Whoever reads finds it that way. A transport that cannot tell without a read never calls back.
        """


Handler: TypeAlias = Service[Stream, None]
"""What a listener calls for each connection."""


def closed(stream: Stream) -> Closed:
    """The error of every call on a stream that this side has closed."""
    return Closed(f"{stream!r} is closed")


def busy(stream: Stream, doing: str) -> Busy:
    """The error of a second reader or writer."""
    return Busy(f"{stream!r} is {doing} already: one reader and one writer at a time")

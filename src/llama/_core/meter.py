"""Meters count and slow the bytes of a stream without reading them."""

from __future__ import annotations

import asyncio


class Meter:
    """Counts the bytes of a stream, and may slow them; a meter never sees or changes the bytes.

    Streams and relays honour the meters attached to a stream, so that splice still works.
    """

    __slots__ = ()

    chunk: int | None = None
    """The most bytes that one read or write may move, or None."""

    def on_received(self, count: int) -> float:
        """Record bytes read from the peer; return the seconds to wait before the next read."""
        return 0.0

    def on_sent(self, count: int) -> float:
        """Record bytes written to the peer; return the seconds to wait before the next write."""
        return 0.0


class Pacer:
    """The combined limits of a stream's meters: the size of one call, and the time of the next."""

    __slots__ = ("_read_at", "_write_at", "chunk", "meters")

    def __init__(self, meters: tuple[Meter, ...], before: Pacer | None = None) -> None:
        self.meters = meters
        self.chunk = min((each.chunk for each in meters if each.chunk is not None), default=None)
        self._read_at: float = before._read_at if before else 0.0
        self._write_at: float = before._write_at if before else 0.0

    def on_received(self, count: int) -> None:
        """Record bytes that were read."""
        delay = 0.0
        for each in self.meters:
            delay = max(delay, each.on_received(count))
        if delay > 0:
            self._read_at = asyncio.get_running_loop().time() + delay

    def on_sent(self, count: int) -> None:
        """Record bytes that were written."""
        delay = 0.0
        for each in self.meters:
            delay = max(delay, each.on_sent(count))
        if delay > 0:
            self._write_at = asyncio.get_running_loop().time() + delay

    def cap_read(self, limit: int) -> int:
        """Return the most bytes that one call may move."""
        return limit if self.chunk is None else min(limit, self.chunk)

    def read_delay(self) -> float:
        """Seconds until the next read may happen; 0 for now."""
        return self._read_at and max(0.0, self._read_at - asyncio.get_running_loop().time())

    def write_delay(self) -> float:
        """Seconds until the next write may happen; 0 for now."""
        return self._write_at and max(0.0, self._write_at - asyncio.get_running_loop().time())

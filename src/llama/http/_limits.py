"""The limits of an HTTP/2 connection, and the rate limiter that detects abuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llama._core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for the parts of an HTTP/1.1 message, in bytes; `max_headers` counts fields."""

    max_start_line: int = 16_384
    max_head: int = 65_536
    max_headers: int = 128
    max_chunk_line: int = 256
    max_trailers: int = 8_192


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class H2Limits:
    """Limits of one HTTP/2 connection. Exceeding one of the last nine ends the connection (ENHANCE_YOUR_CALM).

    Streams beyond `max_concurrent_streams` are refused one by one. `max_header_list_size`, `max_headers` and
    `max_path` limit a message's head, as decoded (431, 414). A stream whose flow control lets no byte of the
    response out for `stall_timeout` seconds is reset; the connection ends if no stream could send anything in that
    time.
    """

    max_concurrent_streams: int = 128
    """Concurrent streams, including cancelled ones whose handler has not ended."""
    max_header_list_size: int = 65_536
    """Bytes of a head: names, values, and 32 per field."""
    max_headers: int = 128
    max_path: int = 16_384
    initial_window: int = 65_535
    """Initial flow-control window of a stream, in bytes; it doubles as the body is read."""
    max_window: int = 1 << 20
    """The largest window of a stream, in bytes."""
    window_budget: int = 1 << 24
    """Bytes by which the windows of all streams together may exceed their initial sizes."""
    stall_timeout: float | None = 120.0
    settings_timeout: float | None = None
    """Seconds for the peer to acknowledge SETTINGS (RFC 9113 section 6.5.3); None for no limit."""
    max_header_block: int = 98_304
    """Bytes of an encoded header block."""
    max_continuations: int = 32
    """CONTINUATION frames per header block."""
    oversized: int = 200
    """Header blocks over `max_header_list_size` or `max_headers`: burst.

    A block that references to the dynamic table expand to N times `max_header_block` bytes counts N times, as does one
    with N quarters of `max_headers` too many, up to a tenth of this. A block with 8 times `max_headers` beyond a limit
    ends the connection immediately.
    """
    oversized_per_second: float = 20.0
    """Rate at which that burst refills."""
    max_resets: int = 200
    """Streams that end before their response, cancelled by the peer or by its protocol errors: burst."""
    resets_per_second: float = 20.0
    """Rate at which that burst refills."""
    max_control_frames: int = 2000
    """Frames without message data (PING, SETTINGS, PRIORITY, empty DATA, ...) beyond those with data: burst."""
    control_frames_per_second: float = 200.0
    """Rate at which that burst refills."""
    max_pending_replies: int = 1000
    """Replies to such frames that are queued because the peer does not read."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"http.H2Limits({name}={value}): expected a number greater than 0")
        if not 65_535 <= self.initial_window <= self.max_window < 1 << 31:
            raise ConfigError(
                f"http.H2Limits(window={self.initial_window}, max_window={self.max_window}): expected "
                "65535 <= window <= max_window < 2**31"
            )


DEFAULT_H2_LIMITS = H2Limits()


class TokenBucket:
    """A token bucket: allows a burst of events, then a rate of events per second."""

    __slots__ = ("_at", "_burst", "_clock", "_rate", "count")

    def __init__(self, burst: int, rate: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._at = clock()
        self.count = 0
        """The number of events, less those that have drained with time."""

    def try_take(self, amount: int = 1) -> bool:
        """Count `amount` events and return whether the bucket had tokens for them."""
        self.count += amount
        if self.count <= self._burst:
            return True
        now = self._clock()
        made_good = int((now - self._at) * self._rate)
        if made_good > 0:
            self.count = max(amount, self.count - made_good)
            self._at += made_good / self._rate
        return self.count <= self._burst

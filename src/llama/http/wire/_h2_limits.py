"""What a peer may ask of an HTTP/2 connection, and how more than that shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llama._errors import ConfigError


@dataclass(frozen=True, slots=True)
class H2Limits:
    """Bounds of one HTTP/2 connection. Who exceeds one of the last eight loses the connection (ENHANCE_YOUR_CALM).

    Streams beyond `streams` are refused one by one. `header_list`, `fields` and `path` bound a message's head, as
    decoded (431, 414). A stream that the peer lets no byte of its answer go out on for `stall` seconds is reset,
    and the connection ends when nothing at all went out meanwhile.
    """

    streams: int = 128
    """Streams at a time, those among them that were cancelled but whose handler has not ended."""
    header_list: int = 65_536
    """Bytes of a head: names, values, and 32 for each field."""
    fields: int = 128
    path: int = 16_384
    window: int = 65_535
    """Bytes that a stream may send ahead at first; it doubles with use."""
    max_window: int = 1 << 20
    """The most that it grows to."""
    growth: int = 1 << 24
    """How much all windows of a connection may grow together beyond their first size."""
    stall: float | None = 120.0
    settings_timeout: float | None = None
    """Seconds for the peer to acknowledge SETTINGS (RFC 9113 section 6.5.3); None for no bound."""
    block: int = 98_304
    """Bytes of a header block, before it is decoded."""
    continuations: int = 32
    """CONTINUATION frames of one header block."""
    oversized: int = 200
    """Header blocks that exceed `header_list` or `fields`: burst. A block that decodes to N times `block` bytes, by
    references to the dynamic table, counts N times, as does one with N quarters of `fields` too many, up to a tenth
    of this. A block with 8 times `fields` beyond a limit ends the connection at once."""
    oversized_per_second: float = 20.0
    """Rate at which that burst refills."""
    resets: int = 200
    """Streams cancelled, by the peer or by its mistakes, before they were answered: at once, then..."""
    resets_per_second: float = 20.0
    """...so many a second."""
    noise: int = 2000
    """Frames that carry nothing (PING, SETTINGS, PRIORITY, empty DATA, ...) beyond those that do: at once, then..."""
    noise_per_second: float = 200.0
    """...so many a second."""
    replies: int = 1000
    """Answers to such frames that wait because the peer does not read."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"http.H2Limits({name}={value}): expected more than 0")
        if not 65_535 <= self.window <= self.max_window < 1 << 31:
            raise ConfigError(
                f"http.H2Limits(window={self.window}, max_window={self.max_window}): expected 65535 or more, and no "
                "first window above the most"
            )


DEFAULT_H2_LIMITS = H2Limits()


class Bucket:
    """Something that may happen so many times at once, and so many times a second after that."""

    __slots__ = ("_at", "_burst", "_clock", "_rate", "count")

    def __init__(self, burst: int, rate: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._at = clock()
        self.count = 0
        """How often it happened, less what time has made good."""

    def overflows(self, amount: int = 1) -> bool:
        """Count one, or `amount`; tells whether that is too many."""
        self.count += amount
        if self.count <= self._burst:
            return False
        now = self._clock()
        made_good = int((now - self._at) * self._rate)
        if made_good > 0:
            self.count = max(amount, self.count - made_good)
            self._at += made_good / self._rate
        return self.count > self._burst

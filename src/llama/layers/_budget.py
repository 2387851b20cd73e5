"""A budget that keeps retries to a share of the calls, so that they cannot multiply an outage."""

from __future__ import annotations


class Budget:
    """Every call adds a share of a retry, every retry takes a whole one; at most `reserve` are kept."""

    __slots__ = ("_left", "reserve", "share")

    def __init__(self, share: float, reserve: float) -> None:
        self.share = share
        self.reserve = reserve
        self._left = reserve

    def called(self) -> None:
        """Note a call, not counting its retries."""
        if self._left < self.reserve:
            self._left = min(self.reserve, self._left + self.share)

    def take(self) -> bool:
        """Take a retry, if one is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

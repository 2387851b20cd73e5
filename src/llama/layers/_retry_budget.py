"""A budget that limits retries to a share of the calls, so that retries cannot amplify an outage."""

from __future__ import annotations


class RetryBudget:
    """A token bucket: each call adds `share` of a retry, each retry takes one; at most `reserve` are stored."""

    __slots__ = ("_left", "reserve", "share")

    def __init__(self, share: float, reserve: float) -> None:
        self.share = share
        self.reserve = reserve
        self._left = reserve

    def deposit(self) -> None:
        """Count a call; retries do not count."""
        if self._left < self.reserve:
            self._left = min(self.reserve, self._left + self.share)

    def try_withdraw(self) -> bool:
        """Take a retry; return False if none is left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True

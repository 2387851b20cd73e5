"""Load balancing: the policies that pick an upstream, and the ejection of upstreams that fail."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from llama.http._messages.origin import Origin

log = logging.getLogger("llama.upstreams")


class Upstream:
    """An upstream with its weight, load and health."""

    __slots__ = ("_ejected_until", "active", "current_weight", "failures", "origin", "path", "weight")

    def __init__(self, origin: Origin, path: str, weight: float) -> None:
        self.origin = origin
        self.path = path
        """The path of its URL, prepended to the path of every request."""
        self.weight = weight
        self.active = 0
        """The number of exchanges in progress."""
        self.current_weight = 0.0
        """Its current weight in smooth weighted round robin."""
        self.failures = 0
        """Consecutive failures since its last response."""
        self._ejected_until = 0.0

    def __repr__(self) -> str:
        return f"{self.origin}{self.path}"

    def is_ejected(self, now: float) -> bool:
        """Return whether it is ejected: used only when no other upstream is available."""
        return self._ejected_until > now

    def record_failure(self, error: BaseException, max_failures: int, ejection_time: float) -> None:
        """Count a failure; after `max_failures` in a row eject the upstream for `ejection_time` seconds."""
        self.failures += 1
        if self.failures >= max_failures:
            now = asyncio.get_running_loop().time()
            if not self._ejected_until:
                log.warning("upstream %s ejected for %g s: %s", self, ejection_time, error)
            self._ejected_until = now + ejection_time

    def record_success(self) -> None:
        """Reset the failures after a response."""
        self.failures = 0
        if self._ejected_until:
            self._ejected_until = 0.0
            log.info("upstream %s recovered", self)


class InFlight:
    """An exchange counted as active on an upstream, until `end` is called or the turn is garbage-collected."""

    __slots__ = ("_upstream",)

    def __init__(self, upstream: Upstream) -> None:
        self._upstream: Upstream | None = upstream
        upstream.active += 1

    def end(self) -> None:
        """Count the exchange as finished. Idempotent."""
        if self._upstream is not None:
            self._upstream.active -= 1
            self._upstream = None

    def __del__(self) -> None:
        self.end()


class LoadBalancer(ABC):
    """A policy that picks an upstream: healthy and untried ones first, then untried ones, then any."""

    counts = False
    """Whether the policy depends on the number of active exchanges."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)

    def next(self, tried: Sequence[Upstream] = ()) -> Upstream:
        """Return the upstream for the next attempt; `tried` have failed for this request."""
        found = self.upstreams
        if len(found) == 1:
            return found[0]
        if tried or any(each.failures for each in found):
            found = self._available(tried)
        return found[0] if len(found) == 1 else self.choose(found)

    def _available(self, tried: Sequence[Upstream]) -> tuple[Upstream, ...]:
        now = asyncio.get_running_loop().time()
        fresh = [each for each in self.upstreams if each not in tried]
        awake = [each for each in fresh if not each.is_ejected(now)]
        return tuple(awake or fresh or self.upstreams)

    @abstractmethod
    def choose(self, able: Sequence[Upstream]) -> Upstream:
        """Pick one of two or more upstreams."""


class RoundRobin(LoadBalancer):
    """Smooth weighted round robin: turns in proportion to the weights, spread evenly."""

    def choose(self, able: Sequence[Upstream]) -> Upstream:
        total = 0.0
        best = able[0]
        for each in able:
            total += each.weight
            each.current_weight += each.weight
            if each.current_weight > best.current_weight:
                best = each
        best.current_weight -= total
        return best


class LeastConnections(RoundRobin):
    """The upstream with the fewest active exchanges for its weight; round robin among equals."""

    counts = True

    def choose(self, able: Sequence[Upstream]) -> Upstream:
        least = min(each.active / each.weight for each in able)
        found = [each for each in able if each.active / each.weight == least]
        return found[0] if len(found) == 1 else super().choose(found)


class PowerOfTwoChoices(LoadBalancer):
    """The upstream with fewer active exchanges for its weight, of two picked at random by weight."""

    counts = True

    def __init__(self, upstreams: Sequence[Upstream], random: Random | None = None) -> None:
        super().__init__(upstreams)
        self._random = random or Random()

    def choose(self, able: Sequence[Upstream]) -> Upstream:
        first = self._one(able)
        second = self._one([each for each in able if each is not first])
        return second if second.active / second.weight < first.active / first.weight else first

    def _one(self, able: Sequence[Upstream]) -> Upstream:
        return self._random.choices(able, [each.weight for each in able])[0]


POLICIES: dict[str, type[LoadBalancer]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "random_of_two": PowerOfTwoChoices,
}

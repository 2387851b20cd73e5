"""Which of several upstreams is next, and which of them rest because they failed."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random

from llama.http._origin import Origin

log = logging.getLogger("llama.upstreams")


class Upstream:
    """One place to send requests to, and how it does."""

    __slots__ = ("_rests_until", "active", "credit", "failures", "origin", "path", "weight")

    def __init__(self, origin: Origin, path: str, weight: float) -> None:
        self.origin = origin
        self.path = path
        """What its URL puts before every path."""
        self.weight = weight
        self.active = 0
        """Exchanges that have not ended."""
        self.credit = 0.0
        """What the round robin owes it."""
        self.failures = 0
        """How often it has failed since it last answered."""
        self._rests_until = 0.0

    def __repr__(self) -> str:
        return f"{self.origin}{self.path}"

    def rests(self, now: float) -> bool:
        """Whether it failed so often that it is asked last for a while."""
        return self._rests_until > now

    def note_failure(self, error: BaseException, most: int, rest: float) -> None:
        """Another failure; after `most` in a row it rests for `rest` seconds."""
        self.failures += 1
        if self.failures >= most:
            now = asyncio.get_running_loop().time()
            if not self._rests_until:
                log.warning("%s is asked last for %g s: %s", self, rest, error)
            self._rests_until = now + rest

    def note_success(self) -> None:
        """It answers."""
        self.failures = 0
        if self._rests_until:
            self._rests_until = 0.0
            log.info("%s answers again", self)


class Turn:
    """One exchange of an upstream, which ends once: when told, or when everybody has forgotten it."""

    __slots__ = ("_upstream",)

    def __init__(self, upstream: Upstream) -> None:
        self._upstream: Upstream | None = upstream
        upstream.active += 1

    def end(self) -> None:
        """The exchange is over."""
        if self._upstream is not None:
            self._upstream.active -= 1
            self._upstream = None

    def __del__(self) -> None:
        self.end()


class Balance(ABC):
    """Chooses among upstreams: those that do not rest and were not tried yet, where there are any."""

    counts = False
    """Whether it looks at how many exchanges each has."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)

    def next(self, tried: Sequence[Upstream] = ()) -> Upstream:
        """The upstream to ask now."""
        found = self.upstreams
        if len(found) == 1:
            return found[0]
        if tried or any(each.failures for each in found):
            found = self._able(tried)
        return found[0] if len(found) == 1 else self.choose(found)

    def _able(self, tried: Sequence[Upstream]) -> tuple[Upstream, ...]:
        now = asyncio.get_running_loop().time()
        fresh = [each for each in self.upstreams if each not in tried]
        awake = [each for each in fresh if not each.rests(now)]
        return tuple(awake or fresh or self.upstreams)

    @abstractmethod
    def choose(self, able: Sequence[Upstream]) -> Upstream:
        """One of at least two."""


class RoundRobin(Balance):
    """In turn, each as often as its weight says, and evenly spread."""

    def choose(self, able: Sequence[Upstream]) -> Upstream:
        total = 0.0
        best = able[0]
        for each in able:
            total += each.weight
            each.credit += each.weight
            if each.credit > best.credit:
                best = each
        best.credit -= total
        return best


class LeastConnections(RoundRobin):
    """Who has the fewest exchanges for its weight; in turn where several have."""

    counts = True

    def choose(self, able: Sequence[Upstream]) -> Upstream:
        least = min(each.active / each.weight for each in able)
        found = [each for each in able if each.active / each.weight == least]
        return found[0] if len(found) == 1 else super().choose(found)


class RandomOfTwo(Balance):
    """Of two taken at random, by weight, who has the fewer exchanges."""

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


POLICIES: dict[str, type[Balance]] = {
    "round_robin": RoundRobin,
    "least_connections": LeastConnections,
    "random_of_two": RandomOfTwo,
}

"""Several targets for one listener: in turn, and the next one when a connection cannot be made."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from llama import Bridge, Connector, Relay, Stream, Target, UnreachableError

log = logging.getLogger("pango.targets")
EJECTION_TIME = 10.0  # seconds for which a failed target is ejected: tried only after all others


class Upstream:
    """One target, the way to it, and whether it answered when it was last asked."""

    __slots__ = ("_clock", "_failed_until", "connect", "target", "text")

    def __init__(
        self, text: str, target: Target, connect: Connector, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.text = text
        self.target = target
        self.connect = connect
        self._clock = clock
        self._failed_until: float | None = None

    def __repr__(self) -> str:
        return self.text

    @property
    def is_ejected(self) -> bool:
        """Whether it failed a short while ago."""
        return self._failed_until is not None and self._clock() < self._failed_until

    async def open(self, target: Target) -> Stream:
        """Connect on behalf of a client, whose extensions the given target carries."""
        try:
            stream = await self.connect(self.target.fork(target.extensions))
        except OSError as error:
            self._note_failure(error)
            raise
        if self._failed_until is not None:
            self._failed_until = None
            log.info("%s answers again", self)
        return stream

    def _note_failure(self, error: OSError) -> None:
        if self._failed_until is None:
            log.warning("upstream %s ejected for %g s: %s", self, EJECTION_TIME, error)
        self._failed_until = self._clock() + EJECTION_TIME


class RoundRobin:
    """Relays each connection to the next of several targets; one that cannot be reached is passed over."""

    __slots__ = ("_turns", "relay", "upstreams")
    __input_type__: ClassVar[type] = Stream

    def __init__(self, upstreams: Sequence[Upstream], relay: Relay) -> None:
        self.upstreams = tuple(upstreams)
        self.relay = relay
        self._turns = itertools.cycle(range(len(self.upstreams)))

    def __repr__(self) -> str:
        return f"round_robin({', '.join(map(repr, self.upstreams))})"

    async def __call__(self, stream: Stream, /) -> None:
        bridge = Bridge(stream, self.upstreams[0].target, self.connect)
        try:
            await self.relay(bridge)
            await bridge.aclose()
        finally:
            bridge.abort()

    async def connect(self, target: Target, /) -> Stream:
        """Open the first that answers, beginning with the one whose turn it is."""
        failures: list[str] = []
        start = next(self._turns)
        turn = (*self.upstreams[start:], *self.upstreams[:start])
        for each in sorted(turn, key=_is_ejected):
            try:
                return await each.open(target)
            except OSError as error:
                failures.append(str(error))
        raise UnreachableError(f"none of {len(self.upstreams)} targets answers: {'; '.join(failures)}")


def _is_ejected(upstream: Upstream) -> bool:
    return upstream.is_ejected

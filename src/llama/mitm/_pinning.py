"""Clients that refuse certificates other than those they know: what is learned of them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llama._errors import ConfigError


@dataclass(frozen=True, slots=True)
class Rejection:
    """A client that refused our certificate for a host."""

    client: str
    host: str
    count: int
    """How often in a row."""
    learned: bool
    """Whether that was often enough for another way to be taken."""
    expires: float
    """Seconds until it is forgotten."""


@dataclass(slots=True)
class _Entry:
    count: int
    until: float


class Pinning:
    """Learns which clients refuse our certificates, as those that pin do, and for which hosts.

    After `after` rejections in a row the client's connections to that host are passed through, until `expiry`
    seconds after the last one; with `then="block"` they are refused instead. A rejection is an alert that names the
    certificate, or a client that leaves within the handshake; who leaves after it may have other reasons, and is
    not counted. At most `limit` pairs of client and host are remembered, the latest.
    """

    __slots__ = ("_clock", "_entries", "after", "expiry", "limit", "then")

    def __init__(
        self,
        after: int = 3,
        expiry: float = 3600.0,
        *,
        then: Literal["pass", "block"] = "pass",
        limit: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if after < 1 or expiry <= 0 or limit < 1:
            raise ConfigError(f"mitm.Pinning({after}, {expiry}, limit={limit}): expected more than 0")
        if then not in ("pass", "block"):
            raise ConfigError(f"mitm.Pinning(then={then!r}): expected 'pass' or 'block'")
        self.after = after
        self.expiry = expiry
        self.then: Literal["pass", "block"] = then
        self.limit = limit
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    def __repr__(self) -> str:
        return f"mitm.Pinning({self.after}, {self.expiry:g}, then={self.then!r})"

    def action(self, client: str, host: str) -> Literal["pass", "block"] | None:
        """What to do with a client's connection to a host; None where nothing is learned."""
        entry = self._entry(client, host)
        return self.then if entry is not None and entry.count >= self.after else None

    def rejected(self, client: str, host: str) -> None:
        """A client has refused our certificate for a host."""
        entry = self._entry(client, host)
        count = 1 if entry is None else entry.count + 1
        self._entries.pop((client, host), None)
        if len(self._entries) >= self.limit:
            self._entries.popitem(last=False)
        self._entries[client, host] = _Entry(count, self._clock() + self.expiry)

    def accepted(self, client: str, host: str) -> None:
        """A client has taken it: earlier rejections count no more."""
        if self._entries:
            self._entries.pop((client, host), None)

    def entries(self) -> list[Rejection]:
        """What is remembered, the oldest first."""
        now = self._clock()
        return [
            Rejection(client, host, entry.count, entry.count >= self.after, entry.until - now)
            for (client, host), entry in self._entries.items()
            if entry.until > now
        ]

    def clear(self, host: str | None = None) -> None:
        """Forget what was learned of a host, or all."""
        for key in [key for key in self._entries if host is None or key[1] == host]:
            del self._entries[key]

    def _entry(self, client: str, host: str) -> _Entry | None:
        entry = self._entries.get((client, host)) if self._entries else None
        if entry is not None and entry.until <= self._clock():
            del self._entries[client, host]
            return None
        return entry

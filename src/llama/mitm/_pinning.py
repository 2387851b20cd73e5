"""Detection of clients that pin certificates and therefore reject the proxy's."""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from llama._core.errors import ConfigError, LlamaError, TLSError, TruncatedError
from llama._core.meter import Meter
from llama._core.stream import NonblockingStream
from llama.tls._stream import TLSStream


@dataclass(frozen=True, slots=True)
class Rejection:
    """A client that rejected the proxy's certificate for a host."""

    client: str
    host: str
    count: int
    """The number of rejections in a row."""
    learned: bool
    """Whether the count has reached `threshold`, so that `action` applies."""
    expires: float
    """Seconds until it expires."""


@dataclass(slots=True)
class _Entry:
    count: int
    until: float


_REJECTIONS = frozenset(
    ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "ACCESS_DENIED")
)


def is_rejection(error: Exception) -> bool:
    """Whether a failed handshake counts as a rejection of the certificate; many clients send no alert."""
    if isinstance(error, ssl.SSLError):
        return any(each in (error.reason or "") for each in _REJECTIONS)
    return isinstance(error, TLSError | ConnectionError) and not isinstance(error, TimeoutError)


class HandshakeObserver(Meter):
    """A session after its handshake, watched until the client sends data or disconnects."""

    __slots__ = ("_client", "_host", "_over", "_pinning", "_session", "_since")

    def __init__(self, pinning: Pinning, client: str, host: str, session: TLSStream) -> None:
        self._pinning = pinning
        self._client = client
        self._host = host
        self._session = session
        self._since = pinning._clock()
        self._over = False
        session.attach(self)

    def on_received(self, count: int) -> float:
        self.accepted()
        return 0.0

    def accepted(self) -> None:
        """Count the certificate as accepted: the client has sent data, or need not send any."""
        if not self._over:
            self._end()
            self._pinning.accepted(self._client, self._host)

    def closed(self, error: BaseException | None) -> None:
        """Decide by how the connection ended, before it is closed; `error` is the error that ended it, if any."""
        dropped = self._look() or isinstance(error, ConnectionError)
        if self._over:
            return
        self._end()
        farewell = self._session.close_reason
        polite = farewell is True
        silent = polite or dropped or isinstance(farewell, TruncatedError)
        if _is_named_alert(farewell) or (silent and self._is_soon(polite=polite)):
            self._pinning.rejected(self._client, self._host)

    def _is_soon(self, *, polite: bool) -> bool:
        """Whether the client disconnected right after the handshake and has never accepted a certificate."""
        pinning = self._pinning
        if pinning.early_close_window is None:
            return False
        most = pinning.early_close_window if polite else pinning.early_close_window / 10
        soon = pinning._clock() - self._since <= most
        return soon and not pinning.has_accepted(self._client, self._host)

    def _look(self) -> bool:
        """Read pending data, as a failed write may be noticed before it; return whether the client reset."""
        session = self._session
        if not self._over and session.close_reason is False and isinstance(session, NonblockingStream):
            try:
                session.read_nowait()  # calls `on_received` if there are bytes
            except ConnectionError:
                return True
            except (OSError, LlamaError):
                pass
        return False

    def _end(self) -> None:
        self._over = True
        self._session.detach(self)


def _is_named_alert(farewell: Exception | bool) -> bool:
    """Whether a session ended with an alert about the certificate."""
    words = str(farewell).upper() if isinstance(farewell, TLSError) else ""
    return any(words.endswith(each) for each in _REJECTIONS)


class Pinning:
    """Detects clients that reject the proxy's certificates, as pinning clients do, per client and host.

    After `threshold` rejections in a row, connections of the client to that host are passed through until `ttl`
    seconds after the last one; with `action="block"` they are refused. A rejection is an alert about the certificate,
    or a disconnect during the handshake. For clients that check the certificate after the handshake, it is also a
    close_notify within `early_close_window` seconds after the handshake, or a disconnect within a tenth of that, if
    the client has sent no data and has not accepted a certificate for that host before: browsers open spare
    connections. `early_close_window=None` disables this. A client accepts a certificate by sending data. The latest
    `limit` pairs of client and host are kept.
    """

    __slots__ = ("_clock", "_entries", "_taken", "action", "early_close_window", "limit", "threshold", "ttl")

    def __init__(
        self,
        threshold: int = 3,
        ttl: float = 3600.0,
        *,
        action: Literal["passthrough", "block"] = "passthrough",
        early_close_window: float | None = 0.5,
        limit: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if threshold < 1 or ttl <= 0 or limit < 1:
            raise ConfigError(f"mitm.Pinning({threshold}, {ttl}, limit={limit}): expected more than 0")
        if early_close_window is not None and early_close_window <= 0:
            raise ConfigError(
                f"mitm.Pinning(early_close_window={early_close_window}): expected more than 0, or None"
            )
        if action not in ("passthrough", "block"):
            raise ConfigError(f"mitm.Pinning(action={action!r}): expected 'passthrough' or 'block'")
        self.threshold = threshold
        self.ttl = ttl
        self.action: Literal["passthrough", "block"] = action
        self.early_close_window = early_close_window
        self.limit = limit
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._taken: OrderedDict[tuple[str, str], float] = OrderedDict()

    def __repr__(self) -> str:
        return f"mitm.Pinning({self.threshold}, {self.ttl:g}, action={self.action!r})"

    def action_for(self, client: str, host: str) -> Literal["passthrough", "block"] | None:
        """Return the action for a client's connection to a host; None if it is not known to pin."""
        entry = self._entry(client, host)
        return self.action if entry is not None and entry.count >= self.threshold else None

    def rejected(self, client: str, host: str) -> None:
        """Count a rejection of the certificate for a host."""
        entry = self._entry(client, host)
        count = 1 if entry is None else entry.count + 1
        self._entries.pop((client, host), None)
        if len(self._entries) >= self.limit:
            self._entries.popitem(last=False)
        self._entries[client, host] = _Entry(count, self._clock() + self.ttl)

    def accepted(self, client: str, host: str) -> None:
        """Record that a client accepted the certificate for a host, and reset its count."""
        if self._entries:
            self._entries.pop((client, host), None)
        self._taken.pop((client, host), None)
        if len(self._taken) >= self.limit:
            self._taken.popitem(last=False)
        self._taken[client, host] = self._clock() + self.ttl

    def has_accepted(self, client: str, host: str) -> bool:
        """Whether a client has accepted the certificate for a host within `ttl` seconds."""
        return self._taken.get((client, host), 0.0) > self._clock()

    def entries(self) -> list[Rejection]:
        """Return the current entries, the oldest first."""
        now = self._clock()
        return [
            Rejection(client, host, entry.count, entry.count >= self.threshold, entry.until - now)
            for (client, host), entry in self._entries.items()
            if entry.until > now
        ]

    def clear(self, host: str | None = None) -> None:
        """Remove the entries of a host, or all entries."""
        for key in [key for key in self._entries if host is None or key[1] == host]:
            del self._entries[key]
        for key in [key for key in self._taken if host is None or key[1] == host]:
            del self._taken[key]

    def _entry(self, client: str, host: str) -> _Entry | None:
        entry = self._entries.get((client, host)) if self._entries else None
        if entry is not None and entry.until <= self._clock():
            del self._entries[client, host]
            return None
        return entry

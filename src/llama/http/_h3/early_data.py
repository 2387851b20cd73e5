"""Early data (0-RTT, RFC 9001 section 4.6, RFC 8470), which an attacker may replay."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from qh3.tls import SessionTicket

from llama._core.target import Target
from llama.http._messages.message import Request, RequestHandler, Response

TICKETS = 4096
ORIGINS = 256
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
EARLY_DATA = "early-data"


def may_be_early(request: Request) -> bool:
    """Whether a request is safe and has no body, so that a replay is harmless (RFC 9110 section 9.2.1)."""
    return request.method in SAFE and request._body.length == 0


class ServerTickets:
    """The session tickets that a server has issued. Each is valid once, against replays (RFC 8446 section 8.1).

    A replay finds no ticket, so it falls back to a full handshake and its early data is not decrypted.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, SessionTicket] = OrderedDict()

    def keep(self, ticket: SessionTicket) -> None:
        """Store a ticket; evict the oldest beyond the limit."""
        self._known[ticket.ticket] = ticket
        if len(self._known) > TICKETS:
            self._known.popitem(last=False)

    def take(self, number: bytes) -> SessionTicket | None:
        """Remove and return a ticket."""
        return self._known.pop(number, None)


@dataclass(frozen=True, slots=True)
class EarlyDataGuard:
    """A handler for early requests: it marks safe ones and rejects others with 425 (RFC 8470 section 5)."""

    inner: RequestHandler

    async def __call__(self, request: Request, /) -> Response:
        if request.method not in SAFE:
            return Response(425)
        request.headers["Early-Data"] = "1"
        return await self.inner(request)


@dataclass(frozen=True, slots=True)
class CachedTicket:
    """A known server that accepts early requests: its ticket and its target."""

    ticket: SessionTicket
    target: Target


class TicketCache:
    """A bounded cache of servers that accept early requests; each ticket is used once (RFC 8446 appendix C.4)."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, CachedTicket] = OrderedDict()

    def keep(self, origin: str, target: Target, ticket: SessionTicket) -> None:
        """Store the newest ticket of an origin; evict the least recently updated origin beyond the limit."""
        self._known.pop(origin, None)
        self._known[origin] = CachedTicket(ticket, target)
        if len(self._known) > ORIGINS:
            self._known.popitem(last=False)

    def take(self, origin: str) -> CachedTicket | None:
        """Remove and return the entry of an origin, if its ticket is still valid."""
        known = self._known.pop(origin, None)
        return known if known is not None and known.ticket.is_valid else None

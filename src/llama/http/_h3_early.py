"""Early data (0-RTT, RFC 9001 section 4.6, RFC 8470): what comes before hands are shaken may be played again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from qh3.tls import SessionTicket

from llama._target import Target
from llama.http._message import Exchange, Request, Response

TICKETS = 4096
ORIGINS = 256
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
MARK = "early-data"


def may_be_early(request: Request) -> bool:
    """Whether it does no harm when it is answered twice (RFC 9110 section 9.2.1)."""
    return request.method in SAFE and request._body.length == 0


class Tickets:
    """What a server gave out: each is good once, so that nothing is played again (RFC 8446 section 8.1).

    A replay finds no ticket, shakes hands as a stranger would, and its early data cannot be read.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, SessionTicket] = OrderedDict()

    def keep(self, ticket: SessionTicket) -> None:
        """One more; the oldest goes where there are too many."""
        self._known[ticket.ticket] = ticket
        if len(self._known) > TICKETS:
            self._known.popitem(last=False)

    def take(self, number: bytes) -> SessionTicket | None:
        """One that comes back, which it does once."""
        return self._known.pop(number, None)


@dataclass(frozen=True, slots=True)
class Guarded:
    """An exchange that is asked early: it is told so, and answers only what is safe (RFC 8470 section 5)."""

    inner: Exchange

    async def __call__(self, request: Request, /) -> Response:
        if request.method not in SAFE:
            return Response(425)
        request.headers["Early-Data"] = "1"
        return await self.inner(request)


@dataclass(frozen=True, slots=True)
class Known:
    """A server that may be asked early: the ticket it gave, and where it was reached."""

    ticket: SessionTicket
    target: Target


class Acquaintances:
    """The servers that a client may ask early, bounded; each ticket is used once (RFC 8446 appendix C.4)."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()

    def keep(self, origin: str, target: Target, ticket: SessionTicket) -> None:
        """The newest ticket of an origin; the origin that was longest not heard of goes for it."""
        self._known.pop(origin, None)
        self._known[origin] = Known(ticket, target)
        if len(self._known) > ORIGINS:
            self._known.popitem(last=False)

    def take(self, origin: str) -> Known | None:
        """What is known of an origin, once."""
        known = self._known.pop(origin, None)
        return known if known is not None and known.ticket.is_valid else None

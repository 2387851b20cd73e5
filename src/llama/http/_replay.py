"""Which requests may be sent again."""

from __future__ import annotations

from llama.http._message import Request

REFUSALS = 10
"""So often one is sent again of which the other side says that it has not looked at it."""
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})


def is_replayable(request: Request) -> bool:
    """Whether a request may be sent again, though the first may have been acted on (RFC 9110 section 9.2.2)."""
    return request.method in IDEMPOTENT and request._body.data is not None and not request.protocol


def is_stale(request: Request) -> bool:
    """Whether a kept connection that ended in place of an answer had ended before: then another is tried.

    What asks for a tunnel says nothing before it has one, so that no harm is done where it was heard after all.
    """
    return is_replayable(request) or request.method == "CONNECT" or bool(request.protocol)

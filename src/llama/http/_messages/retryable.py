"""Rules for retrying requests."""

from __future__ import annotations

from llama.http._messages.message import Request

REFUSALS = 10
"""The maximum number of retries of a request that servers report as not processed."""
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})


def is_replayable(request: Request) -> bool:
    """Whether a request may be sent again even if the server processed it before (RFC 9110 section 9.2.2)."""
    return request.method in IDEMPOTENT and request._body.data is not None and not request.protocol


def is_stale(request: Request) -> bool:
    """Whether to retry a request on a new connection after a reused one ended without a response.

    Tunnel requests are included: their data follows only after the response, so a repeated one does no harm.
    """
    return is_replayable(request) or request.method == "CONNECT" or bool(request.protocol)

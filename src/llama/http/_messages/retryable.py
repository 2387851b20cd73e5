"""Rules for retrying requests."""

from __future__ import annotations

from llama.http._messages.message import Request

MAX_REFUSED_RETRIES = 10
"""The maximum number of retries of a request that servers report as not processed."""
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})


def is_retryable(request: Request) -> bool:
    """Whether a request may be sent again even if the server processed it before (RFC 9110 section 9.2.2)."""
    return (
        request.method in IDEMPOTENT and request._body.buffered is not None and not request.upgrade_protocol
    )


def may_retry_on_stale_connection(request: Request) -> bool:
    """Whether to retry a request on a new connection after a reused one ended without a response.

    Tunnel requests are included: their data follows only after the response, so a repeated one does no harm.
    """
    return is_retryable(request) or request.method == "CONNECT" or bool(request.upgrade_protocol)

"""Error pages: the conversion of exceptions to responses."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeAlias

from llama._core.errors import (
    ConfigError,
    LlamaError,
    OverloadedError,
    ProtocolError,
    RefusedError,
    TLSError,
    TooLargeError,
    TruncatedError,
    UnreachableError,
)
from llama.http._messages.message import Request, Response

log = logging.getLogger("llama.server")

ErrorHandler: TypeAlias = Callable[[BaseException, int, Request | None], Response]
"""Makes the response from an exception, its status and the request (None if its head was invalid)."""


def status_of(error: BaseException) -> int:
    """Return the status for an exception: its `status`, 504 for a timeout, 502 for a ConnectionError, else 500."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status <= 599:
        return status
    if isinstance(error, TimeoutError):
        return 504
    return 502 if isinstance(error, ConnectionError) else 500


def plain_text_error(error: BaseException, status: int, request: Request | None) -> Response:
    """Make a page with one line of text: the status, its phrase, and for client errors (4xx) the message."""
    name = HTTPStatus(status).phrase if status in _KNOWN else "Error"
    detail = f": {error}" if isinstance(error, LlamaError) and status < 500 and str(error) else ""
    text = f"{status} {name}{detail}\n".encode(errors="replace")
    return Response(status, {"Content-Type": "text/plain; charset=utf-8"}, text)


def error_response(error: BaseException, error_handler: ErrorHandler, request: Request | None) -> Response:
    """Make the page for an exception, with Proxy-Status (RFC 9209), and Retry-After if the exception has one."""
    status = status_of(error)
    response = error_handler(error, status, request)
    retry_after = getattr(error, "retry_after", None)
    if isinstance(retry_after, int | float):
        response.headers.setdefault("Retry-After", str(max(0, math.ceil(retry_after))))
    response.headers.setdefault("Proxy-Status", _proxy_status("llama", error, status))
    return response


def named_page(page: ErrorHandler, proxy_name: str, factory: str) -> ErrorHandler:
    """Return the page with another name in Proxy-Status; raise ConfigError if the name is invalid."""
    if proxy_name == "llama":
        return page
    if not (proxy_name and proxy_name.isascii() and proxy_name.isprintable()):
        raise ConfigError(f"{factory}(proxy_name={proxy_name!r}): expected printable ASCII characters")
    name = proxy_name if _TOKEN.fullmatch(proxy_name) else '"' + _QUOTED.sub(r"\\\g<0>", proxy_name) + '"'

    def named(error: BaseException, status: int, request: Request | None) -> Response:
        response = page(error, status, request)
        response.headers.setdefault("Proxy-Status", _proxy_status(name, error, status))
        return response

    return named


def _proxy_status(name: str, error: BaseException, status: int) -> str:
    return f"{name}; error={_proxy_error(error, status)}"


def log_and_render_error(
    error: BaseException, error_handler: ErrorHandler, request: Request, where: object
) -> Response:
    """Make the page as `error_response` does, and log the error; nothing else logs it."""
    status = status_of(error)
    extra = {"error.type": type(error).__name__, "http.request.method": request.method}
    if not isinstance(error, LlamaError | TimeoutError | OSError):
        log.error("%s: %s failed", where, request.method, exc_info=error, extra=extra)
    elif status >= 500:
        log.warning("%s: %s: %d: %s", where, request.method, status, error, extra=extra)
    try:
        return error_response(error, error_handler, request)
    except Exception:
        log.exception("the error page failed")
        return Response(status)


_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")  # RFC 9651, section 3.3.4
_QUOTED = re.compile(r'[\\"]')
_KNOWN = {status.value for status in HTTPStatus}
_PROXY_ERRORS: list[tuple[type[BaseException], str]] = [
    (RefusedError, "http_request_denied"),
    (OverloadedError, "connection_limit_reached"),
    (TLSError, "tls_protocol_error"),
    (UnreachableError, "destination_unavailable"),
    (TruncatedError, "http_response_incomplete"),
    (ProtocolError, "http_protocol_error"),
    (TooLargeError, "http_response_body_size"),
    (TimeoutError, "http_response_timeout"),
    (ConnectionError, "connection_terminated"),
]


def _proxy_error(error: BaseException, status: int) -> str:
    if status < 500 and not isinstance(error, RefusedError):
        return "http_request_error"
    return next((name for kind, name in _PROXY_ERRORS if isinstance(error, kind)), "proxy_internal_error")

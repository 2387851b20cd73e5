"""Encoding of HTTP/1.1 messages.

The encoder sets Connection, Keep-Alive and Transfer-Encoding; other fields are written unchanged.
"""

import re
from http import HTTPStatus

from llama._core.errors import ProtocolError
from llama.http._h1.wire.framing import CHUNKED, UNTIL_CLOSE, content_length, ends_with_head
from llama.http._messages.headers import Headers

_LINE_PART = re.compile(r"[!-~\x80-\xff]+")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REASON = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding"})
_HOP_AND_LENGTH = _HOP | {"content-length"}
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def status_line(status: int, reason: str = "") -> str:
    """Return the first line of a response, with `reason` or the standard phrase of the status."""
    if not reason and status in _STATUS_LINES:
        return _STATUS_LINES[status]
    if not 100 <= status <= 999:
        raise ValueError(f"expected a status between 100 and 999, got {status}")
    if _REASON.fullmatch(reason) is None:
        raise ValueError(f"invalid reason {reason!r}: expected Latin-1 without control characters")
    return f"HTTP/1.1 {status} {reason}\r\n"


def response_framing(method: str, status: int, version: str, headers: Headers, length: int | None) -> int:
    """Return the framing for a response body of `length` bytes (None if unknown): bytes, CHUNKED or UNTIL_CLOSE.

    A Content-Length in `headers` is the length of a body of unknown length. Raises ProtocolError (500) if it differs
    from a known length.
    """
    if method == "HEAD" or status < 200 or status in (204, 304):
        return 0
    keys = headers._keys
    if length is not None and "content-length" not in keys:
        return length
    announced = content_length(headers)
    if length is None:
        if announced is not None:
            return announced
        return UNTIL_CLOSE if version == "1.0" else CHUNKED
    if announced is not None and announced != length:
        raise ProtocolError(f"Content-Length says {announced}, the body has {length} bytes", status=500)
    return length


def encode_response(
    method: str,
    status: int,
    reason: str,
    headers: Headers,
    framing: int,
    extra: str = "",
    length: int | None = None,
) -> bytes:
    """Encode the head of a response, with `extra` lines (each ending with CRLF) after its fields.

    `length` is the Content-Length of a response to HEAD, whose body is not sent.
    """
    keys = headers.names
    bodiless = ends_with_head(method, status)
    gone = _HOP_AND_LENGTH if bodiless else _HOP
    if framing == CHUNKED:
        extra = f"Transfer-Encoding: chunked\r\n{extra}"
    elif framing >= 0 and not bodiless and status != 304 and "content-length" not in keys:
        told = framing if method != "HEAD" else length
        if told or method != "HEAD":
            extra = f"Content-Length: {told}\r\n{extra}"
    return f"{status_line(status, reason)}{_join(headers, gone)}{extra}\r\n".encode("latin-1")


def _join(headers: Headers, gone: frozenset[str]) -> str:
    """Join the lines of the fields that are not in `gone`, each ending with CRLF."""
    lines, keys = headers._lines, headers._keys
    if not gone.isdisjoint(keys):
        lines = [line for line, key in zip(lines, keys, strict=True) if key not in gone]
    return "\r\n".join(lines) + "\r\n" if lines else ""


def request_framing(headers: Headers, length: int | None) -> int:
    """Return the framing for a request body of `length` bytes (None if unknown): bytes or CHUNKED."""
    announced = content_length(headers)
    if length is None:
        return CHUNKED if announced is None else announced
    if announced is not None and announced != length:
        raise ProtocolError(f"Content-Length says {announced}, the body has {length} bytes", status=500)
    return length


def encode_request(method: str, target: str, headers: Headers, framing: int, extra: str = "") -> bytes:
    """Encode the head of a request, with `extra` lines (each ending with CRLF) after its fields."""
    if _METHOD.fullmatch(method) is None:
        raise ValueError(f"method {method!r} is not a token")
    if _LINE_PART.fullmatch(target) is None:
        raise ValueError(f"invalid request target {target!r}: expected no spaces or control characters")
    if framing == CHUNKED:
        extra = f"Transfer-Encoding: chunked\r\n{extra}"
    elif "content-length" not in headers._keys and (framing or method in _METHODS_WITH_BODY):
        extra = f"Content-Length: {framing}\r\n{extra}"
    return f"{method} {target} HTTP/1.1\r\n{_join(headers, _HOP)}{extra}\r\n".encode("latin-1")


def encode_chunk(data: bytes) -> bytes:
    """Encode one chunk; `data` must not be empty, because an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def encode_last_chunk(trailers: Headers | None = None) -> bytes:
    """Encode the end of a chunked body, with its trailers."""
    if not trailers:
        return b"0\r\n\r\n"
    fields = "".join([f"{name}: {value}\r\n" for name, value in trailers])
    return f"0\r\n{fields}\r\n".encode("latin-1")

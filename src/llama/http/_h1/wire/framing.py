"""The length of a body, and the persistence of the connection (RFC 9112 sections 6.3 and 9.3).

Ambiguous framing is rejected, because two peers that read it differently allow request smuggling.
"""

from llama._core.errors import ProtocolError
from llama.http._h1.wire.fields import bad_message
from llama.http._messages.headers import Headers

CHUNKED = -1
"""A length: the body is chunked."""
UNTIL_CLOSE = -2
"""A length: the body ends with the connection."""

_COMMON = frozenset({"keep-alive", "Keep-Alive"})
_AFTER_LENGTH = len("content-length: ")


def content_length(headers: Headers) -> int | None:
    """Return the Content-Length or None; reject lists, signs, leading zeros, duplicates and more than 18 digits."""
    keys = headers._keys
    if "content-length" not in keys:
        return None
    if (count := keys.count("content-length")) > 1:
        raise bad_message(f"{count} Content-Length fields")
    value = headers._lines[keys.index("content-length")][_AFTER_LENGTH:]
    if not (value.isascii() and value.isdecimal()) or len(value) > 18 or (value[0] == "0" and value != "0"):
        raise bad_message(f"invalid Content-Length {value[:40]!r}")
    return int(value)


def response_content_length(headers: Headers) -> int | None:
    """Return the Content-Length of a response or None; merge equal values into one field (RFC 9110 section 8.6)."""
    try:
        return content_length(headers)
    except ProtocolError:
        values = {part.strip(" \t") for each in headers.get_all("content-length") for part in each.split(",")}
        if len(values) != 1:
            raise
        headers["Content-Length"] = values.pop()
        return content_length(headers)


def _is_chunked(headers: Headers, version: str) -> bool:
    if "transfer-encoding" not in headers.names:
        return False
    codings = [
        part.strip(" \t").lower() for v in headers.get_all("transfer-encoding") for part in v.split(",")
    ]
    if version == "1.0":
        raise bad_message("Transfer-Encoding in an HTTP/1.0 message")
    if "content-length" in headers.names:
        raise bad_message("both Transfer-Encoding and Content-Length")
    if codings == ["chunked"]:
        return True
    if codings.count("chunked") > 1 or "" in codings or "chunked" in codings[:-1]:
        raise bad_message("Transfer-Encoding must end with chunked, once")
    raise bad_message(f"unknown transfer coding {', '.join(codings)[:60]!r}", 501)


def request_length(method: str, version: str, headers: Headers) -> int:
    """Return the length of a request's body in bytes, or CHUNKED; a request is never UNTIL_CLOSE."""
    keys = headers.names
    if "content-length" not in keys and "transfer-encoding" not in keys:
        return 0
    length = CHUNKED if _is_chunked(headers, version) else content_length(headers) or 0
    if length and method == "CONNECT":
        raise bad_message("CONNECT with a body")
    return length


def ends_with_head(method: str, status: int) -> bool:
    """Whether a response ends with its head regardless of its fields (RFC 9112 section 6.3, RFC 9110 section 9.3.6)."""
    return status < 200 or status == 204 or (method == "CONNECT" and status < 300)


def drop_framing(headers: Headers) -> bool:
    """Remove Content-Length and Transfer-Encoding, which a response that ends with its head must not have.

    Returns whether they announced a body: the server may still send one, so the connection must not be reused.
    """
    lengths = headers.get_all("content-length")
    announced = "transfer-encoding" in headers.names or any(each != "0" for each in lengths)
    headers.discard("content-length")
    headers.discard("transfer-encoding")
    return announced


def response_length(method: str, status: int, version: str, headers: Headers) -> int:
    """Return the body length of a response that does not end with its head: bytes, CHUNKED or UNTIL_CLOSE."""
    chunked = "transfer-encoding" in headers._keys and _is_chunked(headers, version)
    length = response_content_length(headers)
    if length is not None and status == 200 and method == "GET":
        return length
    if method == "HEAD" or status == 304:
        return 0
    if chunked:
        return CHUNKED
    return UNTIL_CLOSE if length is None else length


def keeps_alive(version: str, headers: Headers) -> bool:
    """Whether the connection may be reused after this message."""
    keys = headers._keys
    if "connection" not in keys:
        return version != "1.0"
    if headers._lines[keys.index("connection")][12:] in _COMMON and keys.count("connection") == 1:
        return True
    tokens = headers.tokens("connection")
    if "close" in tokens:
        return False
    return version != "1.0" or "keep-alive" in tokens

"""Hop-by-hop fields, and the messages that a proxy forwards without them (RFC 9110 section 7.6)."""

from __future__ import annotations

from llama._core.errors import ProtocolError
from llama.http._messages.headers import Headers, headers_of_lines
from llama.http._messages.message import Request, Response

HOP_BY_HOP = frozenset(
    {
        "connection",
        "content_length",  # a second framing for backends that read underscores as hyphens
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "transfer_encoding",
        "upgrade",
    }
)
_KEPT = frozenset({"content-length", "host"})  # Connection cannot remove these
_USUAL = frozenset({"close", "keep-alive", "upgrade", "Close", "Keep-Alive", "Upgrade"})
_AFTER_CONNECTION = len("connection: ")
_new = Request.__new__


def _drop_usual(lines: list[str], keys: list[str]) -> None:
    """Drop the first Connection field if it names no other fields."""
    at = keys.index("connection")
    if lines[at][_AFTER_CONNECTION:] in _USUAL:
        del lines[at], keys[at]


def _named(headers: Headers) -> frozenset[str]:
    """Return the fields that Connection names, without those that a proxy must keep."""
    if headers["connection"] in _USUAL and headers.names.count("connection") == 1:
        return frozenset()
    return frozenset(headers.tokens("connection")) - _KEPT


def end_to_end(headers: Headers, gone: frozenset[str] = HOP_BY_HOP) -> Headers:
    """Return a copy without the hop-by-hop fields: those in `gone` and those that Connection names.

    `TE: trailers` is kept, as trailers are forwarded.
    """
    lines, keys = headers._lines.copy(), headers._keys.copy()
    if "connection" in keys:
        _drop_usual(lines, keys)
    if gone.isdisjoint(keys):
        return headers_of_lines(lines, keys)
    keys = headers._keys
    if "connection" in keys and (named := _named(headers)):
        gone |= named
    kept = [(line, key) for line, key in zip(headers._lines, keys, strict=True) if key not in gone]
    copy = headers_of_lines([line for line, _ in kept], [key for _, key in kept])
    if "te" in keys and "trailers" in headers.tokens("te"):
        put(copy, "TE", "trailers")
    return copy


def put(headers: Headers, name: str, value: str) -> None:
    """Append a field that is known to be well-formed, without checks."""
    headers._lines.append(f"{name}: {value}")
    headers._keys.append(name.lower())


def outgoing(request: Request, gone: frozenset[str] = HOP_BY_HOP) -> Request:
    """Return the request that a proxy forwards: a copy without the fields in `gone`, with the same body.

    Raise ProtocolError for CONNECT (405) and for an extended CONNECT other than WebSocket (501): either would open a
    tunnel that bypasses the rules.
    """
    if request.method == "CONNECT" and request.protocol != "websocket":
        if not request.protocol:
            raise ProtocolError("CONNECT requires a forward proxy", status=405)
        raise ProtocolError(f"extended CONNECT for {request.protocol[:60]!r} is not supported", status=501)
    copy = _new(Request)
    copy.method = request.method
    copy.headers = headers = end_to_end(request.headers, gone)
    copy.version = request.version
    copy.scheme = request.scheme
    copy.path = request.path
    copy.absolute = False
    copy.protocol = request.protocol
    copy._body = request._body
    copy._trailers = request._trailers
    copy._connection = request._connection
    copy._client = request._client
    copy._informer = request._informer
    known = request._extensions or request._connection
    copy._extensions = known.fork() if known is not None else None
    if copy.protocol:
        is_as_sent = copy.protocol == ", ".join(request.headers.tokens("upgrade"))
        headers.add("Upgrade", ", ".join(request.headers.get_all("upgrade")) if is_as_sent else copy.protocol)
    if copy.version == "1.0" and "expect" in headers._keys:
        headers.discard("Expect")  # RFC 9110 section 10.1.1
    return copy


def incoming(response: Response, via: str | None) -> Response:
    """Return the response that a proxy forwards: the same one, without its hop-by-hop fields and with Via."""
    headers = response.headers
    keys = headers._keys
    if "connection" in keys and response.upgrade is None:
        _drop_usual(headers._lines, keys)
    if not HOP_BY_HOP.isdisjoint(keys):
        headers = _stripped(response)
    if via is not None:
        headers._lines.append(f"Via: {response.version} {via}")
        headers._keys.append("via")
    return response


def _stripped(response: Response) -> Headers:
    asked = response.headers.get("upgrade") if response.upgrade is not None else None
    response.headers = headers = end_to_end(response.headers)
    if asked is not None:
        put(headers, "Upgrade", asked)
    return headers

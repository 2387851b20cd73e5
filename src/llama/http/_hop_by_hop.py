"""Fields that are for one connection only, and what a proxy makes of a message (RFC 9110 section 7.6)."""

from __future__ import annotations

from llama._errors import ProtocolError
from llama.http._headers import Headers, headers_of_lines
from llama.http._message import Request, Response

HOP_BY_HOP = frozenset(
    {
        "connection",
        "content_length",  # to a backend that takes underscores for hyphens it would be a second framing
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
_KEPT = frozenset({"content-length", "host"})  # whatever Connection says of them
_USUAL = frozenset({"close", "keep-alive", "upgrade", "Close", "Keep-Alive", "Upgrade"})
_AFTER_CONNECTION = len("connection: ")
_new = Request.__new__


def _drop_usual(lines: list[str], keys: list[str]) -> None:
    """Drop a Connection field that names nothing else; a second one is left."""
    at = keys.index("connection")
    if lines[at][_AFTER_CONNECTION:] in _USUAL:
        del lines[at], keys[at]


def _named(headers: Headers) -> frozenset[str]:
    """The fields that Connection names, as long as it is not about the connection alone."""
    if headers["connection"] in _USUAL and headers.names.count("connection") == 1:
        return frozenset()
    return frozenset(headers.tokens("connection")) - _KEPT


def end_to_end(headers: Headers, gone: frozenset[str] = HOP_BY_HOP) -> Headers:
    """A copy without the fields of this one connection, which are in `gone` and named by Connection.

    Of TE, that trailers are welcome is kept: they are passed on here.
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
    """Add a field that is known to be well-formed."""
    headers._lines.append(f"{name}: {value}")
    headers._keys.append(name.lower())


def outgoing(request: Request, gone: frozenset[str] = HOP_BY_HOP) -> Request:
    """The request that a proxy sends for one it got: its own header without what is in `gone`, the same body.

    ProtocolError for CONNECT (405) and for an extended CONNECT that is not for WebSocket (501): either would open a
    tunnel that no rule sees.
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
    """The response that a proxy passes on for one it got: the same, without what was for the proxy alone."""
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

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
_COMMON = frozenset({"close", "keep-alive", "upgrade", "Close", "Keep-Alive", "Upgrade"})
_AFTER_CONNECTION = len("connection: ")
_new = Request.__new__


def _drop_usual(lines: list[str], keys: list[str]) -> None:
    """Drop the first Connection field if it names no other fields."""
    at = keys.index("connection")
    if lines[at][_AFTER_CONNECTION:] in _COMMON:
        del lines[at], keys[at]


def _named(headers: Headers) -> frozenset[str]:
    """Return the fields that Connection names, without those that a proxy must keep."""
    if headers["connection"] in _COMMON and headers.names.count("connection") == 1:
        return frozenset()
    return frozenset(headers.tokens("connection")) - _KEPT


def strip_hop_by_hop(headers: Headers, drop: frozenset[str] = HOP_BY_HOP) -> Headers:
    """Return a copy without the hop-by-hop fields: those in `drop` and those that Connection names.

    `TE: trailers` is kept, as trailers are forwarded.
    """
    lines, keys = headers._lines.copy(), headers._keys.copy()
    if "connection" in keys:
        _drop_usual(lines, keys)
    if drop.isdisjoint(keys):
        return headers_of_lines(lines, keys)
    keys = headers._keys
    if "connection" in keys and (named := _named(headers)):
        drop |= named
    kept = [(line, key) for line, key in zip(headers._lines, keys, strict=True) if key not in drop]
    copy = headers_of_lines([line for line, _ in kept], [key for _, key in kept])
    if "te" in keys and "trailers" in headers.tokens("te"):
        append_unchecked(copy, "TE", "trailers")
    return copy


def append_unchecked(headers: Headers, name: str, value: str) -> None:
    """Append a field that is known to be well-formed, without checks."""
    headers._lines.append(f"{name}: {value}")
    headers._keys.append(name.lower())


def forward_request(request: Request, drop: frozenset[str] = HOP_BY_HOP) -> Request:
    """Return the request that a proxy forwards: a copy without the fields in `drop`, with the same body.

    Raise ProtocolError for CONNECT (405) and for an extended CONNECT other than WebSocket (501): either would open a
    tunnel that bypasses the rules.
    """
    if request.method == "CONNECT" and request.upgrade_protocol != "websocket":
        if not request.upgrade_protocol:
            raise ProtocolError("CONNECT requires a forward proxy", status=405)
        raise ProtocolError(
            f"extended CONNECT for {request.upgrade_protocol[:60]!r} is not supported", status=501
        )
    copy = _new(Request)
    copy.method = request.method
    copy.headers = headers = strip_hop_by_hop(request.headers, drop)
    copy.version = request.version
    copy.scheme = request.scheme
    copy.path = request.path
    copy.is_absolute_form = False
    copy.upgrade_protocol = request.upgrade_protocol
    copy._body = request._body
    copy._trailers = request._trailers
    copy._connection_extensions = request._connection_extensions
    copy._client = request._client
    copy._send_informational = request._send_informational
    known = request._extensions or request._connection_extensions
    copy._extensions = known.fork() if known is not None else None
    if copy.upgrade_protocol:
        is_as_sent = copy.upgrade_protocol == ", ".join(request.headers.tokens("upgrade"))
        headers.add(
            "Upgrade", ", ".join(request.headers.get_all("upgrade")) if is_as_sent else copy.upgrade_protocol
        )
    if copy.version == "1.0" and "expect" in headers._keys:
        headers.discard("Expect")  # RFC 9110 section 10.1.1
    return copy


def forward_response(response: Response, via: str | None) -> Response:
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
    response.headers = headers = strip_hop_by_hop(response.headers)
    if asked is not None:
        append_unchecked(headers, "Upgrade", asked)
    return headers

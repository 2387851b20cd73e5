"""HTTP/3 field sections to messages and back (RFC 9114 section 4)."""

from __future__ import annotations

import re

from llama._errors import ProtocolError, TooLarge
from llama.http._headers import Headers
from llama.http._message import Request, Response
from llama.http.wire._h1_fields import Limits

Fields = list[tuple[bytes, bytes]]
"""A field section as the wire has it, pseudo-fields first."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PATH = re.compile(rb"[!-~\x80-\xff]+")
_AUTHORITY = re.compile(rb"[!-~]+")
_NUMBER = re.compile(rb"[0-9]{1,19}")
_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})


def _malformed(message: str) -> ProtocolError:
    return ProtocolError(message, status=400)


def split_fields(fields: Fields, limits: Limits) -> tuple[dict[bytes, bytes], Headers]:
    """The pseudo-fields and the others, checked; crumbs of a Cookie are joined (RFC 9114 section 4.2.1).

    Raises ProtocolError for what is malformed, TooLarge (431) for too many fields or too large ones.
    """
    size = sum(len(name) + len(value) for name, value in fields)
    if size > limits.head or len(fields) > limits.fields + 5:
        raise TooLarge(f"{len(fields)} fields of {size} bytes are over the limit", status=431)
    pseudo: dict[bytes, bytes] = {}
    pairs: list[tuple[str, str]] = []
    crumbs: list[str] = []
    for name, value in fields:
        if name[:1] == b":":
            if pairs or crumbs or name in pseudo:
                raise _malformed(f"pseudo-field {name!r} is out of place")
            pseudo[name] = value
            continue
        key = _checked(name, value)
        if key == "cookie":
            crumbs.append(value.decode("latin-1"))
        else:
            pairs.append((key, value.decode("latin-1")))
    if crumbs:
        pairs.append(("cookie", "; ".join(crumbs)))
    return pseudo, Headers(pairs)


def _checked(name: bytes, value: bytes) -> str:
    if _NAME.fullmatch(name) is None:
        raise _malformed(f"field name {name[:60]!r} is no token in lower case")
    if _VALUE.fullmatch(value) is None or value.strip(b" \t") != value:
        raise _malformed(f"the value of {name.decode()} has a control character or outer whitespace")
    key = name.decode()
    if key in _CONNECTION or (key == "te" and value.lower() != b"trailers"):
        raise _malformed(
            f"field {key} says something about a connection, which HTTP/3 has no such fields for"
        )
    return key


def content_length(headers: Headers) -> int | None:
    """The declared length of a body, None when it is not declared; ProtocolError for what is no length."""
    values = set(headers.get_all("content-length"))
    if not values:
        return None
    value = values.pop()
    if values or _NUMBER.fullmatch(value.encode("latin-1")) is None:
        raise _malformed(f"content-length {value[:40]!r} is no length")
    return int(value)


def request_of(fields: Fields, limits: Limits) -> Request:
    """The request that a field section stands for, its body not set (RFC 9114 section 4.3.1)."""
    pseudo, headers = split_fields(fields, limits)
    method = pseudo.pop(b":method", b"")
    scheme = pseudo.pop(b":scheme", b"")
    path = pseudo.pop(b":path", b"")
    authority = pseudo.pop(b":authority", b"")
    if pseudo or _METHOD.fullmatch(method) is None:
        raise _malformed(f"pseudo-fields {sorted(pseudo)} with method {method[:40]!r} make no request")
    host = headers.get_all("host")
    if len(host) > 1 or (host and authority and host[0].encode("latin-1") != authority):
        raise _malformed("the host and authority of a request differ")
    named = authority or (host[0].encode("latin-1") if host else b"")
    if _AUTHORITY.fullmatch(named) is None or b"@" in named:
        raise _malformed(f"authority {named[:60]!r} is not one host")
    if method == b"CONNECT":
        if scheme or path:
            raise _malformed("a CONNECT request has no scheme and no path")
    elif scheme not in (b"https", b"http") or _PATH.fullmatch(path) is None:
        raise _malformed(f"a request has scheme {scheme[:20]!r} and path {path[:60]!r}")
    elif path[:1] != b"/" and not (path == b"*" and method == b"OPTIONS"):
        raise _malformed(f"path {path[:60]!r} does not begin with a slash")
    headers.discard("host")
    headers.insert(0, "host", named.decode("ascii"))
    request = Request(method.decode("ascii"), named.decode("ascii") if method == b"CONNECT" else "/", headers)
    request.path = path.decode("latin-1")
    request.scheme = scheme.decode("ascii")
    request.version = "3"
    return request


def request_fields(request: Request) -> Fields:
    """A request as a field section; fields that HTTP/3 has no place for are left out."""
    authority = request.authority.encode("latin-1")
    fields: Fields = [(b":method", request.method.encode("ascii"))]
    if request.method != "CONNECT":
        path = request.path or "/"
        fields.append((b":scheme", (request.scheme or "https").encode("ascii")))
        fields.append((b":path", (path if path[0] in "/*" else f"/{path}").encode("latin-1")))
    fields.append((b":authority", authority))
    return fields + plain_fields(request.headers, without="host")


def response_of(fields: Fields, limits: Limits) -> Response:
    """The response that a field section stands for, its body not set; an interim one has a status below 200."""
    pseudo, headers = split_fields(fields, limits)
    status = pseudo.pop(b":status", b"")
    if pseudo or len(status) != 3 or not status.isdigit() or not 100 <= int(status) <= 599:
        raise ProtocolError(f"status {status[:10]!r} makes no response", status=502)
    response = Response(int(status), headers)
    response.version = "3"
    return response


def response_fields(status: int, headers: Headers) -> Fields:
    """A response's head as a field section."""
    return [(b":status", b"%d" % status), *plain_fields(headers)]


def plain_fields(headers: Headers, without: str = "") -> Fields:
    """Fields in lower case; those about a connection, and those it names, are left out."""
    gone = _CONNECTION.union(headers.tokens("connection")) if "connection" in headers.names else _CONNECTION
    return [
        (key.encode("latin-1"), value.encode("latin-1"))
        for key, (_, value) in zip(headers.names, headers, strict=True)
        if key not in gone and key != without and (key != "te" or value.lower() == "trailers")
    ]

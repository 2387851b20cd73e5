"""Conversion between heads of HTTP/2 messages and field lists (RFC 9113 section 8)."""

from __future__ import annotations

import re

from llama._core.errors import ProtocolError
from llama.http._h1.wire.fields import bad_message
from llama.http._h1.wire.framing import content_length, ends_with_head, response_content_length
from llama.http._h1.wire.head import is_authority, is_host_and_port
from llama.http._h2.wire.hpack_decode import MALFORMED_BLOCK
from llama.http._h2.wire.hpack_table import Field
from llama.http._limits import H2Limits
from llama.http._messages.headers import Headers, headers_from_wire

PSEUDO_FIELDS = 6
"""The most pseudo-header fields of one head, which do not count against the limit on fields."""
_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
_PSEUDO = frozenset({":method", ":scheme", ":authority", ":path", ":protocol", ":status"})
_FORBIDDEN = _CONNECTION | _PSEUDO | {MALFORMED_BLOCK}
_DROPPED = _CONNECTION | {"http2-settings"}
_DROPPED_OF_BODILESS = _DROPPED | {"content-length"}
_DROPPED_OF_REQUESTS = _DROPPED | {"host"}
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}")
_PROTOCOL = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_PATH = re.compile(r'/[!"$-~\x80-\xff]*')
_STATUSES = {str(status): status for status in range(100, 1000) if status != 101}
_PLAIN_REQUEST = {":method", ":scheme", ":path", ":authority"}
_authorities: dict[str, bool] = {}


class RequestHead:
    """The validated head of one request."""

    __slots__ = ("headers", "length", "method", "path", "protocol", "scheme")

    method: str
    scheme: str
    """Empty for CONNECT."""
    path: str
    protocol: str
    """The :protocol of an extended CONNECT (RFC 8441), else empty."""
    headers: Headers
    """The fields; the first is Host, with the authority."""
    length: int | None
    """The value of Content-Length, if present."""

    @classmethod
    def unreadable(cls) -> RequestHead:
        """Return a placeholder for a head that exceeds a limit."""
        head = cls()
        head.method, head.scheme, head.path, head.protocol = "GET", "", "", ""
        head.headers, head.length = Headers(), None
        return head

    def copy(self) -> RequestHead:
        """Another with its own headers."""
        head = RequestHead()
        head.method = self.method
        head.scheme = self.scheme
        head.path = self.path
        head.protocol = self.protocol
        headers = self.headers
        head.headers = headers.copy()
        head.length = self.length
        return head


class ResponseHead:
    """The validated head of one response."""

    __slots__ = ("headers", "length", "status")

    status: int
    headers: Headers
    length: int | None

    def copy(self) -> ResponseHead:
        """Another with its own headers."""
        head = ResponseHead()
        head.status = self.status
        headers = self.headers
        head.headers = headers.copy()
        head.length = self.length
        return head


def oversized(size: int, limits: H2Limits) -> ProtocolError:
    """Return the error (431) for a field list of this size, which exceeds a limit."""
    if size > limits.max_header_list_size:
        return bad_message(f"the head is larger than {limits.max_header_list_size} bytes", 431)
    return bad_message(f"more than {limits.max_headers} header fields", 431)


def _regular(fields: list[Field], names: list[str]) -> Headers:
    """Return Headers with these fields. Rejects connection-specific and pseudo-header fields."""
    if not _FORBIDDEN.isdisjoint(names):
        name, value = next(field for field in fields if field[0] in _FORBIDDEN)
        if name == MALFORMED_BLOCK:
            raise bad_message(value)
        raise bad_message(f"{name} is not allowed among the fields of an HTTP/2 message")
    if "te" in names and any(value.lower() != "trailers" for name, value in fields if name == "te"):
        raise bad_message("expected TE to be 'trailers'")
    return headers_from_wire(fields, names)


def _split_pseudo(fields: list[Field]) -> tuple[dict[str, str], list[Field]]:
    """Split a field list into its pseudo-header fields, by name, and its regular fields."""
    at = 0
    for name, _ in fields:
        if name[:1] != ":":
            break
        at += 1
    pseudo = dict(fields[:at])
    if len(pseudo) != at:
        raise bad_message("a pseudo-header field occurs twice")
    return pseudo, fields[at:]


def parse_request(fields: list[Field], limits: H2Limits) -> RequestHead:
    """Parse a request's head. Raises ProtocolError if it is malformed, with 414 if its path is too long."""
    pseudo, regular = _split_pseudo(fields)
    head = RequestHead()
    head.headers = headers = _regular(regular, [name for name, _ in regular])
    names = headers._keys
    head.protocol = ""
    if len(pseudo) != 4 or pseudo.keys() != _PLAIN_REQUEST or pseudo[":method"] == "CONNECT":
        _check_pseudo(pseudo)
        head.protocol = pseudo.get(":protocol", "").lower()
    head.method = method = pseudo[":method"]
    if _METHOD.fullmatch(method) is None:
        raise bad_message(f"method {method[:60]!r} is not a token")
    head.scheme = scheme = pseudo.get(":scheme", "")
    if scheme not in ("https", "http") and ":scheme" in pseudo:
        head.scheme = _scheme(scheme)
    head.path = path = pseudo.get(":path", "")
    if ":path" in pseudo:
        _check_path(path, method, limits)
    _set_host(headers, names, pseudo.get(":authority", ""), bare_connect=not path)
    if "cookie" in names and names.count("cookie") > 1:
        _join_cookies(headers)
    head.length = content_length(headers) if "content-length" in names else None
    return head


def _check_pseudo(pseudo: dict[str, str]) -> None:
    """Check which pseudo-header fields are present (RFC 9113 sections 8.3.1 and 8.5, RFC 8441 section 4)."""
    known = pseudo.keys()
    method = pseudo.get(":method")
    if method is None:
        raise bad_message("a request without :method")
    if ":status" in known:
        raise bad_message(":status in a request")
    if method == "CONNECT" and ":protocol" not in known:
        if known != {":method", ":authority"} or not is_host_and_port(pseudo[":authority"]):
            raise bad_message("expected CONNECT to have only :authority, with a host and a port")
        return
    if ":protocol" in known and (method != "CONNECT" or _PROTOCOL.fullmatch(pseudo[":protocol"]) is None):
        raise bad_message("expected :protocol only with CONNECT, and a token")
    if ":scheme" not in known or ":path" not in known:
        raise bad_message("a request without :scheme or :path")


def _scheme(scheme: str) -> str:
    if _SCHEME.fullmatch(scheme) is None:
        raise bad_message(f"malformed scheme {scheme[:40]!r}")
    return scheme.lower()


def _check_path(path: str, method: str, limits: H2Limits) -> None:
    if len(path) > limits.max_path:
        raise bad_message(f"the path is longer than {limits.max_path} bytes", 414)
    if _PATH.fullmatch(path) is None and not (path == "*" and method == "OPTIONS"):
        raise bad_message(f"malformed path {path[:60]!r}")


def _set_host(headers: Headers, names: list[str], authority: str, *, bare_connect: bool) -> None:
    """Store the authority as the Host field, whether it was sent as :authority or as Host."""
    if "host" in names:
        hosts = headers.get_all("host")
        if len(hosts) > 1 or (authority and hosts[0] != authority):
            raise bad_message("Host differs from :authority")
        authority = hosts[0]
        headers.discard("host")
        names = headers._keys
    if not authority:
        raise bad_message("neither :authority nor Host")
    if authority not in _authorities:
        if not is_authority(authority):
            raise bad_message(f"malformed authority {authority[:60]!r}")
        if len(authority) < 80 and len(_authorities) < 1024:
            _authorities[authority] = True
    headers._lines.insert(0, f"host: {authority}")
    names.insert(0, "host")


def _join_cookies(headers: Headers) -> None:
    """Join Cookie fields that the peer has split (RFC 9113 section 8.2.3)."""
    headers["cookie"] = "; ".join(headers.get_all("cookie"))


def parse_response(fields: list[Field]) -> ResponseHead:
    """Parse a response's head. Raises ProtocolError if it is malformed."""
    pseudo, regular = _split_pseudo(fields)
    head = ResponseHead()
    status = _STATUSES.get(pseudo.get(":status", ""))
    if status is None or len(pseudo) != 1:
        raise bad_message(f"expected a valid :status and no other pseudo-header field, got {pseudo!r}"[:120])
    head.status = status
    head.headers = headers = _regular(regular, [name for name, _ in regular])
    head.length = None
    if "content-length" in headers._keys:
        if ends_with_head("", status):  # allowed, although no body follows (RFC 9113 section 8.1.1)
            headers.discard("content-length")
        else:
            head.length = response_content_length(headers)
    return head


def parse_trailers(fields: list[Field]) -> Headers:
    """Parse trailers. Raises ProtocolError if they are malformed."""
    return _regular(fields, [name for name, _ in fields])


def request_fields(
    method: str, scheme: str, authority: str, path: str, protocol: str, headers: Headers
) -> list[Field]:
    """Return the fields of a request's head.

    CONNECT has neither scheme nor path, unless a protocol makes it an extended CONNECT. Raises ValueError if the
    method or the path is malformed.
    """
    if method == "CONNECT" and not protocol:
        fields = [(":method", method), (":authority", authority)]
    else:
        fields = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
        if protocol:
            fields.append((":protocol", protocol))
    if _METHOD.fullmatch(method) is None:
        raise ValueError(f"method {method!r} is not a token")
    if (
        fields[-1][0] == ":path"
        and _PATH.fullmatch(path) is None
        and not (path == "*" and method == "OPTIONS")
    ):
        raise ValueError(f"malformed path {path!r}")
    return fields + _without(headers, _DROPPED_OF_REQUESTS)


def response_fields(status: int, headers: Headers) -> list[Field]:
    """Return the fields of a response's head. Raises ValueError for a status that HTTP/2 does not allow."""
    if not 100 <= status <= 999 or status == 101:
        raise ValueError(f"expected a status from 100 to 999 but not 101, got {status}")
    dropped = _DROPPED_OF_BODILESS if ends_with_head("", status) else _DROPPED
    return [(":status", str(status)), *_without(headers, dropped)]


def trailer_fields(trailers: Headers) -> list[Field]:
    """Return trailers as a field list."""
    return _without(trailers, _FORBIDDEN | _DROPPED_OF_REQUESTS | {"te", "content-length", "trailer"})


def _without(headers: Headers, dropped: frozenset[str]) -> list[Field]:
    """Return the fields without connection-specific ones, with names in lower case."""
    names = headers._keys
    fields = [(name, line[len(name) + 2 :]) for name, line in zip(names, headers._lines, strict=True)]
    if not dropped.isdisjoint(names):
        gone = dropped
        if "connection" in names:
            gone = dropped.union({*headers.tokens("connection")} - {"content-length", "te"})
        fields = [field for field in fields if field[0] not in gone]
    if "te" in names:
        fields = [field for field in fields if field[0] != "te"]
        if "trailers" in headers.tokens("te"):
            fields.append(("te", "trailers"))
    return fields

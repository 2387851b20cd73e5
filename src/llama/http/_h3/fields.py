"""Conversion between HTTP/3 field sections and messages, with the code of HTTP/2 (RFC 9114 section 4)."""

from __future__ import annotations

import re

from llama._core.errors import ProtocolError
from llama._core.extensions import Extensions
from llama.http._h1.extended_connect import needs_extended_connect, without_upgrade
from llama.http._h1.wire.fields import bad_message
from llama.http._h2.messages import fields_of_request, fields_of_response, request_from, response_from
from llama.http._h2.wire.fields import (
    PSEUDO_FIELDS,
    oversized,
    parse_request,
    parse_response,
    parse_trailers,
    response_fields,
    trailer_fields,
)
from llama.http._h2.wire.hpack_table import OVERHEAD, Field
from llama.http._limits import H2Limits, Limits
from llama.http._messages.body import EMPTY
from llama.http._messages.date import date_field
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, Response, SendInformational

Fields = list[tuple[bytes, bytes]]
"""A field section in the HTTP/3 library's form, pseudo-header fields first."""

_NAME = re.compile(rb":?[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def section_size(fields: Fields) -> int:
    """Return the size of a field section (RFC 9114 section 4.2.2)."""
    return sum([len(name) + len(value) for name, value in fields]) + OVERHEAD * len(fields)


def _decode_fields(fields: Fields, bounds: H2Limits) -> list[Field]:
    size = section_size(fields)
    if len(fields) > bounds.max_headers + PSEUDO_FIELDS or size > bounds.max_header_list_size:
        raise oversized(size, bounds)
    for name, value in fields:
        if _NAME.fullmatch(name) is None:
            raise bad_message(f"expected a field name that is a token in lower case, got {name[:60]!r}")
        if _VALUE.fullmatch(value) is None or value.strip(b" \t") != value:
            raise bad_message(f"the value of {name.decode()} has a control character or outer whitespace")
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def _encode_fields(fields: list[Field]) -> Fields:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def decode_request(
    fields: Fields, limits: Limits, connection: Extensions, informer: SendInformational
) -> tuple[Request, int | None]:
    """Parse a field section; return a Request without a body, and its Content-Length if it has one.

    Raises ProtocolError: 400 if the section is malformed, 431 or 414 if it is too large, 501 for extended CONNECT.
    """
    bounds = H2Limits(
        max_header_list_size=limits.max_head, max_headers=limits.max_headers, max_path=limits.max_start_line
    )
    head = parse_request(_decode_fields(fields, bounds), bounds)
    if head.protocol:
        raise bad_message(f"extended CONNECT for {head.protocol[:60]!r} is not supported over HTTP/3", 501)
    return request_from(head, EMPTY, "3", "https", connection, informer), head.length


def encode_request(request: Request, authority: str) -> tuple[Fields, int]:
    """Return a request's field section and the length of its body: 0 for no body, -1 if it is unknown."""
    if needs_extended_connect(request):
        raise ProtocolError(f"HTTP/3 has no upgrade to {request.upgrade_protocol} here", status=502)
    if request.upgrade_protocol:
        request = without_upgrade(request)
    fields, framing = fields_of_request(request, "https", authority)
    return _encode_fields(fields), framing


def decode_response(fields: Fields, limits: Limits) -> tuple[Response, int | None]:
    """Parse a field section; return a Response without a body, and its Content-Length if it has one.

    The status of an interim response is below 200. Raises ProtocolError (502) if the section is malformed.
    """
    try:
        head = parse_response(
            _decode_fields(
                fields, H2Limits(max_header_list_size=limits.max_head, max_headers=limits.max_headers)
            )
        )
    except ProtocolError as error:
        error.status = 502
        raise
    return response_from(head, EMPTY, "3"), head.length


def encode_response(method: str, response: Response) -> tuple[Fields, int]:
    """Return a response's field section and the length of its body: 0 for no body, -1 if it is unknown.

    Raises ValueError or ProtocolError if the response cannot be sent.
    """
    fields, framing = fields_of_response(method, response, date_field())
    return _encode_fields(fields), framing


def encode_head(status: int, headers: Headers) -> Fields:
    """Return the field section of an interim response, or of a response that starts a tunnel."""
    return _encode_fields(response_fields(status, headers))


def decode_trailers(fields: Fields, limits: Limits) -> Headers:
    """Parse trailers. Raises ProtocolError if they are malformed or exceed a limit."""
    return parse_trailers(
        _decode_fields(fields, H2Limits(max_header_list_size=limits.max_head, max_headers=limits.max_headers))
    )


def encode_trailers(trailers: Headers) -> Fields:
    """Return the field section of trailers."""
    return _encode_fields(trailer_fields(trailers))

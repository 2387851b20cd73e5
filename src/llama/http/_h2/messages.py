"""Conversion between messages and HTTP/2 fields, for client and server; HTTP/3 uses the same functions."""

from __future__ import annotations

from llama._core.extensions import Extensions
from llama.http._h1.wire.encode import request_framing, response_framing
from llama.http._h2.wire.fields import (
    RequestHead,
    ResponseHead,
    request_fields,
    response_fields,
    trailer_fields,
)
from llama.http._h2.wire.hpack_table import Field
from llama.http._messages.body import EMPTY, Body
from llama.http._messages.message import Message, Request, Response, SendInformational

_new_request = Request.__new__
_new_response = Response.__new__
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})
# Fields of the WebSocket handshake over HTTP/1.1; extended CONNECT does not use them (RFC 8441 section 5).
_HANDSHAKE = frozenset({"sec-websocket-key", "sec-websocket-accept"})


def request_from(
    head: RequestHead,
    body: Body,
    version: str,
    scheme: str,
    connection: Extensions,
    informer: SendInformational,
) -> Request:
    """Return a Request with this head and body. `scheme` is the connection's, used for CONNECT, which has none."""
    request = _new_request(Request)
    request.method = head.method
    request.headers = head.headers
    request.version = version
    request.scheme = head.scheme or scheme
    request.path = head.path
    request.upgrade_protocol = head.protocol
    request.is_absolute_form = True
    request._trailers = request._extensions = request._client = None
    request._connection_extensions = connection
    request._send_informational = informer
    request._body = body
    return request


def fields_of_response(method: str, response: Response, extra: tuple[Field, ...]) -> tuple[list[Field], int]:
    """Return the fields of a response's head and the length of its body: 0 for no body, -1 if it is unknown.

    Raises ValueError or ProtocolError if the response cannot be sent.
    """
    status, headers = response.status, response.headers
    if status < 200:
        raise ValueError(f"expected a final status of 200 or more, got {status}")
    length = response._body.length
    framing = response_framing(method, status, "2", headers, length)
    fields = response_fields(status, headers)
    names = headers._keys
    if status == 204 or (method == "CONNECT" and status < 300):
        fields = [field for field in fields if field[0] != "content-length"]
    elif "content-length" not in names and length and status != 304 and (framing > 0 or method == "HEAD"):
        fields.append(("content-length", str(length)))
    for field in extra:
        if field[0] not in names:
            fields.append(field)
    return fields, framing


def fields_of_upgrade(method: str, response: Response, extra: tuple[Field, ...]) -> list[Field]:
    """Return the fields of the response before `response.upgrade` takes over the stream; its status is 2xx."""
    status = response.status if 200 <= response.status < 300 else 200
    fields = response_fields(status, response.headers)
    names = response.headers._keys
    fields = [field for field in fields if field[0] != "content-length" and field[0] not in _HANDSHAKE]
    fields.extend([field for field in extra if field[0] not in names])
    return fields


def fields_of_request(request: Request, scheme: str, authority: str) -> tuple[list[Field], int]:
    """Return the fields of a request's head and the length of its body: 0 for no body, -1 if it is unknown.

    `authority` applies if the request names none.
    """
    headers = request.headers
    body = request._body
    names = headers._keys
    bare = body is EMPTY and "content-length" not in names
    framing = 0 if bare else request_framing(headers, body.length)
    method, path, protocol = request.method, request.path, request.upgrade_protocol
    if protocol and method != "CONNECT":
        method = "CONNECT"
    if method != "CONNECT" or protocol:
        if method == "OPTIONS" and path in ("", "*"):
            path = "*"
        elif path[:1] != "/":
            path = f"/{path}"
    fields = request_fields(method, scheme, request.authority or authority, path, protocol, headers)
    if protocol:
        fields = [field for field in fields if field[0] not in _HANDSHAKE and field[0] != "content-length"]
    elif "content-length" not in names and (framing > 0 or (not framing and method in _BODY_EXPECTED)):
        fields.append(("content-length", str(framing)))
    return fields, framing


def response_from(head: ResponseHead, body: Body, version: str) -> Response:
    """Return a Response with this head and body."""
    response = _new_response(Response)
    response.status = head.status
    response.reason = ""
    response.headers = head.headers
    response.version = version
    response.upgrade = None
    response._body = body
    response._trailers = response._extensions = response._on_close = None
    return response


def fields_of_trailers(message: Message) -> list[Field]:
    """Return the trailers of a message whose body has ended, as fields; empty if there are none."""
    trailers = message.trailers
    return trailer_fields(trailers) if trailers else []

"""Messages as HTTP/2 carries them, for both sides; HTTP/3 carries them alike."""

from __future__ import annotations

from llama._extensions import Extensions
from llama.http._body import EMPTY, Body
from llama.http._message import Informer, Message, Request, Response
from llama.http.wire._h1_encode import request_framing, response_framing
from llama.http.wire._h2_fields import (
    RequestHead,
    ResponseHead,
    request_fields,
    response_fields,
    trailer_fields,
)
from llama.http.wire._hpack_table import Field

_new_request = Request.__new__
_new_response = Response.__new__
_BODY_EXPECTED = frozenset({"POST", "PUT", "PATCH"})
# A WebSocket's handshake over HTTP/1.1 that an extended CONNECT does without (RFC 8441 section 5).
_HANDSHAKE = frozenset({"sec-websocket-key", "sec-websocket-accept"})


def request_from(
    head: RequestHead, body: Body, version: str, scheme: str, connection: Extensions, informer: Informer
) -> Request:
    """The request that a head and a body make; `scheme` is that of the connection, for CONNECT."""
    request = _new_request(Request)
    request.method = head.method
    request.headers = head.headers
    request.version = version
    request.scheme = head.scheme or scheme
    request.path = head.path
    request.protocol = head.protocol
    request.absolute = True
    request._trailers = request._extensions = request._client = None
    request._connection = connection
    request._informer = informer
    request._body = body
    return request


def fields_of_response(method: str, response: Response, extra: tuple[Field, ...]) -> tuple[list[Field], int]:
    """The fields of a response's head, and how long its body is: 0 where it has none, -1 where that is not known.

    ValueError or ProtocolError for a response that cannot be sent.
    """
    status, headers = response.status, response.headers
    if status < 200:
        raise ValueError(f"{status} is no final status")
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
    """The fields that begin what `response.upgrade` takes over; the status of success is 2xx."""
    status = response.status if 200 <= response.status < 300 else 200
    fields = response_fields(status, response.headers)
    names = response.headers._keys
    fields = [field for field in fields if field[0] != "content-length" and field[0] not in _HANDSHAKE]
    fields.extend([field for field in extra if field[0] not in names])
    return fields


def fields_of_request(request: Request, scheme: str, authority: str) -> tuple[list[Field], int]:
    """The fields of a request's head to `scheme` and `authority` where it names none, and how long its body is.

    The length is 0 where it has none, -1 where that is not known.
    """
    headers = request.headers
    body = request._body
    names = headers._keys
    bare = body is EMPTY and "content-length" not in names
    framing = 0 if bare else request_framing(headers, body.length)
    method, path, protocol = request.method, request.path, request.protocol
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
    """The response that a head and a body make."""
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
    """The fields after a message's body, which has ended; empty where there are none."""
    trailers = message.trailers
    return trailer_fields(trailers) if trailers else []

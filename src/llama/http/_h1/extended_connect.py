"""Conversion between HTTP/1.1 Upgrade and extended CONNECT (RFC 8441 section 5, RFC 6455 section 4)."""

from __future__ import annotations

import base64
import hashlib
import os

from llama._core.errors import ProtocolError
from llama.http._messages.body import EMPTY
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = "sec-websocket-key"


class NotSwitched(ProtocolError):
    """The server responded without switching to the protocol that an extended CONNECT requires."""


def as_upgrade(request: Request) -> Request:
    """Return a copy as a GET with Upgrade, with the key for a WebSocket handshake."""
    copy = _copy(request)
    copy.method = "GET"
    headers = copy.headers
    if request.protocol == "websocket" and _KEY not in headers:
        headers["Sec-WebSocket-Key"] = base64.b64encode(os.urandom(16)).decode()
    return copy


def needs_extended_connect(request: Request) -> bool:
    """Whether a request can be expressed over HTTP/2 and HTTP/3 only as an extended CONNECT.

    Other requests with Upgrade, such as those with a body or several protocols, remain valid without it.
    """
    protocol = request.protocol
    if request.method == "CONNECT":
        return bool(protocol)
    return (
        bool(protocol)
        and request.method == "GET"
        and request._body is EMPTY
        and "," not in protocol
        and "/" not in protocol
    )


def without_upgrade(request: Request) -> Request:
    """Return a copy without Upgrade, which a server may ignore (RFC 9110 section 7.8)."""
    copy = _copy(request)
    copy.headers.discard("Upgrade")
    copy.protocol = ""
    return copy


def _copy(request: Request) -> Request:
    copy = Request.__new__(Request)
    copy.method = request.method
    copy.headers = request.headers.copy()
    copy.version = request.version
    copy.scheme = request.scheme
    copy.path = request.path
    copy.absolute = request.absolute
    copy.protocol = request.protocol
    copy._body = request._body
    copy._trailers = request._trailers
    copy._connection = request._connection
    copy._client = request._client
    copy._informer = request._informer
    copy._extensions = request._extensions
    return copy


def accept_of(key: str) -> str:
    """Return the Sec-WebSocket-Accept value for a Sec-WebSocket-Key."""
    return base64.b64encode(
        hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    ).decode()


def check_accepted(request: Request, headers: Headers) -> None:
    """Raise ProtocolError (502) if the server's Sec-WebSocket-Accept does not match the request's key."""
    key = request.headers.get(_KEY)
    if (
        request.protocol == "websocket"
        and key is not None
        and headers.get("sec-websocket-accept") != accept_of(key)
    ):
        raise ProtocolError(
            "the upstream's Sec-WebSocket-Accept does not match the request's key", status=502
        )

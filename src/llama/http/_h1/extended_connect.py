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


def to_h1_upgrade(request: Request) -> Request:
    """Return a copy as a GET with Upgrade, with the key for a WebSocket handshake."""
    copy = _copy(request)
    copy.method = "GET"
    headers = copy.headers
    if request.upgrade_protocol == "websocket" and _KEY not in headers:
        headers["Sec-WebSocket-Key"] = base64.b64encode(os.urandom(16)).decode()
    return copy


def needs_extended_connect(request: Request) -> bool:
    """Whether a request can be expressed over HTTP/2 and HTTP/3 only as an extended CONNECT.

    Other requests with Upgrade, such as those with a body or several protocols, remain valid without it.
    """
    protocol = request.upgrade_protocol
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
    copy.upgrade_protocol = ""
    return copy


def _copy(request: Request) -> Request:
    copy = Request.__new__(Request)
    copy.method = request.method
    copy.headers = request.headers.copy()
    copy.version = request.version
    copy.scheme = request.scheme
    copy.path = request.path
    copy.is_absolute_form = request.is_absolute_form
    copy.upgrade_protocol = request.upgrade_protocol
    copy._body = request._body
    copy._trailers = request._trailers
    copy._connection_extensions = request._connection_extensions
    copy._client = request._client
    copy._send_informational = request._send_informational
    copy._extensions = request._extensions
    return copy


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept value for a Sec-WebSocket-Key."""
    return base64.b64encode(
        hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    ).decode()


def check_accept_key(request: Request, headers: Headers) -> None:
    """Raise ProtocolError (502) if the server's Sec-WebSocket-Accept does not match the request's key."""
    key = request.headers.get(_KEY)
    if (
        request.upgrade_protocol == "websocket"
        and key is not None
        and headers.get("sec-websocket-accept") != accept_key(key)
    ):
        raise ProtocolError(
            "the upstream's Sec-WebSocket-Accept does not match the request's key", status=502
        )

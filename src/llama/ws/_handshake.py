"""The opening handshake (RFC 6455 section 4), with negotiation of extensions and subprotocols."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence

from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.headers import build_extension, parse_extension

from llama._core.errors import ProtocolError
from llama.http import Headers, Request, Response

EXTENSIONS, SUBPROTOCOL = "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"
KEY, ACCEPT, VERSION = "Sec-WebSocket-Key", "Sec-WebSocket-Accept", "Sec-WebSocket-Version"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LIGHT = {"memLevel": 5}  # saves 16 KiB per connection and costs hardly any compression
_DEFLATE = ServerPerMessageDeflateFactory(
    server_max_window_bits=12, client_max_window_bits=12, compress_settings=_LIGHT
)
_OFFER = ClientPerMessageDeflateFactory(compress_settings=_LIGHT)


def asks_for_websocket(request: Request) -> bool:
    """Return whether a request offers an upgrade to WebSocket, possibly among other protocols."""
    return "websocket" in request.upgrade_protocol.split(", ")


def check_request(request: Request) -> list[tuple[str, str]]:
    """Check a client's handshake (RFC 6455 section 4.2.1, RFC 8441) and return the response fields that accept it.

    Raises ProtocolError with the status of the response.
    """
    headers = request.headers
    if headers.get_all(VERSION) != ["13"]:
        raise ProtocolError("Sec-WebSocket-Version is not 13", status=426)
    if request.method == "CONNECT":
        return []
    if request.method != "GET":
        raise ProtocolError("expected GET for a WebSocket handshake", status=405)
    keys = headers.get_all(KEY)
    if len(keys) != 1 or not _is_key(keys[0]):
        raise ProtocolError("a malformed Sec-WebSocket-Key")
    return [(ACCEPT, accept_key(keys[0]))]


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept value for a key."""
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def new_key() -> str:
    """Return a random Sec-WebSocket-Key."""
    return base64.b64encode(secrets.token_bytes(16)).decode()


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode(), validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def accept_deflate(headers: Headers) -> tuple[str, PerMessageDeflate | None]:
    """Negotiate the extensions that a client offers; return the response fields and the accepted compression.

    Unknown extensions are declined. Raises ProtocolError for a malformed field.
    """
    for name, parameters in _parsed(headers):
        if name != _DEFLATE.name:
            continue
        try:
            agreed, deflate = _DEFLATE.process_request_params(parameters, [])
        except NegotiationError:
            continue
        return build_extension([(_DEFLATE.name, agreed)]), deflate
    return "", None


def offer_deflate() -> str:
    """Return the extension fields of a client's offer."""
    return build_extension([(_OFFER.name, _OFFER.get_request_params())])


def accepted_deflate(headers: Headers, *, offered: bool) -> PerMessageDeflate | None:
    """Return the compression that a server accepted; ProtocolError (502) for anything that was not offered."""
    deflate: PerMessageDeflate | None = None
    for name, parameters in _parsed(headers, 502):
        if not offered or name != _OFFER.name or deflate is not None:
            raise ProtocolError(f"the server uses the extension {name!r}, which was not offered", status=502)
        try:
            deflate = _OFFER.process_response_params(parameters, [])
        except NegotiationError as error:
            raise ProtocolError(f"the server answered to the offer of {name}: {error}", status=502) from None
    return deflate


def agreed_takeover(headers: Headers) -> tuple[bool | None, bool | None]:
    """What a response says of deflate: whether the client keeps its context from message to message, and the server.

    Both are None where nothing is deflated; ProtocolError for other extensions.
    """
    found = _parsed(headers, 502)
    if not found:
        return None, None
    if [name for name, _ in found] != [_DEFLATE.name]:
        raise ProtocolError("extensions that are not known", status=502)
    said = {name for name, _ in found[0][1]}
    return "client_no_context_takeover" not in said, "server_no_context_takeover" not in said


def _parsed(headers: Headers, status: int = 400) -> list[tuple[str, list[tuple[str, str | None]]]]:
    try:
        return [
            (name, list(parameters))
            for value in headers.get_all(EXTENSIONS)
            for name, parameters in parse_extension(value)
        ]
    except InvalidHandshake as error:
        raise ProtocolError(f"malformed Sec-WebSocket-Extensions: {error}", status=status) from None


def offered_subprotocols(headers: Headers) -> list[str]:
    """Return the subprotocols that a client offers; they are case-sensitive."""
    return [
        name for each in headers.get_all(SUBPROTOCOL) for part in each.split(",") if (name := part.strip())
    ]


def check_response(response: Response, key: str) -> None:
    """Check a server's response to a key; ProtocolError (502) if it is not a valid handshake."""
    if response.headers.get_all(ACCEPT) != [accept_key(key)]:
        raise ProtocolError("the server's Sec-WebSocket-Accept does not match the key", status=502)


def accepted_subprotocol(headers: Headers, offered: Sequence[str]) -> str | None:
    """Return the subprotocol that a server chose; ProtocolError (502) if it was not offered."""
    chosen = offered_subprotocols(headers)
    if not chosen:
        return None
    if len(chosen) > 1 or chosen[0] not in offered:
        named = ", ".join(chosen)
        raise ProtocolError(f"the server chose the subprotocol {named!r}, which was not offered", status=502)
    return chosen[0]

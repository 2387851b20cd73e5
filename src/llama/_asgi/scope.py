"""The ASGI scopes of a request."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import unquote

from cryptography import x509

from llama._asgi.types import Scope
from llama._core.server import LocalAddress
from llama.http import Request
from llama.tls import TLSInfo

_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class _TLSScope(dict[str, Any]):
    """The TLS extension of the scope, made once for a connection."""


def http_scope(request: Request, state: dict[str, Any], root_path: str) -> Scope:
    """Return the scope of an HTTP request."""
    scope = _scope(request, state, root_path)
    scope["type"] = "http"
    scope["method"] = request.method
    scope["scheme"] = request.scheme or "http"
    scope["extensions"]["http.response.trailers"] = {}
    scope["extensions"]["http.response.early_hint"] = {}
    return scope


def websocket_scope(request: Request, state: dict[str, Any], root_path: str) -> Scope:
    """Return the scope of a WebSocket request."""
    scope = _scope(request, state, root_path)
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if request.scheme in ("https", "wss") else "ws"
    offers = ",".join(request.headers.get_all("sec-websocket-protocol"))
    scope["subprotocols"] = [offer for each in offers.split(",") if (offer := each.strip())]
    scope["extensions"]["websocket.http.response"] = {}
    return scope


def _scope(request: Request, state: dict[str, Any], root_path: str) -> Scope:
    path, _, query = (request.path or "/").partition("?")
    headers = request.headers
    known = request._extensions if request._extensions is not None else request._connection_extensions
    local = known.get(LocalAddress) if known is not None else None
    info = known.get(TLSInfo) if known is not None else None
    client = request.client
    raw_path = path.encode("latin-1")
    if "%" in path or not path.isascii():
        path = unquote(path.encode("latin-1").decode("utf-8", "replace"))
    return {
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.version,
        "path": path,
        "raw_path": raw_path,
        "query_string": query.encode("latin-1"),
        "root_path": root_path,
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, (_, value) in zip(headers.names, headers, strict=True)
        ],
        "client": tuple(client) if client is not None else None,
        "server": tuple(local) if local is not None else None,
        "state": state.copy(),
        "extensions": {"tls": _tls(request, info)} if info is not None else {},
    }


def _tls(request: Request, info: TLSInfo) -> dict[str, Any]:
    known = request.extensions.get(_TLSScope)
    if known is None:
        known = _TLSScope(_describe(info))
        if request._connection_extensions is not None:
            request._connection_extensions.set(known)
    return dict(known)


def _describe(info: TLSInfo) -> dict[str, Any]:
    der = info.peer_certificate_der
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)] if der else [],
        "client_cert_name": x509.load_der_x509_certificate(der).subject.rfc4514_string() if der else None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(info.version),
        "cipher_suite": None,
    }

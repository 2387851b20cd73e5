"""Layers around request handlers, one in each module, re-exported from `llama.http`."""

from llama._server import User
from llama.http.layers._access_log import access_log
from llama.http.layers._add_header import add_header
from llama.http.layers._alt_svc import alt_svc
from llama.http.layers._auth import auth
from llama.http.layers._basic_auth import basic_auth, proxy_auth
from llama.http.layers._bearer_auth import bearer_auth
from llama.http.layers._body_limit import body_limit
from llama.http.layers._compress import compress
from llama.http.layers._decompress import decompress
from llama.http.layers._limit import limit
from llama.http.layers._map_body import map_body
from llama.http.layers._normalize_path import normalize_path
from llama.http.layers._rate_limit import rate_limit
from llama.http.layers._remove_header import remove_header
from llama.http.layers._request_id import RequestId, request_id
from llama.http.layers._require_header import require_header
from llama.http.layers._retry import retry
from llama.http.layers._rewrite import rewrite
from llama.http.layers._route import PathParameters, When, route, when
from llama.http.layers._set_header import set_header
from llama.http.layers._static import static
from llama.http.layers._timeout import timeout
from llama.http.layers._trace import trace

__all__ = [
    "PathParameters",
    "RequestId",
    "User",
    "When",
    "access_log",
    "add_header",
    "alt_svc",
    "auth",
    "basic_auth",
    "bearer_auth",
    "body_limit",
    "compress",
    "decompress",
    "limit",
    "map_body",
    "normalize_path",
    "proxy_auth",
    "rate_limit",
    "remove_header",
    "request_id",
    "require_header",
    "retry",
    "rewrite",
    "route",
    "set_header",
    "static",
    "timeout",
    "trace",
    "when",
]

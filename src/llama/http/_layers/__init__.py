"""Layers around request handlers, one in each module, re-exported from `llama.http`."""

from llama._core.server import User
from llama.http._layers.access_log import access_log
from llama.http._layers.alt_svc import alt_svc
from llama.http._layers.auth.basic import basic_auth, proxy_auth
from llama.http._layers.auth.bearer import bearer_auth
from llama.http._layers.auth.custom import auth
from llama.http._layers.bodies.compress import compress
from llama.http._layers.bodies.decompress import decompress
from llama.http._layers.bodies.map_body import map_body
from llama.http._layers.headers.add import add_header
from llama.http._layers.headers.remove import remove_header
from llama.http._layers.headers.require import require_header
from llama.http._layers.headers.set import set_header
from llama.http._layers.limits.body_limit import body_limit
from llama.http._layers.limits.concurrency_limit import concurrency_limit
from llama.http._layers.limits.rate_limit import rate_limit
from llama.http._layers.limits.timeout import timeout
from llama.http._layers.request_id import RequestId, request_id
from llama.http._layers.retry import retry
from llama.http._layers.routing.normalize_path import normalize_path
from llama.http._layers.routing.rewrite import rewrite
from llama.http._layers.routing.route import PathParameters, RouteMatcher, route, when
from llama.http._layers.static.files import static
from llama.http._layers.trace import trace

__all__ = [
    "PathParameters",
    "RequestId",
    "RouteMatcher",
    "User",
    "access_log",
    "add_header",
    "alt_svc",
    "auth",
    "basic_auth",
    "bearer_auth",
    "body_limit",
    "compress",
    "concurrency_limit",
    "decompress",
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

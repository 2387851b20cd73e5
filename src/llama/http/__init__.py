"""HTTP of any version: messages, servers, clients, proxies, and layers for them."""

from llama.http._client.client import client
from llama.http._h3.factories import h3_client, h3_server
from llama.http._layers import (
    PathParameters,
    RequestId,
    RouteMatcher,
    User,
    access_log,
    add_header,
    alt_svc,
    auth,
    basic_auth,
    bearer_auth,
    body_limit,
    compress,
    concurrency_limit,
    decompress,
    map_body,
    normalize_path,
    proxy_auth,
    rate_limit,
    remove_header,
    request_id,
    require_header,
    retry,
    rewrite,
    route,
    set_header,
    static,
    timeout,
    trace,
    when,
)
from llama.http._limits import H2Limits, Limits
from llama.http._messages.body import Body
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, RequestHandler, Response
from llama.http._messages.origin import Origin
from llama.http._proxy.connect import connect
from llama.http._proxy.forward import proxy
from llama.http._proxy.forwarded import forwarded
from llama.http._proxy.forwarded_fields import ForwardedFor
from llama.http._proxy.redirect import redirect
from llama.http._proxy.reverse import reverse_proxy
from llama.http._proxy.rules import TargetRule
from llama.http._server import server

__all__ = [
    "Body",
    "ForwardedFor",
    "H2Limits",
    "Headers",
    "Limits",
    "Origin",
    "PathParameters",
    "Request",
    "RequestHandler",
    "RequestId",
    "Response",
    "RouteMatcher",
    "TargetRule",
    "User",
    "access_log",
    "add_header",
    "alt_svc",
    "auth",
    "basic_auth",
    "bearer_auth",
    "body_limit",
    "client",
    "compress",
    "concurrency_limit",
    "connect",
    "decompress",
    "forwarded",
    "h3_client",
    "h3_server",
    "map_body",
    "normalize_path",
    "proxy",
    "proxy_auth",
    "rate_limit",
    "redirect",
    "remove_header",
    "request_id",
    "require_header",
    "retry",
    "reverse_proxy",
    "rewrite",
    "route",
    "server",
    "set_header",
    "static",
    "timeout",
    "trace",
    "when",
]

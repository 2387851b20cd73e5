"""`http2.py LISTEN CERT KEY [UPSTREAM]`: over TLS the reverse proxy with three layers, or the small application."""

import sys

from benchmarks.servers.app import app
from llama import asgi, http, run, stack, tls

if __name__ == "__main__":
    listen, cert, key, *upstream = sys.argv[1:]
    if upstream:
        handler = stack(
            tls.server(cert, key),
            http.server(),
            http.forwarded(["10.0.0.0/8"]),
            http.set_header("X-Frame-Options", "DENY"),
            http.request_id(),
            http.reverse_proxy(upstream[0]),
        )
    else:
        handler = stack(tls.server(cert, key), http.server(), asgi(app))
    run(handler, listen=listen)

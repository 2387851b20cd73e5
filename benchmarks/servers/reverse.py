"""`reverse.py LISTEN UPSTREAM`: an HTTP reverse proxy with three layers."""

import sys

from llama import http, run, stack

if __name__ == "__main__":
    run(
        stack(
            http.server(),
            http.forwarded(["10.0.0.0/8"]),
            http.set_header("X-Frame-Options", "DENY"),
            http.request_id(),
            http.reverse_proxy(sys.argv[2]),
        ),
        listen=sys.argv[1],
    )

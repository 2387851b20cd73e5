"""A reverse proxy in front of two upstreams: their answers stream through, WebSocket passes, one may fail."""

from llama import http, run, stack

run(
    stack(
        http.server(head_timeout=10, idle_timeout=60),
        http.forwarded(["127.0.0.1"]),  # a load balancer on this machine may say who a request is from
        http.request_id(),
        http.reverse_proxy(
            {"http://127.0.0.1:8001": 2, "http://127.0.0.1:8002": 1},
            balance="least_connections",
            client=http.client(connect_timeout=2, response_header_timeout=30),
        ),
    ),
    listen="127.0.0.1:8080",
)

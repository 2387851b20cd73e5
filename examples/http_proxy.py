"""A forward proxy with passwords: whole URLs and CONNECT, no mail, and a second proxy behind it."""

from llama import http, run, stack

run(
    stack(
        http.server(head_timeout=10),
        http.proxy_auth({"john": "secret"}),
        http.proxy(
            connect=http.connect("127.0.0.1:3128"),
            deny=["*:25", "*.internal"],
        ),
    ),
    listen="127.0.0.1:8080",
)

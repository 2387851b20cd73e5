"""An HTTP service: a handler is any async function of a request, and layers go around it."""

from llama import concurrency_limit, http, run, stack


async def hello(request: http.Request) -> http.Response:
    name = await request.body.read(100)
    return http.Response(200, {"Content-Type": "text/plain"}, b"hello " + (name or b"world") + b"\n")


run(
    stack(
        http.server(head_timeout=10, idle_timeout=60),
        http.request_id(),
        http.access_log(),
        http.set_header("Cache-Control", "no-store"),
        concurrency_limit(1000),
        hello,
    ),
    listen="127.0.0.1:8080",
)

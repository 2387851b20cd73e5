"""A site of files and an API behind it, with what one usually wants around them; each is a layer of its own."""

from llama import http, run, stack, trace
from llama.http import PathParameters, Request, Response


async def user(request: Request) -> Response:
    name = request.extensions[PathParameters]["name"]
    return Response(
        200, {"Content-Type": "text/plain"}, f"hello {name}, this is {request.extensions[http.User]}\n"
    )


def session(request: Request) -> str | None:
    return {"session=1": "mary"}.get(request.headers.get("cookie", ""))


api = stack(
    http.auth(session),
    http.concurrency_limit(10),  # at once, for each client
    http.timeout(lambda request: 60 if request.method == "POST" else 5),
    http.route(("GET /api/users/{name}", user)),
)

run(
    stack(
        http.server(head_timeout=10, idle_timeout=60),
        http.access_log("combined"),
        http.request_id(),
        http.normalize_path(),
        http.rate_limit(50, burst=200),
        http.set_header("X-Frame-Options", "DENY", on="response"),
        http.compress(),
        http.route(("/api/{rest...}", stack(trace("api"), api)), default=http.static("public")),
    ),
    listen="127.0.0.1:8080",
)

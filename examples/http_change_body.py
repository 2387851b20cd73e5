"""A layer of one's own: it sees each request and changes each response as it streams by."""

from llama import http, layer, run, stack
from llama.http import Request, RequestHandler, Response


@layer
async def change(request: Request, inner: RequestHandler) -> Response:
    request.headers["x-seen-by"] = "llama"
    response = await inner(request)
    response.body = response.body.replace(b"cloud", b"llama")  # across chunks; decoded; framing follows
    return response


async def weather(request: Request) -> Response:
    return Response(body=[b"a clo", b"ud, seen by ", request.headers["x-seen-by"].encode()])


run(stack(http.server(), change, weather), listen="127.0.0.1:8080")

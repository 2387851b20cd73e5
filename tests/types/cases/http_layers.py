"""Layers of exchanges that take functions of the request, and exchanges as ASGI applications, good and bad.

Read by the type checkers only.
"""

from llama import ConnectionHandler, Stream, http, stack, to_asgi
from llama.http import Request, RequestHandler, Response


async def answer(request: Request) -> Response:
    return Response()


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def who(request: Request) -> str | None:
    return request.headers.get("x-user")


def of_stream(stream: Stream) -> float:
    return 5


def good() -> None:
    exchange: RequestHandler = stack(
        http.concurrency_limit(3, key=lambda request: request.authority, queue=None),
        http.timeout(lambda request: 5 if request.method == "GET" else None),
        http.timeout(5, per_exchange=True),
        http.trace(lambda request: request.method),
        http.auth(who),
        http.auth(lambda request: request.method == "GET", challenge="Token"),
        answer,
    )
    handler: ConnectionHandler = stack(http.server(), http.trace("site"), exchange)
    _ = handler, to_asgi(exchange), to_asgi(http.reverse_proxy("http://127.0.0.1:8000"))


def bad() -> None:
    exchange: RequestHandler = stack(http.concurrency_limit(3), echo)  # expect: error
    exchange = stack(http.timeout(of_stream), answer)  # expect: error
    exchange = stack(http.auth(echo), answer)  # expect: error
    exchange = stack(http.concurrency_limit, answer)  # expect: error
    _ = exchange, to_asgi(echo), to_asgi(stack(http.server(), answer))  # expect: error

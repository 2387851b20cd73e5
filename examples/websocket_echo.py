"""A WebSocket that says everything back, beside an ordinary page on the same port."""

from llama import http, run, stack, ws
from llama.http import Request, Response
from llama.ws import WebSocket


async def echo(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


async def page(request: Request) -> Response:
    return Response(body=b"the echo is at /echo")


run(
    stack(http.server(), http.route(("/echo", stack(ws.server(), echo)), default=page)),
    listen="127.0.0.1:8080",
)

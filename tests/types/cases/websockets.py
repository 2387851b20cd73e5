"""Stacks with WebSockets, good and bad. Read by the type checkers only."""

from typing import assert_type

from llama import ConnectionHandler, Stream, concurrency_limit, http, stack, tcp, timeout, ws
from llama.http import Request, RequestHandler, Response
from llama.ws import Message, RelayedWebSocket, WebSocket


async def echo(socket: WebSocket) -> None:
    async for message in socket:
        assert_type(message, str | bytes)
        await socket.send(message)


async def page(request: Request) -> Response:
    return Response()


async def bytes_only(stream: Stream) -> None:
    await stream.aclose()


def same(message: Message) -> Message | None:
    return message


async def same_later(message: Message) -> Message | None:
    return message


async def watch(conversation: RelayedWebSocket) -> None:
    await conversation.send_to_client("hello")


def wrong(message: Message) -> str:
    return ""


def good() -> None:
    handler: ConnectionHandler = stack(
        http.server(), ws.server(subprotocols=["chat"], origins=["https://a", None]), echo
    )
    handler = stack(http.server(), ws.server(), timeout(60), concurrency_limit(9), echo)
    exchange: RequestHandler = http.route(("/chat", stack(ws.server(), echo)), default=page)
    exchange = stack(ws.inspect(same), ws.inspect(same_later, on_open=watch, on_close=watch), http.proxy())
    handler = stack(http.server(), ws.inspect(same), exchange)
    _ = handler


async def client() -> None:
    async with ws.connect("ws://a/", connect=tcp.connect(), headers={"a": "b"}) as socket:
        assert_type(socket, WebSocket)
        assert_type(await socket.receive(), str | bytes)
        assert_type(await socket.ping(), float)
        await socket.send(memoryview(b"x"))
    async with ws.connect("ws://a/", client=stack(ws.server(), echo)):
        pass


def bad() -> None:
    handler: ConnectionHandler
    handler = stack(http.server(), ws.server(), page)  # expect: error
    handler = stack(http.server(), ws.server(), bytes_only)  # expect: error
    handler = stack(http.server(), echo)  # expect: error
    handler = stack(ws.server(), echo)  # expect: error
    handler = stack(http.server(), ws.inspect(same), echo)  # expect: error
    exchange: RequestHandler
    exchange = stack(ws.inspect(wrong), page)  # expect: error
    exchange = stack(ws.inspect(same, on_open=same), page)  # expect: error
    exchange = stack(ws.server(max_size="1"), echo)  # expect: error
    _ = handler, exchange


async def bad_client(socket: WebSocket) -> None:
    await socket.send(1)  # expect: error
    async with ws.connect("ws://a/", connect=echo):  # expect: error
        pass

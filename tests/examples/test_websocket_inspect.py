import asyncio

from llama import http, serve, stack, tcp, ws
from llama.ws import WebSocket
from tests.examples.conftest import Start


async def weather(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(f"cloud, said {message!r}")


def test_messages_are_changed_and_dropped(example: Start) -> None:
    async def talk() -> None:
        upstream = tcp.server("127.0.0.1:0", stack(http.server(), ws.server(), weather))
        async with serve(upstream) as serving:
            running = example("websocket_inspect", {8000: int(serving.addresses[0].rpartition(":")[2])})
            async with ws.connect(f"ws://127.0.0.1:{running.port(8080)}/") as socket:
                await socket.send("secret")
                await socket.send("hello")
                assert await socket.receive() == "llama, said 'hello'"
            running.stop()

    asyncio.run(talk())

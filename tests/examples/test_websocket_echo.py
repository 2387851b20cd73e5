import asyncio

from llama import ws
from tests.examples.conftest import Start
from tests.examples.helpers import client, read_all


def test_what_is_said_comes_back(example: Start) -> None:
    running = example("websocket_echo")
    port = running.port(8080)

    async def talk() -> None:
        async with ws.connect(f"ws://127.0.0.1:{port}/echo") as socket:
            await socket.send("hello")
            assert await socket.receive() == "hello"

    asyncio.run(talk())
    with client(port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_all(sock).endswith(b"\r\n\r\nthe echo is at /echo")
    running.stop()

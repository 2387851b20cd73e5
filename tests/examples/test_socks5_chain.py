import asyncio

from llama import Connector, Stream, Target, serve, socks5, tcp
from tests.examples.conftest import Start
from tests.examples.helpers import client, service


def elsewhere(ports: dict[int, int]) -> Connector:
    """Leads the ports that the example names to where they are in the test."""
    connect = tcp.connect()

    async def lead(target: Target, /) -> Stream:
        return await connect(Target(target.host, ports[target.port]))

    return lead


def ask(port: int) -> bytes:
    with client(port) as sock:
        sock.sendall(b"john")
        return sock.recv(100)


async def test_two_proxies_lead_to_the_service(example: Start) -> None:
    with service(lambda asked: b"hello " + asked) as port:
        last = socks5.server(auth={"john": "secret"}, connect=elsewhere({8080: port}))
        async with serve(last, listen="127.0.0.1:0") as second:
            near = socks5.server(connect=elsewhere({1081: second.port}))
            async with serve(near, listen="127.0.0.1:0") as first:
                running = example("socks5_chain", {9050: first.port})
                named = await asyncio.to_thread(running.port, 7007)
                assert await asyncio.to_thread(ask, named) == b"hello john"
                await asyncio.to_thread(running.stop)

"""WebSockets that are slow, and that break off."""

import asyncio

import pytest

from llama import (
    ConnectionHandler,
    StreamClosedError,
    TruncatedError,
    http,
    layer,
    mitm,
    serve,
    stack,
    tls,
    ws,
)
from llama.http import Request, RequestHandler, Response
from tests.mitm.worlds import HOST, World, fronted, page


async def echo(socket: ws.WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


def site(world: World) -> ConnectionHandler:
    return stack(tls.server(*world.files()), http.server(), ws.server(), echo)


def same(message: ws.Message) -> ws.Message:
    return message


async def seconds_for(socket: ws.WebSocket, count: int, size: int) -> float:
    """How long so many messages take, there and back."""
    clock = asyncio.get_running_loop()
    began = clock.time()
    for _ in range(count):
        await socket.send(b"x" * size)
    for _ in range(count):
        assert len(await socket.receive()) == size
    return clock.time() - began


@pytest.mark.parametrize(("down", "up"), [(20_000, None), (None, 20_000), (20_000, 20_000)])
async def test_throttle_applies_to_a_websocket_of_this_process(down: float | None, up: float | None) -> None:
    exchange = stack(
        http.server(), mitm.throttle(download=down, upload=up), ws.server(compression=False), echo
    )
    async with (
        serve(exchange, listen="127.0.0.1:0") as served,
        ws.connect(f"ws://{served.address}/", compression=False) as socket,
    ):
        assert await seconds_for(socket, 8, 2000) > 0.4


@pytest.mark.parametrize("inspected", [False, True])
@pytest.mark.parametrize(("down", "up"), [(20_000, None), (None, 20_000)])
async def test_throttle_applies_to_an_intercepted_websocket(
    world: World, down: float | None, up: float | None, inspected: bool
) -> None:
    layers = [mitm.throttle(download=down, upload=up)]
    if inspected:
        layers.insert(0, ws.inspect(same))
    async with (
        fronted(world, site(world), *layers) as front,
        ws.connect(f"wss://{HOST}/chat", client=front.client, compression=False) as socket,
    ):
        assert await seconds_for(socket, 8, 2000) > 0.4


def test_a_throttle_without_limits_returns_its_inner_service() -> None:
    assert mitm.throttle()(page) is page


@pytest.mark.parametrize("inspected", [False, True])
async def test_a_websocket_is_aborted_after_the_configured_bytes(world: World, inspected: bool) -> None:
    @layer
    async def outer(request: Request, inner: RequestHandler) -> Response:
        return await inner(request)

    faults = mitm.faults(aborts=1.0, after=20, match=lambda request: request.path == "/chat")
    layers = [ws.inspect(same) if inspected else outer, faults]
    async with fronted(world, site(world), *layers) as front:
        async with ws.connect(f"wss://{HOST}/chat", client=front.client, compression=False) as socket:
            await socket.send("0123456789")  # 12 bytes as a frame
            assert await socket.receive() == "0123456789"
            await socket.send("0123456789")
            with pytest.raises((OSError, EOFError, StreamClosedError, TruncatedError)):
                await socket.receive()
        assert (await front.get())[0] == 426

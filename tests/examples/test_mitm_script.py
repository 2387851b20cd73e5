from collections.abc import Iterator

import pytest

from llama import http, stack, tls, ws
from llama._cli.mitm.script.script import Script
from tests.house.project import ROOT
from tests.mitm.conftest import world as world
from tests.mitm.worlds import HOST, World, fronted


@pytest.fixture
def script() -> Iterator[Script]:
    loaded = Script(ROOT / "examples" / "mitm_script.py")
    yield loaded
    loaded.close()


async def test_pages_and_icons(world: World, script: Script) -> None:
    async with fronted(world, world.https(), script.layer) as front:
        assert await front.get(f"https://{HOST}/a") == (200, "GET /a from the llama")
        assert (await front.get(f"https://{HOST}/favicon.ico"))[0] == 404


async def test_messages(world: World, script: Script) -> None:
    async def echo(socket: ws.WebSocket) -> None:
        async for message in socket:
            await socket.send(message)

    site = stack(tls.server(*world.files()), http.server(), ws.server(), echo)
    async with (
        fronted(world, site, script.layer) as front,
        ws.connect(f"wss://{HOST}/chat", client=front.client) as socket,
    ):
        await socket.send("from the cloud")
        assert await socket.receive() == "from the llama"

"""Hooks from a file: loaded, and loaded again when it changes."""

import asyncio
import gc
import logging
import os
import sys
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from llama import ConfigError, Stream, Target, http, mitm, serve, stack, tcp, tls, ws
from llama._cli.mitm.script.script import Script
from llama.http import Request, Response
from tests.mitm.worlds import HOST, World, fronted, page

HOOK = """
    from llama import layer

    @layer
    async def mark(request, inner):
        response = await inner(request)
        response.headers["X-Mark"] = "{mark}"
        return response

    layers = [mark]
"""


class File:
    """A script in a directory of its own, which is watched, and what came of each reload."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hooks.py"
        self.reloads: asyncio.Queue[ConfigError | None] = asyncio.Queue()
        self.scripts: list[Script] = []

    def write(self, text: str, name: str = "hooks.py", **marks: str) -> None:
        """As editors do: another file in the place of the one before."""
        path = self.path.with_name(name)
        new = path.with_name(f"{name}~")
        text = dedent(text)
        new.write_text(text.format(**marks) if marks else text)
        new.replace(path)

    def load(self) -> Script:
        self.scripts.append(Script(self.path, interval=0.01, on_reload=self.reloads.put_nowait))
        return self.scripts[-1]

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[Script]:
        script = self.load()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(script.watch())
            yield script
            task.cancel()

    async def reloaded(self) -> ConfigError | None:
        async with asyncio.timeout(20):
            return await self.reloads.get()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    folder = tmp_path / "scripts"
    folder.mkdir()
    found = File(folder)
    before, modules = sys.path[:], set(sys.modules)
    yield found
    for each in found.scripts:
        each.close()
    assert sys.path == before
    assert [name for name in set(sys.modules) - modules if "llama_script" in name] == []


async def mark_of(script: Script) -> str:
    """What the script marks an answer with."""
    response = await script.layer(page)(Request("GET", "http://site.example/"))
    return response.headers.get("x-mark", "")


async def ask(exchange: http.RequestHandler, path: str = "/") -> Response:
    return await exchange(Request("GET", f"http://site.example{path}"))


async def test_exchanges_go_through_the_layers_that_are_current(file: File, world: World) -> None:
    file.write(HOOK, mark="one")
    async with file.watched() as script, fronted(world, world.https(), script.layer) as front:
        response = await front.client(Request("GET", f"https://{HOST}/"))
        assert response.headers["x-mark"] == "one"
        await response.aclose()
        file.write(HOOK, mark="two")
        assert await file.reloaded() is None
        response = await front.client(Request("GET", f"https://{HOST}/"))
        assert response.headers["x-mark"] == "two"
        await response.aclose()


async def test_an_exchange_in_flight_keeps_its_layers(file: File) -> None:
    going, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        going.set()
        await go.wait()
        return await page(request)

    file.write(HOOK, mark="one")
    async with file.watched() as script, asyncio.TaskGroup() as group:
        exchange = script.layer(slow)
        early = group.create_task(ask(exchange))
        await going.wait()
        file.write(HOOK, mark="two")
        await file.reloaded()
        late = group.create_task(ask(exchange))
        go.set()
        assert (await early).headers["x-mark"] == "one"
        assert (await late).headers["x-mark"] == "two"


async def test_a_bare_function_and_message_hooks_by_name(file: File, world: World) -> None:
    async def echo(socket: ws.WebSocket) -> None:
        async for message in socket:
            await socket.send(message)

    file.write(
        """
        seen = []

        def on_message(message):
            message.data = message.data.upper() + str(len(seen))
            return message

        def on_open(conversation):
            seen.append(conversation.request.path)

        async def secret(request, inner):
            request.headers["X-Secret"] = "1"
            return await inner(request)

        layers = (secret,)
        """
    )
    site = stack(tls.server(*world.files()), http.server(), ws.server(), echo)
    async with (
        fronted(world, site, file.load().layer) as front,
        ws.connect(f"wss://{HOST}/chat", client=front.client) as socket,
    ):
        await socket.send("hello")
        assert await socket.receive() == "HELLO11"


async def test_a_connection_of_bytes_keeps_its_chunk_hook(file: File, world: World) -> None:
    file.write("def on_chunk(chunk):\n    return chunk.data.upper()\n")

    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data)

    async with file.watched() as script, serve(echo, listen="127.0.0.1:0") as site:
        relay = mitm.relay(world.ca, script.layer, on_chunk=script.on_chunk)
        door = tcp.forward(f"127.0.0.1:{site.port}", relay=relay)
        async with serve(door, listen="127.0.0.1:0") as front:
            connect = tcp.connect()
            one = await connect(Target("127.0.0.1", front.port))
            await one.write(b"\x00one")
            assert await one.read() == b"\x00ONE"
            file.write("async def on_chunk(chunk):\n    return chunk.data * 2\n")
            await file.reloaded()
            two = await connect(Target("127.0.0.1", front.port))
            await two.write(b"\x00two")
            assert await two.read() == b"\x00two\x00two\x00two\x00two"
            await one.write(b"\x00one")
            assert await one.read() == b"\x00ONE"
            await one.aclose()
            await two.aclose()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layers = [\n", ["hooks.py", "line 1", "SyntaxError"]),
        ("import os\nlayers = [1 // 0]\n", ["hooks.py", "line 2", "layers = [1 // 0]", "ZeroDivisionError"]),
        ("import no_such_thing\n", ["line 1", "ModuleNotFoundError: No module named 'no_such_thing'"]),
        ("import sys\nsys.exit(3)\n", ["line 2", "SystemExit: 3"]),
        ("", ["expected a list named layers"]),
        ("layers = 3\n", ["layers is 3: expected a list of layers"]),
        ("layers = [3]\n", ["3 is neither a layer nor a service"]),
        ("from llama import http\nlayers = [http.set_header]\n", ["set_header is a layer factory: call it"]),
        ("on_message = 3\n", ["on_message is 3: expected a function"]),
    ],
)
def test_what_cannot_be_loaded_is_said_with_the_scripts_own_lines(
    file: File, text: str, said: list[str]
) -> None:
    file.write(text)
    modules = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        file.load()
    assert [each for each in said if each not in str(caught.value)] == []
    assert "_mitm_load" not in str(caught.value) and "importlib" not in str(caught.value)
    assert set(sys.modules) == modules


def test_a_script_that_is_not_there(file: File) -> None:
    with pytest.raises(ConfigError, match=r"hooks\.py cannot be read: No such file"):
        file.load()


async def test_an_error_is_logged_once_and_the_one_before_stays(
    file: File, caplog: pytest.LogCaptureFixture
) -> None:
    file.write(HOOK, mark="one")
    async with file.watched() as script:
        for _ in range(2):
            file.write("import os\nlayers = [1 // 0]\n")
            error = await file.reloaded()
            assert error is not None and "line 2" in str(error)
            assert await mark_of(script) == "one"
        assert caplog.text.count("ZeroDivisionError") == 1
        file.write(HOOK, mark="two")
        assert await file.reloaded() is None
        assert await mark_of(script) == "two"


async def test_modules_beside_it_are_loaded_again(file: File) -> None:
    by_helper = HOOK.replace('"{mark}"', "helper.MARK").replace(
        "    from llama", "    import helper\n    from llama"
    )
    file.write("MARK = 'one'\n", "helper.py")
    file.write(by_helper)
    async with file.watched() as script:
        assert await mark_of(script) == "one"
        file.write("MARK = 'two'\n", "helper.py")
        assert await file.reloaded() is None
        assert await mark_of(script) == "two"
        file.write("MARK = = 'three'\n", "helper.py")
        error = await file.reloaded()
        assert error is not None and 'helper.py", line 1' in str(error) and "SyntaxError" in str(error)
        assert await mark_of(script) == "two"
        file.write("MARK = 'four'\n", "helper.py")
        assert await file.reloaded() is None
        assert await mark_of(script) == "four"


async def test_a_module_that_was_missing_is_found_when_it_comes(file: File) -> None:
    file.write(HOOK, mark="one")
    async with file.watched() as script:
        file.write("import late_helper\nlayers = []\n")
        assert "No module named 'late_helper'" in str(await file.reloaded())
        file.write("", "late_helper.py")
        assert await file.reloaded() is None
        assert await mark_of(script) == ""


async def test_a_module_imported_within_a_hook_belongs_to_it(file: File) -> None:
    file.write("MARK = 'one'\n", "lazy_helper.py")
    file.write(HOOK.replace('"{mark}"', "__import__('lazy_helper').MARK"))
    async with file.watched() as script:
        assert await mark_of(script) == "one"
        script._stamps = script._check_files() | script._stamps  # as the next look would
        file.write("MARK = 'two'\n", "lazy_helper.py")
        assert await file.reloaded() is None
        assert await mark_of(script) == "two"


async def test_a_file_that_is_gone_or_half_written_harms_nothing(
    file: File, caplog: pytest.LogCaptureFixture
) -> None:
    file.write(HOOK, mark="one")
    async with file.watched() as script:
        file.path.unlink()
        assert "cannot be read" in str(await file.reloaded())
        assert await mark_of(script) == "one"
        with file.path.open("w") as half:
            half.write("layers = [")
            half.flush()
            os.fsync(half.fileno())
            assert await file.reloaded() is not None
            assert await mark_of(script) == "one"
            half.write("]\n")
        assert await file.reloaded() is None
        assert await mark_of(script) == ""
    assert caplog.text.count("The one before stays.") == 2


OWNER = """
    import events
    from dataclasses import dataclass

    class Owner:
        def __init__(self, inner):
            self.inner = inner
        async def __aenter__(self):
            events.say("enter {mark}")
        async def __aexit__(self, *error):
            events.say("leave {mark}")
        async def __call__(self, request):
            return await self.inner(request)

    layers = [Owner]
"""


async def test_what_old_layers_own_is_released_with_their_last_exchange(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    events = type(sys)("events")
    events.say = said.put_nowait  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "events", events)
    file.write(OWNER, mark="one")
    async with file.watched() as script:
        exchange = script.layer(page)
        async with exchange:  # type: ignore[attr-defined]
            assert await said.get() == "enter one"
            first, second = await ask(exchange), await ask(exchange)
            file.write(OWNER, mark="two")
            await file.reloaded()
            assert await said.get() == "enter two"
            await first.aclose()
            await (await ask(exchange)).aclose()
            assert said.empty()
            await second.aclose()
            assert await said.get() == "leave one"
            file.write(OWNER.replace("leave", "quit"), mark="three")
            await file.reloaded()
            assert [await said.get(), await said.get()] == ["enter three", "leave two"]
            file.write(OWNER.replace('events.say("enter', '1 // 0, ("enter'), mark="four")
            error = await file.reloaded()
            assert "ZeroDivisionError" in str(error) and 'hooks.py", line' in str(error)
            await (await ask(exchange)).aclose()
        assert await said.get() == "quit three"
    assert said.empty()


async def test_a_server_that_has_ended_is_not_loaded_for_again(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    events = type(sys)("events")
    events.say = said.put_nowait  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "events", events)
    file.write(OWNER, mark="one")
    async with file.watched() as script:
        first, second = script.layer(page), script.layer(page)
        async with second:  # type: ignore[attr-defined]
            async with first:  # type: ignore[attr-defined]
                assert [await said.get() for _ in range(2)] == ["enter one"] * 2
            assert await said.get() == "leave one"
            file.write(OWNER, mark="two")
            await file.reloaded()
            assert [await said.get() for _ in range(2)] == ["enter two", "leave one"]
            async with first:  # type: ignore[attr-defined]
                assert await said.get() == "enter two"
                await (await ask(first)).aclose()
        assert [await said.get() for _ in range(2)] == ["leave two"] * 2
        assert script._slots == []


async def test_reloads_while_traffic_goes_on(file: File, world: World) -> None:
    file.write(HOOK, mark="0")
    seen: set[str] = set()
    over = asyncio.Event()
    async with file.watched() as script, fronted(world, world.https(), script.layer) as front:

        async def browse() -> None:
            while not over.is_set():
                response = await front.client(Request("GET", f"https://{HOST}/"))
                assert (await response.body.read()).endswith(b"from the cloud")
                seen.add(response.headers["x-mark"])
                await response.aclose()

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(browse())
            for number in range(1, 11):
                file.write(HOOK, mark=str(number))
                assert await file.reloaded() is None
            over.set()
    assert len(seen) > 3


async def test_a_hundred_reloads_leave_nothing_behind(file: File, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "llama")
    file.write("class Mark(str):\n    pass\n", "helper.py")
    lines = "import helper\n" + dedent(HOOK.format(mark="one"))
    file.write(lines)
    script = file.load()
    olds: list[weakref.ref[object]] = []
    modules = len(sys.modules)
    for number in range(100):
        olds.append(weakref.ref(sys.modules["helper"]))
        olds.append(weakref.ref(sys.modules[script._loader._name]))
        file.write("boom = 1 // 0\n" if number % 3 == 2 else f"{lines}\n# {number}\n")
        await script._reload()
    assert len(sys.modules) == modules
    gc.collect()
    assert sum(each() is not None for each in olds[:-2]) <= 2  # those that are at work

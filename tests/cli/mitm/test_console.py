"""The live view of exchanges: what passes is seen as it passes, and no terminal obeys what comes from the wire."""

import asyncio
import io
import logging
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llama import RefusedError, Target, http, layer, mitm, serve, stack, tcp, tls, ws
from llama.http import Request, RequestHandler, Response
from tests.mitm.worlds import HOST, Front, To, World, fronted, page

rich_console = pytest.importorskip("rich.console")

from llama._cli.mitm.console.app import Console  # noqa: E402
from llama._cli.mitm.console.flow_store import Flow, FlowStore  # noqa: E402
from llama._cli.mitm.console.view import View, escaped  # noqa: E402


class Screen:
    """A terminal that is none: what was written to it, and what the latest frame was."""

    def __init__(self, width: int = 110, height: int = 20) -> None:
        self.file = io.StringIO()
        made = rich_console.Console(
            file=self.file, force_terminal=True, width=width, height=height, color_system=None, _environ={}
        )
        self.console = Console(console=made)
        self.layer = self.console.watch.exchanges[0]
        self.width, self.height = width, height

    @property
    def lines(self) -> list[str]:
        frame = self.console.view.frame(self.width, self.height)
        return ["".join(each.text for each in line) for line in frame.lines]

    @property
    def rows(self) -> list[str]:
        """Times differ: they are left out."""
        lines = [re.sub(r" (\d+ ms|\d+\.\d s) ", " ", line) for line in self.lines[1:-1]]
        return [re.sub(" +", " ", line) for line in lines]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@asynccontextmanager
async def shown(screen: Screen) -> AsyncGenerator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(screen.console.show())
        try:
            yield
        finally:
            task.cancel()


async def until(condition: Callable[[], object], true: object = True) -> None:
    """Wait for what a callback will do soon, of which it tells nobody."""
    async with asyncio.timeout(20):
        while condition() != true:  # noqa: ASYNC110
            await asyncio.sleep(0)


@layer
async def moody(request: Request, inner: RequestHandler) -> Response:
    if request.path == "/fails":
        raise ZeroDivisionError("a bug of the hook")
    if request.path == "/refused":
        raise RefusedError("not here")
    return await inner(request)


async def test_exchanges_are_seen_with_how_they_ended(world: World) -> None:
    screen = Screen()
    layers = screen.layer, moody, mitm.map_local({f"https://{HOST}/local": page})
    async with fronted(world, world.https(), *layers) as front:
        for path in ("ok", "fails", "refused", "local"):
            await front.get(f"https://{HOST}/{path}")
        await front.whole(f"http://{HOST}/plain")
        await until(lambda: screen.console.flows.going, 0)
    assert screen.lines[0].split() == ["METHOD", "STATUS", "SIZE", "TIME", "HTTP", "URL"]
    assert screen.rows == [
        "GET 200 22 B 2 https://site.example/ok",
        "GET 500 0 B 2 https://site.example/fails (a bug of the hook)",
        "GET 403 0 B 2 https://site.example/refused (blocked; not here)",
        "GET 200 25 B 2 https://site.example/local (local)",
        screen.rows[4],
    ]
    assert screen.rows[4].split()[:2] == ["GET", "400"]  # the site wants TLS, and says so
    assert screen.lines[-1].startswith("5 in all, 0 going on, 2 failed, ")


async def test_a_body_is_seen_as_it_streams_and_when_it_breaks_off(world: World) -> None:
    screen, more = Screen(), asyncio.Queue[bytes]()

    class Broken(Exception):
        pass

    async def parts(request: Request) -> Response:
        async def body() -> AsyncGenerator[bytes]:
            while data := await more.get():
                if data == b"!":
                    raise Broken
                yield data

        return Response(200, body=body())

    async with fronted(world, world.https(parts), screen.layer) as front:
        response = await front.client(Request("GET", f"https://{HOST}/"))
        for size in ("5 B", "10 B"):
            more.put_nowait(b"hello")
            assert await response.body.read_chunk() == b"hello"
            assert size in screen.rows[0] and screen.console.flows.going == 1
        more.put_nowait(b"")
        assert await response.body.read_chunk() == b""
        await response.aclose()
        await until(lambda: screen.console.flows.rows[0].state, "done")
        response = await front.client(Request("GET", f"https://{HOST}/"))
        more.put_nowait(b"hello")
        assert await response.body.read_chunk() == b"hello"
        more.put_nowait(b"!")
        with pytest.raises((EOFError, OSError)):
            await response.body.read_chunk()
        await response.aclose()
        await until(lambda: screen.console.flows.going, 0)
    assert screen.rows[1].endswith("5 B 2 https://site.example/ (broken off)")


async def test_a_client_that_leaves_is_told_apart(world: World) -> None:
    screen, asked = Screen(), asyncio.Event()

    async def never(request: Request) -> Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with fronted(world, world.https(never), screen.layer) as front:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(front.get())
            await asked.wait()
            assert screen.rows[0].split() == ["GET", "-", "0", "B", "2", f"https://{HOST}/a"]
            task.cancel()
        await until(lambda: screen.console.flows.going, 0)
    assert screen.rows[0].endswith("(client left)")


async def test_messages_of_websockets_are_counted(world: World) -> None:
    screen = Screen()

    async def twice(socket: ws.WebSocket) -> None:
        async for message in socket:
            await socket.send(message)
            await socket.send(message)

    site = stack(tls.server(*world.files()), http.server(), ws.server(), twice)
    async with fronted(world, site, screen.layer) as front:
        async with ws.connect(f"wss://{HOST}/chat", client=front.client, compression=False) as socket:
            await socket.send("hello")
            await socket.receive()
            await socket.receive()
            assert "(1 up, 2 down)" in screen.rows[0]
        await until(lambda: screen.console.flows.rows[0].state, "done")
    assert screen.rows[0].endswith("10 B 2 https://site.example/chat (1 up, 2 down)")


async def test_what_passes_through_and_what_is_blocked(world: World) -> None:
    screen = Screen()
    console = screen.console
    async with serve(world.https(), listen="127.0.0.1:0") as site:
        to_site = To(site.port)
        proxy = mitm.proxy(
            world.ca,
            screen.layer,
            connect=to_site,
            rules=[mitm.passthrough("pass.example"), mitm.block("block.example")],
            passthrough_relay=console.watch.passthroughs[0](tcp.relay()),
        )
        front = stack(http.server(), console.watch.front_doors[0], proxy)
        async with serve(front, listen="127.0.0.1:0") as served:
            over = http.connect(f"127.0.0.1:{served.port}")
            stream = await over(Target("pass.example", 443))
            await stream.write(b"\x16")
            await stream.aclose()
            with pytest.raises(RefusedError):
                await over(Target("block.example", 443))
            door = Front(served.port, to_site, page)
            assert (await door.whole("http://block.example/"))[0] == 403
            strange = tls.connect(over, ca=world.site_pem)  # does not know our authority
            with pytest.raises(Exception, match="TLS"):
                await strange(Target(HOST, 443))
            await until(lambda: len(console.flows.rows) - console.flows.going, 4)
    assert [line.partition(" ")[0] for line in screen.rows] == ["PASS", "CONNECT", "GET", "CONNECT"]
    assert "pass.example:443" in screen.rows[0]
    assert "403" in screen.rows[1] and "(block.example:443 is blocked by a rule)" in screen.rows[1]
    assert "TLS handshake as site.exa" in screen.rows[3]


async def test_a_relay_that_refuses_is_seen(world: World) -> None:
    screen = Screen()
    relay = screen.console.watch.relays[0](mitm.relay(world.ca, screen.layer, default="block"))
    async with serve(tcp.forward(f"{HOST}:443", relay=relay), listen="127.0.0.1:0") as front:
        stream = await tcp.connect()(Target("127.0.0.1", front.port))
        assert await stream.read() == b""
        await stream.aclose()
    assert "(site.example:443 is blocked by a rule)" in screen.rows[0]


async def test_no_terminal_obeys_what_comes_from_the_wire(world: World) -> None:
    screen = Screen(height=30)
    console = screen.console
    row = console.flows.begin("G\x1b[2JT", "http://a.example/[red]x\x9b\u202e\n\x07[/red]")
    row.request = http.Headers([("X-A", "1")])
    row.response = http.Headers([("X-B", "\xad\x85")])
    row.client = "127.0.0.1:1"
    console.flows.end(row, "failed", "\x1b]0;title\x07")
    logging.getLogger("llama.mitm").warning("a log\x1b[2J line")
    async with shown(screen):
        console.press("up")
        console.log_buffer.add("said \x1b[31mred\x00\n[bold]second[/bold]")
        await until(lambda: "second" in screen.file.getvalue())
    text = screen.file.getvalue()
    left = re.sub(r"\x1b\[(\?25[lh]|\d*[A-Z]|[12]?[JK])|\r", "", text)  # what moves the table itself
    assert all(each.isprintable() or each == "\n" for each in left)
    assert "[red]x\\x9b\\u202e\\x0a\\x07[/red]" in left
    assert "\\x1b]0;title\\x07" in left
    assert "said \\x1b[31mred\\x00\n[bold]second[/bold]\n" in left
    assert "> X-A: 1" in left and "< X-B: \\xad\\x85" in left


def test_wide_urls_are_cut_in_the_middle() -> None:
    board = FlowStore()
    view = View(board)
    for url in ("http://a.example/" + "b" * 200 + "/end", "http://a.example/" + "宽" * 100 + "/end"):
        board.end(board.begin("GET", url, "1.1"), "failed", "why " * 100)
    for width in (200, 110, 80, 60, 45, 30, 10, 1):
        for line in view.frame(width, 10).lines:
            assert sum(each.cell_length for each in line) <= width
    first = "".join(each.text for each in view.frame(110, 10).lines[1])
    assert "http://a.example/" in first and "…" in first and "/end (why " in first
    assert escaped("plain") == "plain"


def test_the_board_is_bounded_and_the_frame_fits() -> None:
    board = FlowStore(100)
    view = View(board)
    for number in range(250):
        board.end(board.begin("GET", f"http://a.example/{number}", "1.1"), "done")
    assert len(board.rows) == 100 and board.count == 250
    for height in (40, 10, 3, 2, 1):
        assert len(view.frame(80, height).lines) == height
    last = "".join(each.text for each in view.frame(80, 10).lines[-2])
    assert last.endswith("/249")
    board.clear()
    assert (len(board.rows), board.count) == (0, 0)


def test_a_row_can_be_chosen_and_shows_its_headers() -> None:
    screen = Screen(height=16)
    console = screen.console
    for number in range(50):
        row: Flow = console.flows.begin("GET", f"http://a.example/{number}", "2")
        row.request = http.Headers([(f"x-{each}", "1") for each in range(20)])
        console.flows.end(row, "done")
    for _ in range(3):
        console.press("up")
    assert any("/47" in line for line in screen.rows)
    console.press("page up")
    assert len(screen.lines) == 16
    assert [line for line in screen.lines if line.startswith("GET http://a.example/37")]
    assert "> x-0: 1" in screen.lines and "… 14 more" in screen.lines
    console.press("p")
    console.flows.begin("GET", "http://a.example/new")
    console.press("escape")
    assert not any("/new" in line for line in screen.lines) and screen.lines[-1].endswith(", paused")
    console.press("p")
    assert any("/new" in line for line in screen.lines)
    console.press("c")
    assert len(screen.rows) == 1


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_logs_and_prints_go_above_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Tty())
    monkeypatch.setattr(sys, "stderr", Tty())
    file = io.StringIO()
    screen = Screen()
    log = logging.Logger("llama.test")  # noqa: LOG001
    logging.root.manager.loggerDict["llama.test"] = log
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    log.addHandler(logging.StreamHandler(file))
    before = sys.stdout, sys.stderr
    try:
        async with shown(screen):
            await until(lambda: sys.stdout is not before[0])
            log.warning("a warning")
            print("printed by a hook")
            await until(lambda: "printed by a hook\n" in screen.file.getvalue())
            for number in range(2000):
                print(number)
        assert log.handlers[0] is handler and (sys.stdout, sys.stderr) == before
    finally:
        del logging.root.manager.loggerDict["llama.test"]
    text = screen.file.getvalue()
    assert "a warning" in text and "... 1000 more lines" in text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is back
    assert [each.getvalue() for each in before if isinstance(each, io.StringIO)] == ["", ""]
    assert file.getvalue() == "a warning\n"


async def test_however_fast_it_goes_frames_are_few() -> None:
    screen = Screen()
    console = screen.console
    frames = 0
    make = console.view.frame

    def counted(width: int, height: int) -> object:
        nonlocal frames
        frames += 1
        return make(width, height)

    console.view.frame = counted  # type: ignore[method-assign,assignment]
    loop = asyncio.get_running_loop()
    async with shown(screen):
        began = loop.time()
        while loop.time() - began < 0.5:
            console.flows.end(console.flows.begin("GET", "http://a.example/"), "done")
            await asyncio.sleep(0)
    assert frames <= 10

"""A client of HTTP/2 made of the engine alone, over a pair of sockets: what it does is seen frame by frame."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from llama._core.shutdown import Shutdown
from llama._core.stream import ConnectionHandler, Stream
from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import frame
from llama.http._h2.wire.stream import Stream as H2Stream
from llama.http._limits import H2Limits
from llama.http._messages.message import RequestHandler
from tests.http.h2.wire.h2_pair import GET, Side
from tests.http.serving import client_of

Fields = list[tuple[str, str]]
PING = frame(frames.PING, 0, 0, b"a marker")


class Talk:
    """One connection to a server, and what was heard on it."""

    def __init__(self, stream: Stream, shutdown: Shutdown, limits: H2Limits) -> None:
        self.stream = stream
        self.shutdown = shutdown
        self.side = Side(limits, client=True)
        self.ended = False

    @property
    def engine(self) -> object:
        return self.side.engine

    async def flush(self) -> None:
        data = self.side.engine.take()
        try:
            await self.stream.write(data)
        except OSError:  # the server is gone, or this side has ended: what was said before counts
            pass

    async def raw(self, data: bytes) -> None:
        """Send frames made by hand."""
        await self.stream.write(self.side.engine.take() + data)

    async def ask(self, fields: Fields = GET, *, end: bool = True) -> H2Stream:
        """Open a stream."""
        stream = self.side.open(fields, end=end)
        await self.flush()
        return stream

    async def send(self, stream: H2Stream, data: bytes, *, end: bool = False) -> None:
        """Send bytes of a body, as there is room for them."""
        at = 0
        while at < len(data) or not data:
            size = min(16_384, self.side.engine.room(stream), len(data) - at)
            if data and size <= 0:
                await self.more()
                continue
            part = data[at : at + size]
            at += size
            self.side.engine.send_data(stream, part, end=end and at >= len(data))
            await self.flush()
            if not data:
                return

    async def more(self) -> bool:
        """Take what comes next; False at the end."""
        if self.ended:
            return False
        try:
            data = await self.stream.read()
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return False
        self.side.engine.receive(data)
        await self.flush()
        return True

    async def hear(self, *expected: str) -> None:
        """Hear just these lines (dates, windows and settings do not count), whatever else comes after."""
        lines: list[str] = []
        while len(lines) < len(expected) and (self.side.lines or await self.more()):
            lines += self.lines()
        self.side.lines[:0] = lines[len(expected) :]
        assert lines[: len(expected)] == list(expected)

    def lines(self) -> list[str]:
        return [line for line in map(plain, self.side.heard()) if "window" not in line and line != "settings"]

    async def until(self, line: str) -> list[str]:
        """Everything up to a line that ends like this."""
        lines: list[str] = []
        while True:
            for index, each in enumerate(new := self.lines()):
                lines.append(each)
                if each.endswith(line):
                    self.side.lines[:0] = new[index + 1 :]
                    return lines
            if not await self.more():
                raise AssertionError(f"no {line!r} in {lines}")

    async def body(self, stream: H2Stream) -> bytes:
        """A response's body, all of it, with room given as it is read."""
        given = 0
        while stream.state < 4:
            size = len(self.side.bodies.get(stream.id, b""))
            self.side.engine.consumed(stream, size - given)
            given = size
            await self.flush()
            if not await self.more():
                break
        return self.side.bodies.pop(stream.id, b"")

    async def hear_end(self) -> list[str]:
        """All lines until the server closes."""
        while await self.more():
            pass
        return self.lines()

    async def settle(self) -> None:
        """Everything the server has to say to what was sent so far has come."""
        await self.raw(PING)
        while "pong b'a marker'" not in self.side.lines:
            assert await self.more(), self.side.lines
        self.side.lines.remove("pong b'a marker'")


def plain(line: str) -> str:
    """Without the Date field, which comes last."""
    head, found, rest = line.partition(" date=")
    return head + (" end" if found and rest.endswith(" end") else "") if found else line


@asynccontextmanager
async def talk_to(
    handler: ConnectionHandler | RequestHandler, limits: H2Limits | None = None
) -> AsyncGenerator[Talk]:
    """Connect to a handler, with prior knowledge."""
    async with client_of(handler) as client:  # type: ignore[arg-type]  # what it is told apart by is its name
        talk = Talk(client.stream, client.shutdown, limits or H2Limits())
        await talk.flush()
        await talk.more()
        while not talk.side.lines:
            await talk.more()
        talk.side.heard()
        yield talk


def fields(method: str, path: str = "/", *more: tuple[str, str]) -> Fields:
    """The fields of a request."""
    return [(":method", method), *GET[1:3], (":path", path), *more]


def joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(parts)

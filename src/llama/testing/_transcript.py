"""Scripted conversations with a handler."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import NoReturn

from llama._core.errors import TruncatedError
from llama._core.stream import ConnectionHandler, Stream
from llama.testing._connect import Pair, connect
from llama.testing._memory import memory_pair

PATIENCE = 5.0
Line = str | bytes


async def run_transcript(handler: ConnectionHandler, *lines: Line, pair: Pair = memory_pair) -> None:
    """Play a scripted conversation with a handler: `await play(echo, ">> hi", "<< hi", ">>", "<<")`.

    `>> text` sends text, `<< text` expects exactly that text, `<~ regex` expects a match at the current position;
    `>>` alone ends this side's direction, `<<` alone expects the end of the peer's, `<!` its reset. Text is Latin-1,
    so that any byte can be written. The connection is closed after the last line. A mismatch raises AssertionError
    with the conversation so far.
    """
    async with connect(handler, pair=pair) as stream:
        await converse(stream, *lines)


async def converse(stream: Stream, *lines: Line) -> None:
    """Play a scripted conversation over a stream, as `run_transcript` does; the stream stays open."""
    talk = _Talk(stream)
    for line in lines:
        raw = line.encode("latin-1") if isinstance(line, str) else line
        await talk.line(raw[:2], raw[3:])


@dataclass(slots=True)
class _Talk:
    stream: Stream
    heard: bytes = b""
    told: list[str] = field(default_factory=list[str])

    async def line(self, mark: bytes, text: bytes) -> None:
        if mark == b">>":
            await (self.stream.write(text) if text else self.stream.write_eof())
        elif mark == b"<!":
            await self._break()
        elif mark == b"<<" and not text:
            await self._end()
        elif mark == b"<<":
            await self._hear(text, None)
        elif mark == b"<~":
            await self._hear(text, re.compile(text, re.DOTALL))
        else:
            raise ValueError(f"invalid line {(mark + b' ' + text)!r}: expected >>, <<, <~ or <!")
        self.told.append(f"{mark.decode()} {text!r}"[:200])

    async def _hear(self, text: bytes, pattern: re.Pattern[bytes] | None) -> None:
        while True:
            if pattern is None:
                length = len(text) if self.heard.startswith(text) else 0
                wrong = not text.startswith(self.heard[: len(text)])
            else:
                found = pattern.match(self.heard)
                length, wrong = found.end() if found else 0, False
            if length:
                self.heard = self.heard[length:]
                return
            more = b"" if wrong else await self._more(f"expected {text!r}")
            if not more:
                self._fail(
                    f"expected {text!r}, {'heard' if wrong else 'and the end came after'} {self.heard!r}"
                )
            self.heard += more

    async def _end(self) -> None:
        more = self.heard or await self._more("expected the end")
        if more:
            self._fail(f"expected the end, heard {more!r}")

    async def _break(self) -> None:
        try:
            more = self.heard or await self._more("expected a break")
        except (OSError, TruncatedError):
            return
        self._fail(f"expected a break, heard {more!r}" if more else "expected a break, the end came")

    async def _more(self, expected: str) -> bytes:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.stream.read()
        except TimeoutError:
            self._fail(f"{expected}, and nothing came after {self.heard!r}")

    def _fail(self, what: str) -> NoReturn:
        raise AssertionError("\n".join((*self.told, what)))

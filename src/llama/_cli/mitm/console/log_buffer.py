"""Lines that are said while a terminal shows something else: they are kept, to be shown above it."""

from __future__ import annotations

import io
import logging
import sys
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TextIO

MAX_LINES = 1000


class LogBuffer:
    """The lines that wait to be shown, at most so many."""

    def __init__(self, room: int = MAX_LINES) -> None:
        self._lines: deque[str] = deque()
        self._room = room
        self._lost = 0

    def add(self, text: str) -> None:
        """Text, in whole lines."""
        for line in text.splitlines():
            if len(self._lines) < self._room:
                self._lines.append(line)
            else:
                self._lost += 1

    def take(self) -> list[str]:
        """What has come since the last time."""
        lines, self._lines = [*self._lines], deque()
        if self._lost:
            lines.append(f"... {self._lost} more lines")
            self._lost = 0
        return lines

    def __bool__(self) -> bool:
        return bool(self._lines)


class _Handler(logging.Handler):
    def __init__(self, above: LogBuffer, like: logging.Handler) -> None:
        super().__init__(like.level)
        self.formatter = like.formatter
        self._above = above

    def emit(self, record: logging.LogRecord) -> None:
        self._above.add(self.format(record))


class _Output(io.TextIOBase):
    """Stands in for standard output and error."""

    def __init__(self, above: LogBuffer) -> None:
        super().__init__()
        self._above = above
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        lines, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            self._above.add(lines)
        elif len(self._rest) > 1 << 16:
            self.finish()
        return len(text)

    def finish(self) -> None:
        """Nothing more comes."""
        rest, self._rest = self._rest, ""
        self._above.add(rest)


@contextmanager
def capture_output(above: LogBuffer) -> Generator[None]:
    """Within the block, what would be written to the terminal by logging and by print is kept."""
    outputs = sys.stdout, sys.stderr
    terminals = [
        each for each in (*outputs, sys.__stdout__, sys.__stderr__) if each is not None and each.isatty()
    ]
    loggers = [logging.getLogger(), *_loggers()]
    before = [(each, each.handlers[:]) for each in loggers if each.handlers]
    for each, handlers in before:
        each.handlers[:] = [_Handler(above, one) if _writes_to(one, terminals) else one for one in handlers]
    mine = _Output(above), _Output(above)
    sys.stdout, sys.stderr = (
        ours if each in terminals else each for ours, each in zip(mine, outputs, strict=True)
    )
    try:
        yield
    finally:
        sys.stdout, sys.stderr = outputs
        for output in mine:
            output.finish()
        for each, handlers in before:
            each.handlers[:] = handlers


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [each for each in known if isinstance(each, logging.Logger)]


def _writes_to(handler: logging.Handler, terminals: Sequence[TextIO]) -> bool:
    return getattr(handler, "stream", None) in terminals

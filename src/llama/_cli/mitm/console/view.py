"""A board as lines of a terminal: what is over is made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from llama._cli.mitm.console.flow_store import Flow, FlowStore
from llama._cli.mitm.flow_summary import amount, duration
from llama.http import Headers

_PLAIN, _DIM, _BOLD = Style(), Style(dim=True), Style(bold=True)
_ERROR, _CHOSEN, _KEYS = Style(color="red"), Style(reverse=True), Style(dim=True)
_OF_STATUS = {
    2: Style(color="green"),
    3: Style(color="cyan"),
    4: Style(color="yellow"),
    5: Style(color="red", bold=True),
}
_HEAD = f"{'METHOD':<8}{'STATUS':>6} {'SIZE':>9} {'TIME':>8} {'HTTP':>4}  URL"
_FIXED = 40
_NARROW = 20
_ENDS = {"failed": "failed", "left": "client left"}


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines of segments, to be written as they are."""

    lines: list[list[Segment]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            yield from line
            yield Segment.line()


class View:
    """Makes frames of a board; knows which row is chosen."""

    def __init__(self, board: FlowStore, dots: str = "…") -> None:
        self.board = board
        self.chosen: Flow | None = None
        self.paused = False
        self.keys = ""
        self._dots = dots
        self._width = 0
        self._made: dict[int, list[Segment]] = {}
        self._shown: list[Flow] = []

    def frame(self, width: int, height: int) -> Frame:
        """The latest rows, as many as there is room for."""
        if width != self._width:
            self._width, self._made = width, {}
        details = self._details(max(0, height // 2)) if self.chosen is not None else []
        if not self.paused:
            self._shown = self._window(max(1, height - 2 - len(details)))
        made = {row.number: self._line(row) for row in self._shown}
        self._made = {row.number: made[row.number] for row in self._shown if row.is_complete}
        lines = [self._text(_HEAD, _BOLD), *made.values(), *details, self._foot()]
        return Frame(lines[:height] if height > 1 else lines[-1:])

    def _window(self, room: int) -> list[Flow]:
        """The rows to show: the latest, or those up to the chosen one."""
        rows = list(self.board.rows)
        end = len(rows)
        if self.chosen is not None:
            place = next((at for at, row in enumerate(rows) if row is self.chosen), None)
            if place is None:
                self.chosen = None
            elif place < end - room:
                end = place + max(1, room // 2)
        return rows[max(0, end - room) : end]

    def move(self, steps: int) -> None:
        """Choose another row."""
        rows = list(self.board.rows)
        if not rows:
            return
        at = next((at for at, row in enumerate(rows) if row is self.chosen), None)
        at = len(rows) - 1 if at is None else min(max(at + steps, 0), len(rows) - 1)
        self.chosen = rows[at]

    # lines

    def _line(self, row: Flow) -> list[Segment]:
        if row is self.chosen:
            return [Segment(self._fit("".join(text for text, _ in self._parts(row))), _CHOSEN)]
        made = self._made.get(row.number)
        if made is None:
            parts = [Segment(text, style) for text, style in self._parts(row)]
            made = Segment.adjust_line_length(parts, self._width, pad=False)
        return made

    def _parts(self, row: Flow) -> Iterator[tuple[str, Style]]:
        usual = _PLAIN if row.is_complete else _BOLD
        status = str(row.status) if row.status else "-"
        yield f"{self._cut(escaped(row.method), 7):<8}", usual
        yield f"{status:>6}", _OF_STATUS.get(min(row.status // 100, 5), usual)
        yield f" {amount(row.size):>9} {duration(row.seconds):>8} {row.version:>4}  ", usual
        room = self._width - _FIXED
        if room < 1:
            return
        url = escaped(row.url)
        note = self._cut(self._note(row), room - 1 - min(cell_len(url), max(_NARROW, room // 2)))
        yield self._cut(url, room - (cell_len(note) + 1 if note else 0)), usual
        if note:
            yield f" {note}", _ERROR if row.state == "failed" else _DIM

    @staticmethod
    def _note(row: Flow) -> str:
        notes = [row.mark] if row.mark else []
        if row.up or row.down:
            notes.append(f"{row.up} up, {row.down} down")
        if row.state in _ENDS:
            notes.append(escaped(row.error) or _ENDS[row.state])
        return f"({'; '.join(notes)})" if notes else ""

    def _foot(self) -> list[Segment]:
        board = self.board
        text = f"{board.count} in all, {board.going} going on, {board.failed} failed, {amount(board.size)}"
        if self.paused:
            text += ", paused"
        return [Segment(self._fit(f"{text}   {self.keys}".rstrip()), _KEYS)]

    def _details(self, room: int) -> list[list[Segment]]:
        """What the chosen row's messages had in their heads."""
        row = self.chosen
        if row is None or room < 3:
            return []
        lines = [self._text(self._cut(f"{row.method} {escaped(row.url)}", self._width), _BOLD)]
        if row.client:
            lines.append(self._text(f"from {row.client}", _DIM))
        if row.error:
            lines.append(self._text(escaped(row.error), _ERROR))
        fields = [*_fields(">", row.request), *_fields("<", row.response)]
        left = room - len(lines)
        if len(fields) > left:
            fields = [*fields[: left - 1], f"{self._dots} {len(fields) - left + 1} more"]
        return lines + [self._text(each, _PLAIN) for each in fields]

    def _text(self, text: str, style: Style) -> list[Segment]:
        return [Segment(self._fit(text), style)]

    def _fit(self, text: str) -> str:
        return text if cell_len(text) <= self._width else set_cell_size(text, self._width)

    def _cut(self, text: str, width: int) -> str:
        """What is too long is cut in its middle."""
        if cell_len(text) <= width:
            return text
        head = (width - len(self._dots) + 1) // 2
        tail = width - len(self._dots) - head
        if tail < 1:
            return set_cell_size(text, max(0, width))
        while cell_len(text[-tail:]) > width - len(self._dots) - head:
            tail -= 1
        return set_cell_size(text, head).rstrip() + self._dots + (text[-tail:] if tail else "")


def _fields(arrow: str, headers: Headers) -> list[str]:
    return [escaped(f"{arrow} {name}: {value}") for name, value in headers]


def escaped(text: str) -> str:
    """Without what a terminal would obey, or would show as something else."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

"""What passed, as text: a line of the access log, or a table in the end."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field

log = logging.getLogger("llama.access")


@dataclass(slots=True)
class FlowSummary:
    """An exchange, or a connection that was passed through."""

    method: str
    url: str
    moment: float = field(default_factory=time.time)
    """Seconds since 1970."""
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    """0 where there is none."""
    size: int = 0
    seconds: float = 0.0
    error: str = ""

    def __str__(self) -> str:
        told = str(self.status) if self.status else "-"
        text = f"{self.method} {printable(self.url)} {told} {amount(self.size)} {duration(self.seconds)}"
        return f"{text} ({printable(self.error)})" if self.error else text


def log_flow(seen: FlowSummary) -> None:
    """One short line of the access log."""
    log.info("%s %s", time.strftime("%H:%M:%S", time.localtime(seen.moment)), seen)


class FlowTable:
    """The latest of what passed, and how much there was in all."""

    def __init__(self, most: int) -> None:
        self._latest: deque[FlowSummary] = deque(maxlen=most)
        self._count = self._failed = self._size = 0

    def __call__(self, seen: FlowSummary) -> None:
        self._latest.append(seen)
        self._count += 1
        self._failed += bool(seen.error) or seen.status >= 400
        self._size += seen.size

    def lines(self, width: int) -> list[str]:
        """The table, each line so wide at the most."""
        if not self._count:
            return ["nothing was sent through the proxy"]
        rows = [(each.method, *_columns(each)) for each in self._latest]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        room = max(20, width - sum(widths) - 4)
        lines = [
            " ".join([row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].rjust(widths[2]),
                      row[3].rjust(widths[3]), _short(row[4], room)])
            for row in rows
        ]  # fmt: skip
        if earlier := self._count - len(rows):
            lines.insert(0, f"... {earlier} earlier")
        return [*lines, f"{self._count} in all, {self._failed} failed, {amount(self._size)}"]


def _columns(seen: FlowSummary) -> tuple[str, str, str, str]:
    told = str(seen.status) if seen.status else "-"
    what = f"{seen.url} ({seen.error})" if seen.error else seen.url
    return told, amount(seen.size), duration(seen.seconds), printable(what)


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."


def printable(text: str) -> str:
    """Without what could move a terminal's cursor."""
    return "".join(each if each.isprintable() else "?" for each in text)


def amount(size: int) -> str:
    """Bytes for people."""
    if size < 1000:
        return f"{size} B"
    value, unit = size / 1000, "kB"
    for larger in ("MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """A time for people."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"

"""What passes, as it is told: a line for each exchange, or a table of them in the end."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from llama import Bridge, Middleware, Relay, layer, tcp
from llama.http import Exchange, Request, Response
from llama.http._body import TransformedBody
from llama.http._error_page import status_of

log = logging.getLogger("llama.access")


@dataclass(slots=True)
class Seen:
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


Tell: TypeAlias = Callable[[Seen], object]


class _Count:
    """Counts a body's bytes as they pass."""

    __slots__ = ("bytes", "ended")

    def __init__(self) -> None:
        self.bytes = 0
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        self.bytes += len(data)
        return data

    def more(self) -> bytes:
        return b""

    def finish(self) -> bytes:
        self.ended = True
        return b""


def exchanges(tell: Tell) -> Middleware[Request, Response]:
    """Tell of each exchange when it is over."""

    @layer
    async def watched(request: Request, inner: Exchange) -> Response:
        seen = Seen(request.method, request.url)
        try:
            response = await inner(request)
        except BaseException as error:
            seen.status = status_of(error) if isinstance(error, Exception) else 499
            seen.error = str(error) or type(error).__name__
            seen.seconds = time.perf_counter() - seen.began
            tell(seen)
            raise
        seen.status = response.status
        count = _counted(response)

        def over() -> None:
            seen.seconds = time.perf_counter() - seen.began
            seen.size = response.body.length or 0 if count is None else count.bytes
            seen.error = "broken off" if count is not None and not count.ended else ""
            tell(seen)

        response.on_close(over)
        return response

    return watched


def _counted(response: Response) -> _Count | None:
    """What counts the body; None where that is not needed."""
    body = response.body
    if body.data is not None or response.upgrade is not None:
        return None
    count = _Count()
    response.replace_body(TransformedBody(body, count))
    return count


def passes(tell: Tell) -> Callable[[Relay], Relay]:
    """Tell of each connection that is passed through when it is over."""

    @layer
    async def watched(bridge: Bridge, inner: Relay) -> None:
        seen = Seen("PASS", str(bridge.target))
        try:
            await inner(bridge)
        except Exception as error:
            seen.error = str(error) or type(error).__name__
            raise
        finally:
            moved = bridge.extensions.get(tcp.Transferred) or tcp.Transferred(0, 0)
            seen.size = sum(moved)
            seen.seconds = time.perf_counter() - seen.began
            tell(seen)

    return watched


def tell_log(seen: Seen) -> None:
    """One short line of the access log."""
    log.info("%s %s", time.strftime("%H:%M:%S", time.localtime(seen.moment)), seen)


class Table:
    """The latest of what passed, and how much there was in all."""

    def __init__(self, most: int) -> None:
        self._latest: deque[Seen] = deque(maxlen=most)
        self._count = self._failed = self._size = 0

    def __call__(self, seen: Seen) -> None:
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


def _columns(seen: Seen) -> tuple[str, str, str, str]:
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

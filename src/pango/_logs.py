"""Log lines for people and for machines."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Text(logging.Formatter):
    """`2026-01-31 12:00:00.123 WARNING llama.server: message`."""

    default_msec_format = "%s.%03d"

    def __init__(self, *, colour: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        colour = _COLOURS.get(record.levelname) if self._colour else None
        return f"{colour}{text}\x1b[0m" if colour else text


class Json(logging.Formatter):
    """One JSON object a line: timestamp, level, logger, message, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        when = dt.datetime.fromtimestamp(record.created, dt.UTC)
        fields: dict[str, object] = {
            "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception.stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


def formatter(style: str, stream: TextIO) -> logging.Formatter:
    """The formatter of a style; colours on a terminal only, and not where NO_COLOR is set."""
    if style == "json":
        return Json()
    return Text(colour=stream.isatty() and not os.environ.get("NO_COLOR"))


def set_up(style: str = "text", level: str = "info") -> None:
    """Send every log line of this process to standard error, and the access log as it is to standard output."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(style, sys.stderr))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("llama.access")
    access.handlers[:] = [lines]
    access.setLevel("INFO")  # who asks for it wants it at every level
    access.propagate = False

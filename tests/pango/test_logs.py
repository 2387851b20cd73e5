"""What pango's log looks like, for people and for machines."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import sys
from datetime import datetime

import pytest

from pango._logs import formatter
from tests.pango.conftest import Call, Start


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(level: int, message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("llama.server", level, __file__, 1, message, (), None)
    vars(made).update(fields)
    return made


def test_text_names_time_level_and_logger() -> None:
    line = formatter("text", io.StringIO()).format(record(logging.WARNING, "it broke"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} WARNING llama\.server: it broke", line)


def test_levels_have_colours_on_a_terminal_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    loud, calm = record(logging.ERROR, "x"), record(logging.INFO, "x")
    assert formatter("text", Terminal()).format(loud).startswith("\x1b[31m")
    assert "\x1b" not in formatter("text", Terminal()).format(calm)
    assert "\x1b" not in formatter("text", io.StringIO()).format(loud)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in formatter("text", Terminal()).format(loud)


def test_json_keeps_the_fields_of_a_record() -> None:
    fields = {"client.address": "192.0.2.1:5", "error.type": "TruncatedError", "seconds": 1.5, "odd": set}
    line = json.loads(formatter("json", Terminal()).format(record(logging.INFO, "gone: é\n", **fields)))
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {
        "level": "info",
        "logger": "llama.server",
        "message": "gone: é\n",
        "client.address": "192.0.2.1:5",
        "error.type": "TruncatedError",
        "seconds": 1.5,
        "odd": "<class 'set'>",
    }


def test_json_holds_a_traceback_on_its_one_line() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        made = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    text = formatter("json", Terminal()).format(made)
    assert "\n" not in text
    assert json.loads(text)["exception.stacktrace"].endswith("ValueError: no")


def test_every_line_of_a_running_pango_is_json(proxy: Start) -> None:
    server = proxy("--plain", "--to", "127.0.0.1:1", "--log-format", "json")
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        assert client.recv(1) == b""
    lines = [json.loads(line) for line in server.stop()]
    (failure,) = [line for line in lines if line["level"] == "warning"]
    assert failure["error.type"] == "UnreachableError"
    assert failure["client.address"].startswith("127.0.0.1:")
    assert lines[0]["message"] == f"listening on 127.0.0.1:{server.port}"


def test_a_level_that_is_not_known(pango: Call) -> None:
    assert pango("serve --check --plain --to a:1 --log-level loud").errors == (
        "pango: --log-level: 'loud' is not known: expected debug, info, warning or error\n"
    )

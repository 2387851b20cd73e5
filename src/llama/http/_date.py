"""The Date field, made once a second."""

from __future__ import annotations

import time
from email.utils import formatdate

_made = -1
_line = ""
_field = (("date", ""),)


def _make(now: int) -> None:
    global _made, _line, _field
    _made = now
    date = formatdate(now, usegmt=True)
    _line = f"Date: {date}\r\n"
    _field = (("date", date),)


def date_line() -> str:
    """`Date: ...` with its CRLF, for now (RFC 9110 section 6.6.1)."""
    now = int(time.time())
    if now != _made:
        _make(now)
    return _line


def date_field() -> tuple[tuple[str, str], ...]:
    """The same as a field, in a tuple of its own."""
    now = int(time.time())
    if now != _made:
        _make(now)
    return _field

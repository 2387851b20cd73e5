"""The Date field, formatted once per second."""

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
    """Return the line `Date: ...` with CRLF for the current time (RFC 9110 section 6.6.1)."""
    now = int(time.time())
    if now != _made:
        _make(now)
    return _line


def date_field() -> tuple[tuple[str, str], ...]:
    """Return the Date field as a tuple of one name-value pair, in lower case for HTTP/2 and HTTP/3."""
    now = int(time.time())
    if now != _made:
        _make(now)
    return _field

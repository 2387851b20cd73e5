"""The Date field, made once a second."""

from __future__ import annotations

import time
from email.utils import formatdate

_made = -1
_line = ""


def date_line() -> str:
    """`Date: ...` with its CRLF, for now (RFC 9110 section 6.6.1)."""
    global _made, _line
    now = int(time.time())
    if now != _made:
        _made = now
        _line = f"Date: {formatdate(now, usegmt=True)}\r\n"
    return _line

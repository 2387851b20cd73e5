"""Which part of a file a request asks for, if any (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

from llama.http._headers import Headers
from llama.http._message import Request

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})-(\d{0,18})", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one version of a file from another."""

    etag: str
    modified: int
    modified_text: str

    @classmethod
    def of(cls, info: os.stat_result) -> Validators:
        """Those of a file."""
        tag = f'"{info.st_mtime_ns:x}-{info.st_size:x}-{info.st_ino:x}"'
        modified = max(0, int(info.st_mtime))
        return cls(tag, modified, formatdate(modified, usegmt=True))


def is_unchanged(headers: Headers, known: Validators) -> bool:
    """Whether If-Match, or without one If-Unmodified-Since, holds."""
    if "if-match" in headers:
        value = ",".join(headers.get_all("if-match"))
        strong = [match[1] for match in _TAG.finditer(value) if not match[0].startswith("W/")]
        return value.strip() == "*" or known.etag in strong
    since = _seconds(headers.get("if-unmodified-since"))
    return since is None or known.modified <= since


def is_fresh(headers: Headers, known: Validators) -> bool:
    """Whether If-None-Match, or without one If-Modified-Since, says that the client has it."""
    if "if-none-match" in headers:
        value = ",".join(headers.get_all("if-none-match"))
        return value.strip() == "*" or known.etag in _TAG.findall(value)
    since = _seconds(headers.get("if-modified-since"))
    return since is not None and known.modified <= since


def requested_range(request: Request, known: Validators, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last; an empty range where there is none such; None for the whole.

    Several ranges, other units and malformed ones get the whole, as does If-Range with another version.
    """
    values = request.headers.get_all("range")
    match = _RANGE.fullmatch(values[0].strip()) if len(values) == 1 and request.method == "GET" else None
    if match is None or not _is_same(request.headers.get("if-range"), known):
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def _is_same(value: str | None, known: Validators) -> bool:
    """If-Range: a strong tag or the very date; a date proves little, but it is what the client has."""
    return value is None or value in (known.etag, known.modified_text)


def _seconds(date: str | None) -> float | None:
    if date is None:
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None

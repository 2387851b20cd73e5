"""Conditional and range requests for files (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

from llama.http._messages.headers import Headers
from llama.http._messages.message import Request

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})-(\d{0,18})", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators of a version of a file: its ETag and modification time."""

    etag: str
    modified: int
    modified_text: str

    @classmethod
    def of(cls, info: os.stat_result) -> Validators:
        """Return the validators of a file."""
        tag = f'"{info.st_mtime_ns:x}-{info.st_size:x}-{info.st_ino:x}"'
        modified = max(0, int(info.st_mtime))
        return cls(tag, modified, formatdate(modified, usegmt=True))


def is_unchanged(headers: Headers, known: Validators) -> bool:
    """Return whether If-Match, or else If-Unmodified-Since, is true or absent."""
    if "if-match" in headers:
        value = ",".join(headers.get_all("if-match"))
        strong = [match[1] for match in _TAG.finditer(value) if not match[0].startswith("W/")]
        return value.strip() == "*" or known.etag in strong
    since = _seconds(headers.get("if-unmodified-since"))
    return since is None or known.modified <= since


def is_fresh(headers: Headers, known: Validators) -> bool:
    """Return whether the client has the current version, by If-None-Match or else If-Modified-Since."""
    if "if-none-match" in headers:
        value = ",".join(headers.get_all("if-none-match"))
        return value.strip() == "*" or known.etag in _TAG.findall(value)
    since = _seconds(headers.get("if-modified-since"))
    return since is not None and known.modified <= since


def requested_range(request: Request, known: Validators, size: int) -> tuple[int, int] | None:
    """Return the requested bytes as start and end (exclusive); an empty range if unsatisfiable; None for the whole.

    Multiple ranges, other units, malformed ranges, and an If-Range that does not match select the whole file.
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
    """Return whether If-Range matches: the same strong ETag or exact date (a date is a weak proof)."""
    return value is None or value in (known.etag, known.modified_text)


def _seconds(date: str | None) -> float | None:
    if date is None:
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None

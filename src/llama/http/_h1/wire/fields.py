"""The end of an HTTP/1.1 head, and its fields (RFC 9112 sections 2.2 and 5)."""

import re

from llama._core.errors import ProtocolError
from llama.http._limits import DEFAULT_LIMITS, Limits
from llama.http._messages.headers import Headers, headers_of_lines

# All bytes except CR, LF, NUL and other controls: after deleting these only the line ends may be left.
_TEXT = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CACHE_SIZE, _MAX_CACHED_NAME = 2048, 40  # number of names, and maximum length of a name
_NAME_AND_COLON = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:")


def bad_message(message: str, status: int = 400) -> ProtocolError:
    """Return a ProtocolError with the status of the response."""
    return ProtocolError(message, status=status)


class HeadBuffer:
    """Collects the bytes of one head; keeps at most one read beyond its end.

    Skips one empty line before the start line (RFC 9112 section 2.2). Rejects an invalid head as soon as it is
    recognised, not at its end or after a timeout.
    """

    __slots__ = ("_data", "_limits", "_skipped")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._data = b""
        self._skipped = False

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Add `data`; return the head (with its last CRLF) and the data after its empty line, or None if incomplete."""
        known = len(self._data)
        if not known and data[:1] != b"\r":  # most heads: complete in one read
            end = data.find(b"\r\n\r\n")
            if 0 <= end <= self._limits.max_head:
                self._skipped = False
                return data[: end + 2], data[end + 4 :]
        data = self._data + data
        if data[:1] == b"\r":
            data = self._skip_empty_line(data)
        end = data.find(b"\r\n\r\n", max(known - 3, 0))
        if end < 0:
            self._check_partial(data, max(known - 1, 0))
            self._data = data
            return None
        if end > self._limits.max_head:
            raise self._too_large()
        self._data = b""
        self._skipped = False
        return data[: end + 2], data[end + 4 :]

    def _skip_empty_line(self, data: bytes) -> bytes:
        if data[:2] not in (b"\r", b"\r\n"):
            raise bad_message("a bare CR before the start line")
        if len(data) < 2:
            return data
        if self._skipped or data[2:3] == b"\r":
            raise bad_message("more than one empty line before the start line")
        self._skipped = True
        return data[2:]

    def _check_partial(self, data: bytes, start: int) -> None:
        if len(data) > self._limits.max_head:
            raise self._too_large()
        fresh = data[start:]
        if fresh.translate(None, _TEXT).strip(b"\r\n"):
            raise bad_message("a control character in the head")
        lines = fresh.count(b"\r\n")
        if fresh.count(b"\n") != lines + (start > 0 and fresh[:1] == b"\n"):
            raise bad_message("a bare LF in the head")
        if fresh.count(b"\r") != lines + (fresh[-1:] == b"\r"):
            raise bad_message("a bare CR in the head")
        if (
            len(data) > self._limits.max_start_line
            and data.find(b"\r\n", 0, self._limits.max_start_line + 2) < 0
        ):
            raise bad_message(f"the start line is longer than {self._limits.max_start_line} bytes", 414)

    def _too_large(self) -> ProtocolError:
        return bad_message(f"the head is larger than {self._limits.max_head} bytes", 431)


# Most messages repeat fields of earlier ones: those lines are not validated again.
_LINES, _LINE_SIZE = 2048, 128
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})
_lines: dict[str, str] = {}  # valid lines that need no change, to their names in lower case
_key_for = _lines.__getitem__
_known: dict[str, str] = {}  # names, to their lower case


def parse_fields(raw: bytes, text: str, start: int, limits: Limits) -> Headers:
    """Parse the fields of `raw`, whose Latin-1 text is `text`, from `start` on (after one line if it is > 0).

    Raises ProtocolError for bare CR or LF, control characters, obs-fold, and names that are not tokens. The caller
    must validate the line before `start`.
    """
    lines = text[start:-2].split("\r\n") if start < len(text) else []
    if len(lines) > limits.max_headers:
        raise bad_message(f"more than {limits.max_headers} header fields", 431)
    try:
        return headers_of_lines(lines, [*map(_key_for, lines)])
    except KeyError:
        pass
    return _fresh_fields(raw, text, start, lines)


def _fresh_fields(raw: bytes, text: str, start: int, lines: list[str]) -> Headers:
    """Validate and parse fields of which at least one is not in the cache."""
    if raw.translate(None, _TEXT) != b"\r\n" * (len(lines) + (start > 0)):
        raise bad_message(_explain(text, start))
    keys: list[str] = []
    for at, line in enumerate(lines):
        key = _lines.get(line)
        if key is None:
            name, colon, value = line.partition(":")
            key = _known.get(name) or _new_name(name)
            if not key or not colon:
                raise bad_message(_explain(text, start))
            value = value.strip(" \t")
            lines[at] = usual = f"{name}: {value}"
            if line == usual and len(line) <= _LINE_SIZE and key not in _SECRET:
                _remember(line, key)
        keys.append(key)
    return headers_of_lines(lines, keys)


def _remember(line: str, key: str) -> None:
    if len(_lines) >= _LINES:
        _lines.clear()
    _lines[line] = key


def _new_name(name: str) -> str:
    """Return a new name in lower case, and remember it; "" if it is not a valid name."""
    if _NAME.fullmatch(name) is None:
        return ""
    key = name.lower()
    if len(_known) < _CACHE_SIZE and len(name) <= _MAX_CACHED_NAME:
        _known[name] = key
    return key


def _explain(text: str, start: int) -> str:
    lines = text[start:].split("\r\n")[:-1]
    for line in lines:
        if "\r" in line or "\n" in line:
            return "a bare CR or LF in the head"
        if any((char < " " and char != "\t") or char == "\x7f" for char in line):
            return "a control character in the head"
        if line[:1] in (" ", "\t"):
            return "a folded header line (obs-fold)"
        if _NAME_AND_COLON.match(line) is None:
            return f"a malformed header line {line[:60]!r}"
    return "a malformed start line"

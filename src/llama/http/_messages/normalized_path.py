"""Path normalization: the decoded, normalized path that rules compare.

Clients can encode one path in many ways, and servers interpret an encoding in different ways. Rules compare the
normalized path while upstreams receive the path as sent, so a path rule must hold for every interpretation that an
upstream may have of it.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from llama._core.errors import ConfigError, ProtocolError

_SEPARATOR = r"(?:[/\\]|%2[fF]|%5[cC])"
_UNUSUAL = re.compile(r"[%\\\x80-\U0010ffff]|//|/;|/\.\.?(?:[/;]|$)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# An ASCII character in an overlong UTF-8 sequence: some servers decode it (RFC 3629 section 10).
_OVERLONG = re.compile("[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]")
# Dot segments for servlet containers, which drop parameters, and Windows, which drops trailing dots and spaces.
_DISGUISED_DOTS = re.compile(r"\.\.?(?:[\x01-\x20][.\x01-\x20]*)?(?:;.*)?", re.DOTALL)
_DOT_SEGMENT = re.compile(rf"{_SEPARATOR}(?:\.|%2[eE]){{1,2}}(?={_SEPARATOR}|;|%3[bB]|%20|$)")
_NETWORK_PATH = re.compile(f"/(?:{_SEPARATOR}|;|%3[bB])")
_SEPARATORS = re.compile(rf"{_SEPARATOR}+")
_SEGMENT = re.compile(rf"{_SEPARATOR}(?!{_SEPARATOR})((?:[^/\\%]|%(?!2[fF]|5[cC]))*)")
_PARAMETERS = re.compile(r";[^/\\]*")
_SLASHES = re.compile("//+")
_KEPT = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in "%?#\\")
_SUFFIX = r"[. ]*(?:;[^/]*)?"
_LONGEST_CONTESTED = 1024
_MOST_DOT_SEGMENTS = 8


def normalized(path: str) -> str:
    """Decode and normalize a path without its query; raise ProtocolError (400) if it has no safe interpretation.

    Each %XX is decoded once, a backslash counts as a slash, repeated slashes become one, and dot segments are
    resolved. Bytes that are not UTF-8 become U+FFFD. A path is rejected if it contains NUL, malformed escapes, ASCII in
    overlong UTF-8, or dot segments with parameters or spaces, such as `..;x`, or if it climbs above the root.
    """
    return _text(_resolved(path)) if _UNUSUAL.search(path) is not None else path


def respelled(path: str) -> str:
    """Return the normalized path percent-encoded, so that every server interprets it in the same way."""
    return (
        quote(_resolved(path), safe=_KEPT, encoding="latin-1") if _UNUSUAL.search(path) is not None else path
    )


def _resolved(path: str) -> str:
    """Normalize a path, with one character for each byte."""
    if path[:1] != "/":  # "*", or empty
        return path
    if _BAD_ESCAPE.search(path) is not None:
        raise ProtocolError(f"path {path[:60]!r} has a malformed escape")
    text = _bytes(path)
    if "\0" in text or _OVERLONG.search(text) is not None:
        raise ProtocolError(f"path {path[:60]!r} has a NUL or an overlong character")
    kept: list[str] = []
    is_directory = False
    for segment in text.replace("\\", "/").split("/"):
        is_directory = True
        if segment[:1] in ("", ";") or segment == ".":
            continue
        if segment == "..":
            if not kept:
                raise ProtocolError(f"path {path[:60]!r} climbs above the root")
            kept.pop()
        elif segment[0] == "." and _DISGUISED_DOTS.fullmatch(segment) is not None:
            raise ProtocolError(f"path {path[:60]!r} has disguised dot segments")
        else:
            kept.append(segment)
            is_directory = False
    return f"/{'/'.join(kept)}{'/' if is_directory and kept else ''}"


def _bytes(path: str) -> str:
    """Decode a path once, with one character for each byte."""
    try:
        raw = path.encode("latin-1")
    except UnicodeEncodeError:
        raw = path.encode("utf-8", "replace")
    return unquote_to_bytes(raw).decode("latin-1")


def _text(decoded: str) -> str:
    return decoded if decoded.isascii() else decoded.encode("latin-1").decode("utf-8", "replace")


# patterns


def decoded(text: str) -> str:
    """Decode the escapes in the literal text of a configured path."""
    return _text(_bytes(text)) if not text.isascii() or "%" in text else text


def check_literal(path: str, where: str) -> str:
    """Decode a configured path; raise ConfigError if no normalized path can equal it."""
    try:
        same = normalized(path)
    except ProtocolError as error:
        raise ConfigError(f"{where}: {error}") from None
    if same != decoded(path):
        raise ConfigError(f"{where}: no request can match path {path!r}: expected {same!r}")
    return same


def pattern(text: str) -> str:
    """Return a regular expression for literal path text, with suffixes of segments that some servers ignore."""
    return re.sub("(?<=[^/])/", lambda _: f"{_SUFFIX}/", re.escape(text))


def end_of_segment(text: str) -> str:
    """Return a regular expression for the ignored suffix after the last segment of literal text."""
    return _SUFFIX if text and text[-1] != "/" else ""


# prefixes


def without_prefix(path: str, prefix: str) -> str | None:
    """Return the rest of a path after a prefix, as sent; None if the path is not below the prefix.

    Both are given without a query, and the prefix normalized and without a trailing slash. Raise ProtocolError if dot
    segments follow the prefix or lead to a path that is not below it.
    """
    if _UNUSUAL.search(path) is not None:
        normalized(path)
    size = len(prefix)
    is_plain = path.startswith(prefix) and path[size : size + 1] in ("", "/")
    rest = path[size:] if is_plain else _rest(path, prefix)
    if rest is None:
        if has_dot_segments(path):
            raise ProtocolError(f"path {path[:60]!r} has dot segments")
        return None
    if has_dot_segments(rest):  # they could lead out of the prefix
        raise ProtocolError(f"path {path[:60]!r} has dot segments")
    if prefix and rest[1:2] in ("/", "\\"):  # a host follows two slashes (RFC 3986 section 4.2)
        rest = f"/{_SEPARATORS.sub('', rest, count=1)}"
    return rest


def has_dot_segments(path: str) -> bool:
    """Return whether a path has dot segments, in any encoding."""
    return _DOT_SEGMENT.search(path) is not None


def _rest(path: str, prefix: str) -> str | None:
    """Return the rest of a path whose prefix is encoded in an unusual way."""
    if re.match(f"{pattern(prefix)}{_SUFFIX}(?:/|$)", normalized(path), re.DOTALL) is None:
        return None
    if has_dot_segments(path):
        path = respelled(path)
    left = prefix.count("/")
    for match in _SEGMENT.finditer(path):
        if not left:
            return f"/{_SEPARATORS.sub('', path[match.start() :], count=1)}"
        if match[1] and match[1][0] != ";" and match[1][:3].lower() != "%3b":
            left -= 1
    return "" if not left else None


# other interpretations by upstreams


def is_contested(path: str) -> bool:
    """Return whether servers interpret a path differently: it has dot segments or begins with two slashes."""
    return _NETWORK_PATH.match(path) is not None or has_dot_segments(path)


def other_readings(path: str) -> frozenset[str] | None:
    """Return the interpretations of a contested path that differ from `normalized`; None if there are too many.

    A server may treat dot segments as names, keep encoded slashes inside a segment, treat a backslash as an ordinary
    character, drop parameters, merge slashes before it resolves dot segments or not at all, and treat the segment after
    two leading slashes as a host.
    """
    if len(path) > _LONGEST_CONTESTED or len(_DOT_SEGMENT.findall(path)) > _MOST_DOT_SEGMENTS:
        return None
    texts = {_bytes(path), _bytes(re.sub("%(?=2[fF]|5[cC])", "%25", path))}
    texts |= {each.replace("\\", "/") for each in texts}
    texts |= {_PARAMETERS.sub("", each) for each in texts}
    texts |= {"/" + each.lstrip("/\\").partition("/")[2] for each in texts if each[1:2] in ("/", "\\")}
    texts |= {_SLASHES.sub("/", each) for each in texts}
    texts |= {_without_dots(each) for each in texts}
    return frozenset(_text(_SLASHES.sub("/", each)) for each in texts)


def _without_dots(text: str) -> str:
    kept: list[str] = []
    *segments, last = text.split("/")[1:]
    for segment in (*segments, last):
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return f"/{'/'.join(kept)}{'/' if last in ('.', '..') and kept else ''}"

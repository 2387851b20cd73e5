"""The path that rules compare: decoded once and normalized, whatever its spelling.

Clients spell one path in many ways, and servers read a spelling in different ways. Rules compare the normalized path,
and upstreams get the path as sent, so a rule by path must hold for every reading an upstream may have of it.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from llama._errors import ConfigError, ProtocolError

_SEPARATOR = r"(?:[/\\]|%2[fF]|%5[cC])"
_UNUSUAL = re.compile(r"[%\\\x80-\U0010ffff]|//|/;|/\.\.?(?:[/;]|$)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# An ASCII character in a UTF-8 sequence that is too long: some servers decode it (RFC 3629 section 10).
_OVERLONG = re.compile("[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]")
# Servlet containers drop parameters, and Windows drops trailing dots and spaces: then these are dot segments too.
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
    """A path without its query, decoded once and normalized; ProtocolError (400) for one that has no safe reading.

    Each %XX is decoded once, a backslash counts as a slash, doubled slashes become one, and dot segments are
    resolved. Bytes that are not UTF-8 become U+FFFD. Refused are NUL, malformed escapes, ASCII in overlong UTF-8,
    climbing above the root, and dot segments with parameters or spaces, such as `..;x`.
    """
    return _text(_resolved(path)) if _UNUSUAL.search(path) is not None else path


def respelled(path: str) -> str:
    """The normalized path as it can be sent: percent-encoded, with one reading only."""
    return (
        quote(_resolved(path), safe=_KEPT, encoding="latin-1") if _UNUSUAL.search(path) is not None else path
    )


def _resolved(path: str) -> str:
    """The same with a character for each byte."""
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
    """A path, decoded once, with a character for each byte."""
    try:
        raw = path.encode("latin-1")
    except UnicodeEncodeError:
        raw = path.encode("utf-8", "replace")
    return unquote_to_bytes(raw).decode("latin-1")


def _text(decoded: str) -> str:
    return decoded if decoded.isascii() else decoded.encode("latin-1").decode("utf-8", "replace")


# patterns


def decoded(text: str) -> str:
    """Literal text of a configured path, with its escapes decoded."""
    return _text(_bytes(text)) if not text.isascii() or "%" in text else text


def check_literal(path: str, where: str) -> str:
    """A configured path, decoded; ConfigError for one that no normalized path equals."""
    try:
        same = normalized(path)
    except ProtocolError as error:
        raise ConfigError(f"{where}: {error}") from None
    if same != decoded(path):
        raise ConfigError(f"{where}: no request matches path {path!r}: expected {same!r}")
    return same


def pattern(text: str) -> str:
    """A regular expression for literal text of a path, with what some servers ignore at the end of a segment."""
    return re.sub("(?<=[^/])/", lambda _: f"{_SUFFIX}/", re.escape(text))


def end_of_segment(text: str) -> str:
    """A regular expression for what may follow literal text at its end."""
    return _SUFFIX if text and text[-1] != "/" else ""


# prefixes


def without_prefix(path: str, prefix: str) -> str | None:
    """What follows a prefix in a path, as sent; None where the path is not below the prefix.

    Both come without a query, and the prefix in its normalized form and without a slash at its end. ProtocolError
    where dot segments follow the prefix, or lead to a path that is not below it.
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
    if has_dot_segments(rest):  # they would lead out of what the prefix is for
        raise ProtocolError(f"path {path[:60]!r} has dot segments")
    if prefix and rest[1:2] in ("/", "\\"):  # a host follows two slashes (RFC 3986 section 4.2)
        rest = f"/{_SEPARATORS.sub('', rest, count=1)}"
    return rest


def has_dot_segments(path: str) -> bool:
    """Whether a path has dot segments, in any spelling."""
    return _DOT_SEGMENT.search(path) is not None


def _rest(path: str, prefix: str) -> str | None:
    """The same for an unusual spelling of the prefix."""
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


# what else an upstream may read


def is_contested(path: str) -> bool:
    """Whether servers differ about the path that is meant: it has dot segments, or begins with two slashes."""
    return _NETWORK_PATH.match(path) is not None or has_dot_segments(path)


def other_readings(path: str) -> frozenset[str] | None:
    """How servers may read a contested path, other than it is normalized here; None where these are too many.

    A server may take dot segments for names, keep encoded slashes within their segment, take a backslash for a
    letter, drop parameters, merge slashes before it resolves dot segments or never, and take what follows two
    slashes for a host.
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

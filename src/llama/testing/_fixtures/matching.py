"""Finds the recorded exchange of a request, and explains how a request differs from the closest one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from llama.mitm import Recorded
from llama.mitm._layers.url_prefix import normal

Part: TypeAlias = Literal["method", "scheme", "host", "path", "query", "url", "body"]
PARTS: tuple[Part, ...] = ("method", "scheme", "host", "path", "query", "url", "body")
_TELLING = ("accept", "content-type", "content-encoding", "range", "if-none-match", "if-modified-since")
_LINES = 40  # of a body's difference
_WIDTH = 200


def parts_of(recorded: Recorded) -> dict[Part, object]:
    """Split a request into the parts to compare: parameters in any order, JSON by value."""
    split = urlsplit(recorded.url)
    host = normal(split.scheme, split.netloc, "/").split("/")[2]
    path = split.path or "/"
    query = tuple(sorted(parse_qsl(split.query, keep_blank_values=True)))
    return {
        "method": recorded.method,
        "scheme": split.scheme,
        "host": host,
        "path": path,
        "query": query,
        "url": (split.scheme, host, path, query),
        "body": _comparable(recorded),
    }


def _comparable(recorded: Recorded) -> object:
    data = recorded.body.read()
    if "json" in recorded.headers.get("content-type", ""):
        try:
            return json.dumps(json.loads(data), sort_keys=True)
        except ValueError:
            pass
    return data


@dataclass(slots=True)
class TapeEntry:
    """An exchange of a cassette with its parts, and whether it was used."""

    recorded: Recorded
    parts: dict[Part, object]
    used: bool = False

    @classmethod
    def of(cls, recorded: Recorded) -> TapeEntry:
        return cls(recorded, parts_of(recorded))


def find(
    tape: Sequence[TapeEntry], asked: dict[Part, object], match: Collection[Part], *, repeat: bool = False
) -> TapeEntry | None:
    """Return the first unused exchange that matches, preferring one with an identical body.

    With `repeat` the last match can be used any number of times.
    """
    alike = [each for each in tape if all(each.parts[part] == asked[part] for part in match)]
    found = [each for each in alike if not each.used] or (alike[-1:] if repeat else [])
    same = (each for each in found if each.parts["body"] == asked["body"])
    return next(same, found[0] if found else None)


def explain(tape: Sequence[TapeEntry], asked: Recorded, match: Collection[Part]) -> str:
    """Explain why no exchange matches a request: how often it was recorded, or the difference to the closest one."""
    parts = parts_of(asked)
    times = sum(all(each.parts[part] == parts[part] for part in match) for each in tape)
    if times:
        often = "once" if times == 1 else f"{times} times"
        return f"It was recorded {often}, and already requested as often."
    if not tape:
        return "The cassette is empty."
    nearest = max(tape, key=lambda each: _likeness(each.parts, parts))
    number = 1 + next(place for place, each in enumerate(tape) if each is nearest)
    used = ", already used" if nearest.used else ""
    lines = [f"The closest of {len(tape)} is number {number}{used} (- cassette, + request):"]
    return "\n".join([*lines, *(f"  {line}" for line in _difference(nearest, asked, parts, match))])


def _likeness(one: dict[Part, object], other: dict[Part, object]) -> float:
    weights: dict[Part, float] = {"host": 4, "path": 4, "method": 2, "query": 1, "body": 1, "scheme": 0.5}
    alike = sum(weight for part, weight in weights.items() if one[part] == other[part])
    paths = difflib.SequenceMatcher(None, str(one["path"]), str(other["path"])).ratio()
    return alike + paths


def _difference(
    nearest: TapeEntry, asked: Recorded, parts: dict[Part, object], match: Collection[Part]
) -> list[str]:
    before = nearest.recorded
    lines: list[str] = []
    address = [
        f"{each['method']} {each['scheme']}://{each['host']}{each['path']}" for each in (nearest.parts, parts)
    ]
    if address[0] == address[1]:
        lines.append(f"  {address[0]}")
    else:
        lines += [f"- {address[0]}", f"+ {address[1]}"]
    if nearest.parts["query"] != parts["query"]:
        lines += _changed("query", _pairs(before.url), _pairs(asked.url))
    for name in _TELLING:
        one, other = before.headers.get(name), asked.headers.get(name)
        if one != other:
            lines += [f"header {name}", f"- {_cut(one)}", f"+ {_cut(other)}"]
    if nearest.parts["body"] != parts["body"]:
        note = "body" if "body" in match else "body (it is not compared)"
        lines += _changed(note, _text(before), _text(asked))
    return lines


def _pairs(url: str) -> list[str]:
    pairs = sorted(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    return [f"{name}={value}" for name, value in pairs]


def _cut(value: str | None) -> str:
    if value is None:
        return "(none)"
    return value if len(value) <= _WIDTH else f"{value[:_WIDTH]}... ({len(value)} characters)"


def _changed(title: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return the lines that differ, with one line of context."""
    found = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
    found = [_cut("..." if line[:1] == "@" else f"{line[0]} {line[1:]}") for line in found]
    if found[:1] == ["..."]:
        del found[0]
    if len(found) > _LINES:
        found[_LINES:] = [f"... ({len(found) - _LINES} more lines)"]
    return [title, *found]


def _text(recorded: Recorded) -> list[str]:
    """Return the lines of a body: JSON indented, binary data as its size and first bytes."""
    data = recorded.body.read()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return [f"{len(data)} bytes: {data[:32].hex(' ')}"]
    if text.lstrip()[:1] in ("{", "["):
        try:
            return json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False).splitlines()
        except ValueError:
            pass
    return text.splitlines()

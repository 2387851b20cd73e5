"""HTML pages that list the files of a directory."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import quote

MAX_ENTRIES = 10_000
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body>
<h1>{title}</h1>
<ul>
{items}
</ul>{note}
</body>
</html>
"""


def listing(directory: Path, title: str, is_shown: Callable[[Path], bool], *, has_parent: bool) -> bytes:
    """Return the page, directories first, with at most `MAX_ENTRIES` entries."""
    with os.scandir(directory) as entries:
        found = heapq.nsmallest(MAX_ENTRIES + 1, ((not each.is_dir(), each.name) for each in entries))
    names = [(is_file, name) for is_file, name in found[:MAX_ENTRIES] if is_shown(directory / name)]
    items = ['<li><a href="../">../</a></li>'] if has_parent else []
    items += [_item(name, "" if is_file else "/") for is_file, name in names]
    note = f"\n<p>Only the first {MAX_ENTRIES} entries are shown.</p>" if len(found) > MAX_ENTRIES else ""
    page = _PAGE.format(title=_shown(title), items="\n".join(items), note=note)
    return page.encode()


def _item(name: str, slash: str) -> str:
    # The leading ./ prevents a name with a colon from being parsed as a URL with a scheme.
    return f'<li><a href="./{quote(os.fsencode(name))}{slash}">{_shown(name)}{slash}</a></li>'


def _shown(name: str) -> str:
    """Return a name for display, with U+FFFD for invalid text, control characters and bidirectional marks."""
    text = os.fsencode(name).decode(errors="replace")
    return escape("".join(each if each.isprintable() else "\ufffd" for each in text))

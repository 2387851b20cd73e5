"""A page that lists what is in a directory."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import quote

MOST = 10_000
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
    """The page, directories first; of a very large directory only so much as can be looked through."""
    with os.scandir(directory) as entries:
        found = heapq.nsmallest(MOST + 1, ((not each.is_dir(), each.name) for each in entries))
    names = [(is_file, name) for is_file, name in found[:MOST] if is_shown(directory / name)]
    items = ['<li><a href="../">../</a></li>'] if has_parent else []
    items += [_item(name, "" if is_file else "/") for is_file, name in names]
    note = f"\n<p>Only the first {MOST} are shown.</p>" if len(found) > MOST else ""
    page = _PAGE.format(title=_shown(title), items="\n".join(items), note=note)
    return page.encode()


def _item(name: str, slash: str) -> str:
    # Relative with a dot, for a name with a colon in it would be taken for a URL with a scheme.
    return f'<li><a href="./{quote(os.fsencode(name))}{slash}">{_shown(name)}{slash}</a></li>'


def _shown(name: str) -> str:
    """A name for people: what is no text in it, and what would turn its direction round, is shown as such."""
    text = os.fsencode(name).decode(errors="replace")
    return escape("".join(each if each.isprintable() else "\ufffd" for each in text))

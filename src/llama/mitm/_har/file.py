"""A HAR file that grows: after each entry it is a whole document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO

from llama.mitm._har.document import Json, to_entry
from llama.mitm._records import Recorded

_TAIL = b"\n]}}\n"


def _version() -> str:
    try:
        return version("proxy-llama")
    except PackageNotFoundError:
        return "unknown"


def document(entries: Sequence[Json]) -> dict[str, Json]:
    """A HAR 1.2 document of these entries."""
    creator: dict[str, Json] = {"name": "llama", "version": _version()}
    return {"log": {"version": "1.2", "creator": creator, "entries": entries}}


class HarFile:
    """Writes entries to a HAR 1.2 document; the file is opened with the first one, in place of an older one."""

    __slots__ = ("_count", "_end", "_file", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._end = 0
        self._count = 0

    def write(self, recorded: Recorded) -> None:
        """Add an exchange."""
        entry = json.dumps(to_entry(recorded, self.path.parent), separators=(",", ":"))
        file = self._file or self._open()
        file.seek(self._end)
        file.write((b",\n" if self._count else b"\n") + entry.encode())
        self._end = file.tell()
        file.write(_TAIL)
        file.flush()
        self._count += 1

    def create(self) -> None:
        """Write the document as it is without an entry, in place of an older one; raises OSError."""
        self._open()
        self.close()

    def _open(self) -> BinaryIO:
        head = json.dumps(document([]))
        begin = head[: head.rindex("]")].encode()
        if self._count:  # it was closed meanwhile
            self._file = self.path.open("r+b")
            return self._file
        self._file = self.path.open("wb")
        self._file.write(begin + _TAIL)
        self._end = len(begin)
        return self._file

    def close(self) -> None:
        """Close the file; the next entry opens it again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

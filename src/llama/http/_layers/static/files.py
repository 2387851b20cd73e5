"""Serves the files of a directory."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from llama._core.errors import ConfigError
from llama._core.stack import layer_factory
from llama.http._layers.static.conditions import (
    Validators,
    is_fresh,
    is_unchanged,
    requested_range,
)
from llama.http._layers.static.listing import listing as listing_of
from llama.http._messages.body import Body
from llama.http._messages.headers import Headers
from llama.http._messages.message import Request, RequestHandler, Response

READ_SIZE = 1 << 17
_TEXT = {"Content-Type": "text/plain"}
_ALLOW = {"Allow": "GET, HEAD", **_TEXT}


class FileBody(Body):
    """A body with a part of an open file, which it reads in a thread, chunk by chunk; owns the file."""

    __slots__ = ("_file", "_left", "_lock")

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        super().__init__(length)
        self._file = file
        self._left = length
        # If the descriptor were closed during a read in a thread, it could be reused for another file.
        self._lock = threading.Lock()
        file.seek(start)

    async def read_chunk(self) -> bytes:
        if self.ended or not self._left:
            self.ended = True
            return b""
        data = await asyncio.to_thread(self._read, min(READ_SIZE, self._left))
        self._left -= len(data)
        # A file that was truncated ends early: the server then aborts the response.
        self.ended = not data
        return data

    def _read(self, size: int) -> bytes:
        with self._lock:
            return b"" if self._file.closed else self._file.read(size)

    async def aclose(self) -> None:
        self.ended = True
        if self._lock.locked():  # a cancelled read is still running
            await asyncio.to_thread(self._close)
        else:
            self._close()

    def _close(self) -> None:
        with self._lock:
            self._file.close()


@dataclass(frozen=True, slots=True)
class FoundFile:
    """An open file with its metadata."""

    file: BinaryIO
    media: str
    size: int
    validators: Validators


FileLookup: TypeAlias = FoundFile | bytes | str | None


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Static:
    """Serves the files of a directory."""

    root: Path
    index: str | None
    cache_control: str | None
    dotfiles: bool
    listing: bool

    __input_type__: ClassVar[type] = Request

    def __repr__(self) -> str:
        return f"http.static({self.root.name!r})"

    async def __call__(self, request: Request, /) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, _ALLOW, b"405 Method Not Allowed\n")
        path, question, query = request.path.partition("?")
        parts = self._parts(path)
        if parts is None:
            return _not_found()
        found = await _in_thread(self._open, parts, path.endswith("/"))
        if found is None:
            return _not_found()
        if isinstance(found, bytes):
            return self._page(request, found)
        if isinstance(found, str):
            # Relative, so that it is correct if an outer layer stripped a prefix.
            return Response(308, {"Location": f"./{found}/{question}{query}", **_TEXT})
        try:
            return self._answer(request, found)
        except BaseException:
            found.file.close()
            raise

    def _parts(self, path: str) -> list[str] | None:
        """Return the decoded segments of a path, or None if it cannot name a served file."""
        if not path.startswith("/"):
            return None
        parts: list[str] = []
        for segment in path[1:].split("/"):
            raw = unquote_to_bytes(segment)
            if b"/" in raw or b"\\" in raw or b"\0" in raw or raw in (b".", b".."):
                return None
            if raw.startswith(b".") and not self.dotfiles:
                return None
            if os.name == "nt" and b":" in raw:  # drives and alternate streams
                return None
            parts.append(os.fsdecode(raw))
        if "" in parts[:-1]:
            return None
        return [part for part in parts if part]

    def _open(self, parts: list[str], is_directory: bool) -> FileLookup:
        """Return the file, a directory's page, or the name of a directory to redirect to; None if not found."""
        try:
            path = self.root.joinpath(*parts).resolve(strict=True)
            if not self._is_below(path):
                return None
            if is_directory:
                return self._in_directory(path, parts)
            if path.is_dir() and (self.index is not None or self.listing):
                return quote(os.fsencode(parts[-1]))
            return _opened(path)
        except (OSError, RuntimeError, ValueError):  # a symlink loop, a name that is too long, no permission
            return None

    def _in_directory(self, path: Path, parts: list[str]) -> FileLookup:
        if self.index is not None:
            try:
                inside = (path / self.index).resolve(strict=True)
                return _opened(inside) if self._is_below(inside) else None
            except FileNotFoundError:
                if not self.listing:
                    return None
        if not self.listing:
            return None
        title = "/".join(("", *parts, "")) if parts else "/"
        return listing_of(path, title, self._is_shown, has_parent=bool(parts))

    def _is_shown(self, path: Path) -> bool:
        """Return whether a request for it would succeed."""
        if path.name.startswith(".") and not self.dotfiles:
            return False
        return not path.is_symlink() or self._is_below(path.resolve())

    def _page(self, request: Request, page: bytes) -> Response:
        headers = Headers({"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff"})
        headers.add("Content-Security-Policy", "default-src 'none'")
        headers.add("Cache-Control", self.cache_control or "no-cache")
        if request.method == "HEAD":
            headers.add("Content-Length", str(len(page)))
            return Response(200, headers)
        return Response(200, headers, page)

    def _is_below(self, path: Path) -> bool:
        if not path.is_relative_to(self.root):
            return False
        names = path.relative_to(self.root).parts
        return self.dotfiles or not any(name.startswith(".") for name in names)

    def _answer(self, request: Request, found: FoundFile) -> Response:
        headers = Headers({"Accept-Ranges": "bytes", "Last-Modified": found.validators.modified_text})
        headers.add("ETag", found.validators.etag)
        if self.cache_control is not None:
            headers.add("Cache-Control", self.cache_control)
        if not is_unchanged(request.headers, found.validators):
            found.file.close()
            return Response(412, {**dict(headers), **_TEXT}, b"412 Precondition Failed\n")
        if is_fresh(request.headers, found.validators):
            found.file.close()
            return Response(304, headers)
        headers.add("Content-Type", found.media)
        headers.add("X-Content-Type-Options", "nosniff")
        return self._send(request, found, headers)

    def _send(self, request: Request, found: FoundFile, headers: Headers) -> Response:
        start, end, status = 0, found.size, 200
        wanted = requested_range(request, found.validators, found.size)
        if wanted is not None:
            start, end = wanted
            if start >= end:
                found.file.close()
                unsatisfied = {"Content-Range": f"bytes */{found.size}", **_TEXT}
                return Response(416, unsatisfied, b"416 Range Not Satisfiable\n")
            status = 206
            headers.add("Content-Range", f"bytes {start}-{end - 1}/{found.size}")
        if request.method == "HEAD":
            found.file.close()
            headers.add("Content-Length", str(end - start))
            return Response(status, headers)
        return Response(status, headers, FileBody(found.file, start, end - start))


async def _in_thread(
    look: Callable[[list[str], bool], FileLookup], parts: list[str], is_directory: bool
) -> FileLookup:
    """Run `look` in a thread; if cancelled, close the file that it opens."""
    looking = asyncio.get_running_loop().run_in_executor(None, look, parts, is_directory)
    try:
        return await asyncio.shield(looking)
    except asyncio.CancelledError:
        looking.add_done_callback(_discard)
        raise


def _discard(looking: asyncio.Future[FileLookup]) -> None:
    if not looking.cancelled() and isinstance(found := looking.result(), FoundFile):
        found.file.close()


def _opened(path: Path) -> FoundFile | None:
    """Open the regular file at a resolved path, without following a symlink that replaced it meanwhile."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        info = os.fstat(descriptor)
        if stat.S_ISREG(info.st_mode):
            return FoundFile(file, _media_type(path.name), info.st_size, Validators.of(info))
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _media_type(name: str) -> str:
    kind, coding = mimetypes.guess_type(name)
    if kind is None or coding is not None:  # serve a .gz as a file, without Content-Encoding
        return "application/gzip" if coding == "gzip" else "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind.endswith("javascript") else kind


def _not_found() -> Response:
    return Response(404, _TEXT, b"404 Not Found\n")


@layer_factory("http.static", "service")
def static(
    root: str | os.PathLike[str],
    *,
    index: str | None = "index.html",
    cache_control: str | None = None,
    dotfiles: bool = False,
    listing: bool = False,
) -> RequestHandler:
    """Serve the files below a directory for GET and HEAD, with ETag, Last-Modified and single ranges (RFC 9110).

    A path that ends in a slash serves the file `index` in that directory (None: 404); a directory without the slash is
    redirected to it. With `listing`, a directory without an index file gets an HTML page that lists its files.
    `cache_control` is the value of Cache-Control. Symbolic links are followed inside the directory. Links that lead out
    of it, hidden files (unless `dotfiles`), and anything but regular files get 404. Files are read in threads, in
    chunks; the ETag is made of modification time, size and inode. Raises ConfigError if `root` is not a directory.

        stack(http.server(), http.static("."))
    """
    try:
        directory = Path(root).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"http.static({os.fspath(root)!r}): {error}") from None
    if not directory.is_dir():
        raise ConfigError(f"http.static({os.fspath(root)!r}): expected a directory")
    if index is not None and (index in ("", "..") or Path(index).name != index):
        raise ConfigError(f"http.static(index={index!r}): expected a file name or None")
    return Static(directory, index, cache_control, dotfiles, listing)

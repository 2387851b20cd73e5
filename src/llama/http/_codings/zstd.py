"""The content coding zstd (RFC 8878), by the standard library since Python 3.14, else by the extra zstd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from llama._core.errors import ProtocolError, TruncatedError

MAX_OUTPUT = 1 << 18
# Four bytes can expand to 128 KiB, and the zstandard package does not limit its output: bound the input instead.
SLICE = 128
WINDOW_LOG = 23  # 8 MiB, the maximum window size for this content coding (RFC 9659)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int, /) -> bytes: ...


class _Frame(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Library:
    """The common interface of both libraries."""

    compressor: Callable[[int], _Compressor]
    frame: Callable[[], _Frame]
    error: type[Exception]
    flush_block: int
    flush_end: int


@cache
def zstd() -> Library | None:
    """Return the library that is installed, or None."""
    for name, library in (("compression.zstd", _standard), ("zstandard", _zstandard)):
        try:
            return library(import_module(name))
        except ImportError:
            continue
    return None


def _standard(module: Any) -> Library:
    options = {module.DecompressionParameter.window_log_max: WINDOW_LOG}
    compressor = module.ZstdCompressor
    return Library(
        lambda level: compressor(level=level),
        lambda: module.ZstdDecompressor(options=options),
        module.ZstdError,
        compressor.FLUSH_BLOCK,
        compressor.FLUSH_FRAME,
    )


def _zstandard(module: Any) -> Library:
    return Library(
        lambda level: module.ZstdCompressor(level=level).compressobj(),
        lambda: module.ZstdDecompressor(max_window_size=1 << WINDOW_LOG).decompressobj(),
        module.ZstdError,
        module.COMPRESSOBJ_FLUSH_BLOCK,
        module.COMPRESSOBJ_FLUSH_FINISH,
    )


class ZstdEncoder:
    """A zstd encoder; with `flushes`, the output for each chunk can be decoded at once."""

    __slots__ = ("_compressor", "_flushes", "_library")

    def __init__(self, library: Library, level: int, *, flushes: bool) -> None:
        self._library = library
        self._compressor = library.compressor((level + 1) // 2)
        self._flushes = flushes

    def update(self, data: bytes) -> bytes:
        out = self._compressor.compress(data)
        return out + self._compressor.flush(self._library.flush_block) if self._flushes else out

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        return self._compressor.flush(self._library.flush_end)


class ZstdDecoder:
    """A zstd decoder for one or more frames, with output in bounded chunks."""

    __slots__ = ("_frame", "_library", "_position", "_rest")

    def __init__(self, library: Library) -> None:
        self._library = library
        self._frame: _Frame | None = None
        self._rest = b""
        self._position = 0

    def update(self, data: bytes) -> bytes:
        self._rest = self._rest[self._position :] + data
        self._position = 0
        return self.pending()

    def pending(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while size < MAX_OUTPUT and self._position < len(self._rest):
            part = self._step(self._rest[self._position : self._position + SLICE])
            size += len(part)
            parts.append(part)
        return b"".join(parts)

    def _step(self, data: bytes) -> bytes:
        if (frame := self._frame) is None:
            frame = self._frame = self._library.frame()
        try:
            out = frame.decompress(data)
        except self._library.error as error:
            raise ProtocolError(f"invalid zstd body: {error}") from None
        self._position += len(data)
        if frame.eof:
            self._position -= len(frame.unused_data)
            self._frame = None
        return out

    def flush(self) -> bytes:
        if self._frame is not None:
            raise TruncatedError("the zstd body is truncated")
        return b""

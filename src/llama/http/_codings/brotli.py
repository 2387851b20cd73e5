"""The content coding br (RFC 7932), implemented by the package of the extra brotli."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Protocol, cast

from llama._core.errors import ProtocolError, TruncatedError

MAX_OUTPUT = 1 << 18


class _Compressor(Protocol):
    def process(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...
    def finish(self) -> bytes: ...


class _Decompressor(Protocol):
    def process(self, data: bytes, /, *, output_buffer_limit: int) -> bytes: ...
    def can_accept_more_data(self) -> bool: ...
    def is_finished(self) -> bool: ...


class _Module(Protocol):
    error: type[Exception]

    def Compressor(self, *, quality: int) -> _Compressor: ...  # noqa: N802
    def Decompressor(self) -> _Decompressor: ...  # noqa: N802


@cache
def brotli() -> _Module | None:
    """Return the package if it is installed and can limit its output (since version 1.2), else None."""
    try:
        found = import_module("brotli")
    except ImportError:
        return None
    return cast("_Module", found) if hasattr(found.Decompressor, "can_accept_more_data") else None


class BrotliEncoder:
    """A br encoder; with `flushes`, the output for each chunk can be decoded at once."""

    __slots__ = ("_compressor", "_flushes")

    def __init__(self, module: _Module, level: int, *, flushes: bool) -> None:
        self._compressor = module.Compressor(quality=level - 1)
        self._flushes = flushes

    def update(self, data: bytes) -> bytes:
        out = self._compressor.process(data)
        return out + self._compressor.flush() if self._flushes else out

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        return self._compressor.finish()


class BrotliDecoder:
    """A br decoder with output in bounded chunks."""

    __slots__ = ("_begun", "_decompressor", "_error", "_rest")

    def __init__(self, module: _Module) -> None:
        self._decompressor = module.Decompressor()
        self._error = module.error
        self._rest = b""
        self._begun = False

    def update(self, data: bytes) -> bytes:
        self._begun = True
        self._rest += data
        return self.pending()

    def pending(self) -> bytes:
        decompressor = self._decompressor
        while True:
            if decompressor.is_finished():
                if self._rest:
                    raise ProtocolError("invalid br body: data after the end")
                return b""
            data = b""
            if decompressor.can_accept_more_data():
                data, self._rest = self._rest, b""
            try:
                out = decompressor.process(data, output_buffer_limit=MAX_OUTPUT)
            except self._error as error:
                raise ProtocolError(f"invalid br body: {error}") from None
            if out or not data:  # even without input there may be pending output
                return out

    def flush(self) -> bytes:
        if self._begun and not self._decompressor.is_finished():
            raise TruncatedError("the br body is truncated")
        return b""

"""What turns the bytes of a body into others, piece by piece: replacing, and taking content codings off."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from llama._core.errors import ProtocolError, TruncatedError
from llama.http._codings.brotli import BrotliDecoder, BrotliEncoder, brotli
from llama.http._codings.zstd import ZstdDecoder, ZstdEncoder, zstd

MAX_OUTPUT = 1 << 18
_WINDOWS = {"gzip": 31, "deflate": 15}
_EXTRAS = {"br": "brotli", "zstd": "zstd"}


class Transform(Protocol):
    """Bytes in, bytes out; it may hold some back."""

    def update(self, data: bytes) -> bytes:
        """Add `data`; what can be given on now."""
        ...

    def pending(self) -> bytes:
        """Further output of what was fed, for one small input must not become one huge output; or b""."""
        ...

    def flush(self) -> bytes:
        """The input has ended; what is left."""
        ...


class MapTransform:
    """Each piece through a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[bytes], bytes]) -> None:
        self._function = function

    def update(self, data: bytes) -> bytes:
        return self._function(data)

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        return b""


class ReplaceTransform:
    """Replaces across the borders of pieces: only what could begin a match is held back."""

    __slots__ = ("_held", "_new", "_old")

    def __init__(self, old: bytes, new: bytes) -> None:
        self._old = old
        self._new = new
        self._held = b""

    def update(self, data: bytes) -> bytes:
        parts = (self._held + data).split(self._old)
        last = parts[-1]
        keep = min(len(self._old) - 1, len(last))
        while keep and not self._old.startswith(last[-keep:]):
            keep -= 1
        self._held = last[len(last) - keep :]
        parts[-1] = last[: len(last) - keep]
        return self._new.join(parts)

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        held, self._held = self._held, b""
        return held


class DeflateDecoder:
    """Takes gzip (RFC 1952, several members too) or deflate (zlib, or raw as some send it) off."""

    __slots__ = ("_coding", "_inflater", "_rest")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inflater: zlib._Decompress | None = None
        self._rest = b""

    def update(self, data: bytes) -> bytes:
        self._rest += data
        return self.pending()

    def pending(self) -> bytes:
        while self._rest:
            inflater = self._inflater or self._start(self._rest)
            try:
                out = inflater.decompress(self._rest, MAX_OUTPUT)
            except zlib.error as error:
                raise ProtocolError(f"invalid {self._coding} body: {error}") from None
            self._rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if inflater.eof:
                self._inflater = None
            if out:
                return out
        return b""

    def _start(self, data: bytes) -> zlib._Decompress:
        window = 31
        if self._coding == "deflate":
            is_zlib = data[0] & 0x0F == 8 and (len(data) < 2 or int.from_bytes(data[:2], "big") % 31 == 0)
            window = 15 if is_zlib else -15
        self._inflater = zlib.decompressobj(window)
        return self._inflater

    def flush(self) -> bytes:
        if self._inflater is not None and not self._inflater.eof:
            raise TruncatedError(f"the {self._coding} body is truncated")
        return b""


class DeflateEncoder:
    """Puts gzip or deflate (zlib) on; each piece can be read as soon as it came when `flushes`."""

    __slots__ = ("_deflater", "_flushes")

    def __init__(self, coding: str, level: int, *, flushes: bool) -> None:
        self._deflater = zlib.compressobj(level, zlib.DEFLATED, _WINDOWS[coding])
        self._flushes = flushes

    def update(self, data: bytes) -> bytes:
        out = self._deflater.compress(data)
        return out + self._deflater.flush(zlib.Z_SYNC_FLUSH) if self._flushes else out

    def pending(self) -> bytes:
        return b""

    def flush(self) -> bytes:
        return self._deflater.flush()


def known_codings() -> tuple[str, ...]:
    """The codings that can be put on and taken off here, those that do it best first."""
    more = (("zstd", zstd()), ("br", brotli()))
    return (*(name for name, library in more if library is not None), *_WINDOWS)


def explain_unsupported(coding: str) -> str:
    """What it takes to know a coding; empty for one that nothing helps with."""
    return (
        f"it takes the extra {_EXTRAS[coding]}, proxy-llama[{_EXTRAS[coding]}]" if coding in _EXTRAS else ""
    )


def encoder(coding: str, level: int, *, flushes: bool) -> Transform:
    """What puts a content coding on; `level` is from 1 (fast) to 9 (small)."""
    if coding == "br" and (module := brotli()) is not None:
        return BrotliEncoder(module, level, flushes=flushes)
    if coding == "zstd" and (library := zstd()) is not None:
        return ZstdEncoder(library, level, flushes=flushes)
    return DeflateEncoder(coding, level, flushes=flushes)


def decoders(codings: Sequence[str]) -> list[Transform]:
    """What takes these content codings off, in order of use; ProtocolError for one that is not known."""
    return [_decoder(coding) for coding in reversed(codings) if coding != "identity"]


def _decoder(coding: str) -> Transform:
    if coding in ("gzip", "x-gzip", "deflate"):
        return DeflateDecoder(coding)
    if coding == "br" and (module := brotli()) is not None:
        return BrotliDecoder(module)
    if coding == "zstd" and (library := zstd()) is not None:
        return ZstdDecoder(library)
    why = f": {explain_unsupported(coding)}" if explain_unsupported(coding) else ""
    raise ProtocolError(f"content coding {coding!r} cannot be taken off{why}", status=415)
